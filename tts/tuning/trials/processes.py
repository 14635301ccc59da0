"""The processes that trials train in: those at work, and spares that wait for the next trial with everything loaded.

A trial has a process for each device that it trains on; the first one leads and is the one that the worker talks to.

Processes are forked from a server that has torch and the training code loaded already and has one thread: a trial starts in 0.08 s
instead of the 5 s and more that loading takes (two cores, 2026). CUDA is first touched in the trial's own process.
"""

import json
import logging
import multiprocessing
import os
import time
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import TracebackType
from typing import Any, NamedTuple, Self

from tts.errors import PreemptedError, ServiceUnavailableError, UsageError
from tts.storage import reporting
from tts.tuning.trials.lifeline import Lifeline

logger = logging.getLogger(__name__)

END_SECONDS = 60
"""For a process to be gone after its last message, before it is killed."""
FOLLOW_SECONDS = 10
"""For the processes that follow, once the one that leads is gone."""
READY_SECONDS = 60
"""For a spare to have everything loaded once a trial waits for it."""

STARTS, START_SECONDS = 5, 0.1
"""Tries to start a process, and the first pause between two of them."""

_LOADED = ["tts.tuning.trials.child"]


class Needs(NamedTuple):
    """What a process loads before it knows its trial."""

    features: Path
    device: str
    """The knob training.device."""
    stale_seconds: float
    ranks: int
    """Processes that train together."""


def load_trial_server() -> None:
    """Starts loading torch in the server that trials are forked from, while the caller goes on. Raises UsageError."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(_LOADED)
    try:
        forkserver.ensure_running()
    except OSError as error:
        if "AF_UNIX path too long" not in str(error):
            raise
        folder = gettempdir()
        raise UsageError(
            f"the folder for temporary files, {folder}, has {len(os.fsencode(folder))} bytes, too many for the sockets in it; "
            "set TMPDIR to one of 75 at most"  # a socket's path has 107, and multiprocessing adds 32
        ) from error


class Rank:
    """One process; it ends when this object is ended, or with this process, or without a sign of life of it."""

    def __init__(self, needs: Needs, place: dict[str, Any], *, spare: bool) -> None:
        """Starts it. A spare loads what it needs and says so; the others wait for their trial and load then. Raises ServiceUnavailableError."""
        self.control, control = multiprocessing.get_context("forkserver").Pipe()
        self._lifeline = Lifeline(needs.stale_seconds)
        loaded = {"features": str(needs.features), "device": needs.device} if spare else None
        task = json.dumps({"stale_seconds": needs.stale_seconds, "load": loaded, "place": place})
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

    @property
    def exit_code(self) -> int | None:
        """None while it runs, as far as is known by now. 255 where the server that it was forked from is gone."""
        return self._process.exitcode

    def send(self, message: dict[str, Any]) -> None:
        """What a process that has ended misses is read from its exit."""
        try:
            self.control.send_bytes(json.dumps(message).encode())
        except (BrokenPipeError, ConnectionResetError):
            logger.warning("the trial's process ended before it was answered")

    def receive(self, seconds: float = 0) -> dict[str, Any] | None:
        """A message, if one comes within so long; None where there is none, or the process is gone."""
        if not self.control.poll(seconds):
            return None
        try:
            message: dict[str, Any] = json.loads(self.control.recv_bytes())
        except (EOFError, ConnectionResetError):
            self._process.join()
            return None
        return message

    def is_ready(self) -> bool:
        """Waits until a spare has loaded everything; False for one that has ended, by itself or not."""
        return self.control.poll(READY_SECONDS) and (self.receive() or {}).get("kind") == "ready" and self._process.is_alive()

    def terminate(self) -> None:
        """Asks it to stop at its next checkpoint."""
        self._process.terminate()

    def join(self, seconds: float) -> None:
        """Waits for its end, so long at most."""
        self._process.join(seconds)

    def end(self, seconds: float = 0) -> None:
        """It is gone afterwards; it gets this long to go by itself."""
        self._process.join(seconds)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self.control.close()
        self._lifeline.close()


class TrialProcess:
    """What a trial trains in: one process, or several that train together. All end with this object, or with this process."""

    def __init__(self, needs: Needs, *, spare: bool) -> None:
        """Starts it, as `Rank` does. Raises ServiceUnavailableError, CannotWriteError."""
        self.needs = needs
        # They meet at a file: a port could be taken by somebody else, and be reached by anybody.
        with reporting(Path(gettempdir())):
            self._folder = TemporaryDirectory(prefix="tts-ranks-") if needs.ranks > 1 else None
        meeting = f"file://{self._folder.name}/meeting" if self._folder else ""
        self._ranks: list[Rank] = []
        try:
            for rank in range(needs.ranks):
                place = {"rank": rank, "count": needs.ranks, "here": needs.ranks, "device": rank, "meeting": meeting}
                self._ranks.append(Rank(needs, place, spare=spare))
        except BaseException:
            self.end()
            raise
        self.control = self._ranks[0].control

    @property
    def sentinels(self) -> list[int]:
        """To wait for the end of any process with, but for one that followed to the end."""
        return [rank.sentinel for rank in self._ranks if rank is self._ranks[0] or rank.exit_code != 0]

    def send(self, message: dict[str, Any]) -> None:
        """To the process that leads."""
        self._ranks[0].send(message)

    def begin(self, message: dict[str, Any]) -> None:
        """Gives all of them their trial."""
        for rank in self._ranks:
            rank.send(message)

    def receive(self, seconds: float = 0) -> dict[str, Any] | None:
        """A message, if one comes within so long; None where there is none, or the process that leads is gone."""
        return self._ranks[0].receive(seconds)

    def is_ready(self) -> bool:
        """Whether a spare can take a trial; waits until that is known."""
        return all(rank.is_ready() for rank in self._ranks)

    def terminate(self) -> None:
        """Asks all to stop at the next checkpoint; who leads tells the others."""
        self._ranks[0].terminate()

    @property
    def leads_on(self) -> bool:
        """Whether the process that leads has not ended, as far as is known."""
        return self._ranks[0].exit_code is None

    def died(self, seconds: float = 0) -> int | None:
        """Exit code of a process that ended before its time; None if there is none, after so long.

        Where one is gone the others end themselves, with 75: the code is of who went first.
        """
        leader, *followers = self._ranks
        for rank in followers:
            rank.join(seconds)
        codes = [code for code in (leader.exit_code, *(rank.exit_code or None for rank in followers)) if code is not None]
        return min(codes, key=lambda code: (code >= 0, code == PreemptedError.exit_code), default=None)

    def end(self, seconds: float = 0) -> None:
        """They are gone afterwards; who leads gets this long to go by itself, the others then a moment."""
        for rank in self._ranks:
            rank.end(seconds)
            seconds = min(seconds, FOLLOW_SECONDS)
        if self._folder:
            self._folder.cleanup()


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
            if spare.needs == needs and spare.is_ready():
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


def _main(control: Connection, lifeline: Connection, task: str) -> None:
    from tts.tuning.trials.child import main  # loaded in the server already; the worker itself needs no torch

    main(control, lifeline, task)
