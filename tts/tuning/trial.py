"""One trial in a process of its own, so that nothing leaks from one trial to the next and a crash costs one trial.

Processes are forked from a server that has torch and the training code loaded already and has one thread: a trial starts in 0.08 s
instead of the 5 s and more that loading takes (two cores, 2026). CUDA is first touched in the trial's own process.
"""

import json
import logging
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal

from tts.config import Config
from tts.errors import CannotWriteError, DataError, PreemptedError, ServiceUnavailableError, TtsError
from tts.training.preemption import StopFlag

logger = logging.getLogger(__name__)

GRACE_SECONDS = 60
"""For the step under way and its checkpoint, before a trial that was asked to stop is killed."""
POLL_SECONDS = 0.2
TAIL_LINES = 15

Judge = Callable[[int, Mapping[str, float]], bool]
"""Takes a validation's step and metrics; says whether the trial is to end. Its errors end the trial, too."""

# torch's optimisers load torch._dynamo when the first one is made: seconds in every trial.
_LOADED = ["tts.tuning.child", "torch._dynamo"]
# Errors that are not the trial's: another trial would meet them as well.
_SURROUNDINGS: dict[int, type[TtsError]] = {kind.exit_code: kind for kind in (DataError, ServiceUnavailableError, CannotWriteError)}


class TrialFailedError(TtsError):
    """The trial has no value; the message is the reason."""


@dataclass(frozen=True)
class Work:
    """What a trial trains, and where."""

    features: Path
    run: Path
    lock: Path
    """Held by the process that trains in `run`."""
    config: Config
    workers: int
    """That share this machine's cores."""

    @property
    def log(self) -> Path:
        """What the trial's process wrote."""
        return self.run / "trial.log"


def load_trial_server() -> None:
    """Starts loading torch in the server that trials are forked from, while the caller goes on."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(_LOADED)
    forkserver.ensure_running()


def run_trial(work: Work, judge: Judge, stop: StopFlag) -> Literal["finished", "pruned"]:
    """Trains to the end or until `judge` ends it; its process is gone afterwards, whatever happens.

    Raises:
        TrialFailedError: It diverged, its values cannot be trained with, or its process died.
        PreemptedError: It was asked to stop, and has a checkpoint to go on from.
        DataError, CannotWriteError, ServiceUnavailableError: The surroundings are broken; it can go on once they are mended.
    """
    with _child(work) as (process, control):
        asked: float | None = None
        while True:
            if stop and asked is None:
                asked = time.monotonic()
                process.terminate()
            if asked is not None and time.monotonic() - asked > GRACE_SECONDS:
                raise PreemptedError(f"the trial did not stop within {GRACE_SECONDS} s and was killed; it goes on from its last checkpoint")
            if not wait([control, process.sentinel], timeout=POLL_SECONDS):
                continue
            message = _receive(control)
            if message is None:
                raise _crash(process, work.log, stop)
            if message["kind"] == "validation":
                _answer(control, {"prune": judge(message["step"], message["metrics"])})
                continue
            return _conclude(message)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log; empty where there is none."""
    if not log.is_file():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])[-4000:]


@contextmanager
def _child(work: Work) -> Iterator[tuple[ForkServerProcess, Connection]]:
    context = multiprocessing.get_context("forkserver")
    control, theirs = context.Pipe()
    watched, lifeline = context.Pipe(duplex=False)
    task = {
        "features": str(work.features), "run": str(work.run), "lock": str(work.lock), "log": str(work.log),
        "config": work.config.model_dump(mode="json"), "workers": work.workers,
    }  # fmt: skip
    process = context.Process(target=_main, args=(theirs, watched, json.dumps(task)), name=work.run.name)
    try:
        process.start()
        theirs.close()
        watched.close()
        yield process, control
        process.join(GRACE_SECONDS)
    finally:
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
        control.close()
        lifeline.close()


def _main(control: Connection, lifeline: Connection, task: str) -> None:
    from tts.tuning.child import main  # loaded in the server already; the worker itself needs no torch

    main(control, lifeline, task)


def _receive(control: Connection) -> dict[str, Any] | None:
    if not control.poll():
        return None
    try:
        message: dict[str, Any] = json.loads(control.recv_bytes())
    except (EOFError, ConnectionResetError):
        return None
    return message


def _answer(control: Connection, message: dict[str, Any]) -> None:
    try:
        control.send_bytes(json.dumps(message).encode())
    except (BrokenPipeError, ConnectionResetError):
        logger.warning("the trial's process ended before it was answered")  # what it died of is read from its exit


def _conclude(message: dict[str, Any]) -> Literal["finished", "pruned"]:
    if message["kind"] == "preempted":
        raise PreemptedError("handed back at its checkpoint")
    if message["kind"] == "failed":
        raise _SURROUNDINGS.get(message["exit_code"], TrialFailedError)(message["reason"])
    ending: Literal["finished", "pruned"] = message["kind"]
    return ending


def _crash(process: ForkServerProcess, log: Path, stop: StopFlag) -> TtsError:
    process.join()
    code = process.exitcode or 0
    if stop:
        return PreemptedError("its process ended while it was asked to stop; it goes on from its last checkpoint")
    if code == -signal.SIGKILL:
        return TrialFailedError("its process was killed by SIGKILL (out of memory?)")
    if code < 0:
        return TrialFailedError(f"its process was killed by {signal.Signals(-code).name}")
    last = tail(log, 1)
    return TrialFailedError(f"its process ended with exit code {code}{': ' + last if last else ''}")
