"""One trial in a process of its own, so that nothing leaks from one trial to the next and a crash costs one trial."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal

from tts.config import Config
from tts.errors import CannotWriteError, DataError, PreemptedError, ServiceUnavailableError, TtsError
from tts.training.preemption import StopFlag
from tts.tuning.trials.processes import END_SECONDS, Needs, TrialProcess, TrialProcesses, load_trial_server

__all__ = ["GRACE_SECONDS", "TrialFailedError", "TrialKilledError", "TrialProcesses", "Work", "load_trial_server", "run_trial", "tail"]

GRACE_SECONDS = 60
"""For the step under way and its checkpoint, before a trial that was asked to stop is killed, where nobody else sets a limit."""
LOST_SECONDS = 5
"""For the process that another one misses to be seen to be gone."""
POLL_SECONDS = 0.2
TAIL_LINES = 15

Judge = Callable[[int, Mapping[str, float]], bool]
"""Takes a validation's step and metrics; says whether the trial is to end. Its errors end the trial, too."""

# Errors that are not the trial's: another trial would meet them as well.
_SURROUNDINGS: dict[int, type[TtsError]] = {kind.exit_code: kind for kind in (DataError, ServiceUnavailableError, CannotWriteError, PreemptedError)}
_NO_SERVER = 255
"""What multiprocessing says of a process whose fork server died before it."""


class TrialFailedError(TtsError):
    """The trial has no value; the message is the reason."""


class TrialKilledError(TrialFailedError):
    """Its process was killed from outside, by the kernel for its memory or by somebody, or ended just before. Another attempt may fare better."""


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

    @property
    def needs(self) -> Needs:
        """What its process loads."""
        tuning = self.config.tuning
        return Needs(self.features, self.config.training.device, tuning.stale_seconds, max(1, tuning.gpus_per_trial))

    @property
    def message(self) -> dict[str, Any]:
        """What its process is told."""
        paths = {"features": self.features, "run": self.run, "lock": self.lock, "log": self.log}
        return {**{name: str(path) for name, path in paths.items()}, "config": self.config.model_dump(mode="json"), "workers": self.workers}


def run_trial(
    work: Work, judge: Judge, stop: StopFlag, *, processes: TrialProcesses | None = None, grace_seconds: float = GRACE_SECONDS
) -> Literal["finished", "pruned"]:
    """Trains to the end or until `judge` ends it; its process is gone afterwards, whatever happens.

    With `processes`, which a worker keeps for all its trials, the next trial's process is made ready meanwhile. A trial that was asked to stop is
    killed after `grace_seconds`.

    Raises:
        TrialFailedError: It diverged, its values cannot be trained with, or its process died (TrialKilledError).
        PreemptedError: It was asked to stop, its process found this worker paused, or memory is short; it has a checkpoint to go on from.
        DataError, CannotWriteError, ServiceUnavailableError: The surroundings are broken; it can go on once they are mended.
    """
    spares = TrialProcesses() if processes is None else processes
    with _process(work, spares) as process:
        asked: float | None = None
        while True:
            if stop and asked is None:
                asked = time.monotonic()
                process.terminate()
                spares.discard()
            if asked is not None and time.monotonic() - asked > grace_seconds:
                raise PreemptedError(f"the trial did not stop within {grace_seconds:g} s and was killed; it goes on from its last checkpoint")
            if not wait([process.control, *process.sentinels], timeout=POLL_SECONDS):
                continue
            message = _said(process, work, stop)
            if message is None:
                continue
            if message["kind"] != "validation":
                return _conclude(message)
            process.send({"prune": bool(judge(message["step"], message["metrics"]))})  # a pruner may say it with a NumPy bool
            # Not before: what the trial takes of memory shows at its first validation.
            if processes is not None and not stop:
                processes.prepare(work.needs)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log; empty where there is none."""
    if not log.is_file():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])[-4000:]


@contextmanager
def _process(work: Work, processes: TrialProcesses) -> Iterator[TrialProcess]:
    process = processes.take(work.needs)
    seconds = 0.0
    try:
        process.begin(work.message)
        yield process
        seconds = END_SECONDS
    finally:
        process.end(seconds)


def _said(process: TrialProcess, work: Work, stop: StopFlag) -> dict[str, Any] | None:
    """What the process that leads says; None for nothing. Raises TtsError where one ended before its time."""
    message = process.receive()
    if message is None:
        code = process.died()
        if code is None:
            return None
        message = process.receive(LOST_SECONDS) if process.leads_on else None  # where another one went, it may say why
        if message is None:
            raise _crash(code, work.log, stop)
    if message["kind"] == "lost" and (code := process.died(LOST_SECONDS)):
        raise _crash(code, work.log, stop)
    return message


def _conclude(message: dict[str, Any]) -> Literal["finished", "pruned"]:
    if message["kind"] == "preempted":
        raise PreemptedError("handed back at its checkpoint")
    if message["kind"] == "short":
        raise TrialKilledError(message["reason"])
    if message["kind"] in ("failed", "lost"):
        raise _SURROUNDINGS.get(message["exit_code"], TrialFailedError)(message["reason"])
    ending: Literal["finished", "pruned"] = message["kind"]
    return ending


def _crash(code: int, log: Path, stop: StopFlag) -> TtsError:
    if stop:
        return PreemptedError("its process ended while it was asked to stop; it goes on from its last checkpoint")
    if code == PreemptedError.exit_code:
        return PreemptedError(f"its process ended itself, for its worker had been paused ({tail(log, 1)}); it goes on from its last checkpoint")
    if code == -signal.SIGKILL:
        return TrialKilledError("its process was killed by SIGKILL (out of memory?)")
    if code < 0:
        return TrialFailedError(f"its process was killed by {signal.Signals(-code).name}")
    if code == _NO_SERVER:
        return TrialKilledError("the process that trials are forked from was killed (out of memory?)")
    last = tail(log, 1)
    return _SURROUNDINGS.get(code, TrialFailedError)(f"its process ended with exit code {code}{': ' + last if last else ''}")
