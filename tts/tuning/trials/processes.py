"""The processes that trials train in: the one at work, and a spare that waits for the next trial with everything loaded.

Processes are forked from a server that has torch and the training code loaded already and has one thread: a trial starts in 0.08 s
instead of the 5 s and more that loading takes (two cores, 2026). CUDA is first touched in the trial's own process.
"""

import json
import logging
import multiprocessing
import time
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tts.errors import ServiceUnavailableError
from tts.tuning.trials.lifeline import Lifeline

logger = logging.getLogger(__name__)

END_SECONDS = 60
"""For a process to be gone after its last message, before it is killed."""
READY_SECONDS = 60
"""For a spare to have everything loaded once a trial waits for it."""

STARTS, START_SECONDS = 5, 0.1
"""Tries to start a process, and the first pause between two of them."""

# torch's optimisers load torch._dynamo when the first one is made: seconds in every trial.
_LOADED = ["tts.tuning.trials.child", "torch._dynamo"]


class Needs(NamedTuple):
    """What a process loads before it knows its trial."""

    features: Path
    device: str
    """The knob training.device."""
    stale_seconds: float


def load_trial_server() -> None:
    """Starts loading torch in the server that trials are forked from, while the caller goes on."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(_LOADED)
    forkserver.ensure_running()


class TrialProcess:
    """One process; it ends when this object is ended, or with this process, or without a sign of life of it."""

    def __init__(self, needs: Needs, *, spare: bool) -> None:
        """Starts it. A spare loads what it needs and says so; the others wait for their trial and load then. Raises ServiceUnavailableError."""
        self.needs = needs
        self.control, control = multiprocessing.get_context("forkserver").Pipe()
        self._lifeline = Lifeline(needs.stale_seconds)
        loaded = {"features": str(needs.features), "device": needs.device} if spare else None
        task = json.dumps({"stale_seconds": needs.stale_seconds, "load": loaded})
        try:
            self._process = _start(control, self._lifeline.theirs, task)
        except BaseException:
            self.control.close()
            self._lifeline.close()
            raise
        finally:
            control.close()
            self._lifeline.theirs.close()

    @property
    def sentinel(self) -> int:
        """To wait for the end of the process with."""
        return self._process.sentinel

    def send(self, message: dict[str, Any]) -> None:
        """What a process that has ended misses is read from its exit."""
        try:
            self.control.send_bytes(json.dumps(message).encode())
        except (BrokenPipeError, ConnectionResetError):
            logger.warning("the trial's process ended before it was answered")

    def receive(self) -> dict[str, Any] | None:
        """A message that is there; None where there is none, or the process is gone."""
        if not self.control.poll():
            return None
        try:
            message: dict[str, Any] = json.loads(self.control.recv_bytes())
        except (EOFError, ConnectionResetError):
            return None
        return message

    def is_alive(self) -> bool:
        """Whether it runs, as far as is known by now."""
        return self._process.is_alive()

    def terminate(self) -> None:
        """Asks it to stop at its next checkpoint."""
        self._process.terminate()

    def exit_code(self) -> int:
        """Waits for its end. 255 where the server that it was forked from is gone."""
        self._process.join()
        return self._process.exitcode or 0

    def end(self, seconds: float = 0) -> None:
        """It is gone afterwards; it gets this long to go by itself."""
        self._process.join(seconds)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self.control.close()
        self._lifeline.close()


class TrialProcesses:
    """A worker's processes: `with TrialProcesses() as processes: run_trial(work, judge, stop, processes=processes)`, trial after trial.

    While a trial trains, the process of the next one is started: it has torch loaded, the features mapped and, on a GPU, its context made, and
    waits. Nothing is prepared again from trial to trial. One trial trains at a time; at the end, and when a trial is stopped, the spare goes.
    """

    def __init__(self) -> None:
        self._spare: TrialProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.discard()

    def take(self, needs: Needs) -> TrialProcess:
        """The spare, if there is one that fits and lives, else a new process. The caller ends it. Raises ServiceUnavailableError."""
        spare, self._spare = self._spare, None
        if spare is not None:
            if spare.needs == needs and _is_ready(spare):
                return spare
            spare.end()
        return TrialProcess(needs, spare=False)

    def prepare(self, needs: Needs) -> None:
        """Starts the spare unless there is one; it ends by itself where memory is short (spare.py)."""
        if self._spare is not None:
            return
        try:
            self._spare = TrialProcess(needs, spare=True)
        except ServiceUnavailableError as error:
            logger.warning("%s; it is tried again when this trial has ended", error)

    def discard(self) -> None:
        """Ends the spare."""
        if self._spare is not None:
            self._spare.end()
            self._spare = None


def _start(control: Connection, lifeline: Connection, task: str) -> ForkServerProcess:
    """A process from the server; a server that died, which shows only here, is replaced."""
    for attempt in range(STARTS):
        process = multiprocessing.get_context("forkserver").Process(target=_main, args=(control, lifeline, task), name="trial")
        try:
            process.start()
        except (EOFError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
            logger.info("a trial's process did not start (%s)", reason)
            time.sleep(2**attempt * START_SECONDS)  # until the kernel has told that the server is gone
        else:
            return process
    raise ServiceUnavailableError(f"a trial's process cannot be started ({reason}); see whether this machine has memory and processes left")


def _is_ready(spare: TrialProcess) -> bool:
    """Waits until it has loaded everything; False for one that has ended, by itself or not."""
    return spare.control.poll(READY_SECONDS) and (spare.receive() or {}).get("kind") == "ready" and spare.is_alive()


def _main(control: Connection, lifeline: Connection, task: str) -> None:
    from tts.tuning.trials.child import main  # loaded in the server already; the worker itself needs no torch

    main(control, lifeline, task)
