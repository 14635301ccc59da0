"""Sees who trains what, from outside: through the kernel's list of processes and their open files, not through the study or its locks.

A trial's process has the trial's log as its standard output from the moment it is given the trial, and the run's `.lock` open while it
trains. A trial is run by two at once where two workers that live each have a living process for it, or two processes train in its folder.
"""

import os
import threading
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

SECONDS = 0.04
"""Between two looks; an attempt at a trial takes a second."""
PROC = Path("/proc")


class Seen(NamedTuple):
    """A process at work on a trial."""

    process: int
    worker: int | None
    """None where its worker is dead."""
    trains: bool


class Witness:
    """Looks from a thread until the block ends."""

    def __init__(self, trials: Path) -> None:
        self._trials = f"{trials.resolve()}/"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="witness")
        self.looks = 0
        self.seen: dict[str, set[int]] = defaultdict(set)
        """Processes that trained, by trial."""
        self.doubles: dict[str, str] = {}
        """Trials that were run by two at once, and what was seen."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SECONDS):
            self.look()

    def look(self) -> None:
        """Once."""
        self.looks += 1
        now = self._at_work()
        suspects = {trial for trial, seen in now.items() if _double(seen)}
        # Processes are read one after the other: a first may have ended before a second began. Who is there again was there throughout.
        again = self._at_work() if suspects else {}
        for trial, seen in now.items():
            self.seen[trial] |= {one.process for one in seen if one.trains}
        for trial in suspects:
            both = now[trial] & again.get(trial, set())
            if _double(both):
                self.doubles.setdefault(trial, f"look {self.looks}: {sorted(both)}")

    def _at_work(self) -> dict[str, set[Seen]]:
        found: dict[str, set[Seen]] = defaultdict(set)
        for entry in os.listdir(PROC):  # noqa: PTH208  # many times a second
            if entry.isdigit():
                with suppress(OSError):
                    output = os.readlink(PROC / entry / "fd" / "1")  # noqa: PTH115  # as above
                    if output.startswith(self._trials) and output.endswith("/trial.log"):
                        trial = output[len(self._trials) :].split("/")[0]
                        found[trial].add(Seen(int(entry), worker_of(int(entry)), self._trains(entry, trial)))
        return found

    def _trains(self, process: str, trial: str) -> bool:
        folder = PROC / process / "fd"
        for descriptor in os.listdir(folder):  # noqa: PTH208  # as above
            with suppress(OSError):
                if os.readlink(folder / descriptor) == f"{self._trials}{trial}/.lock":  # noqa: PTH115  # as above
                    return True
        return False


def _double(seen: set[Seen]) -> bool:
    workers = {one.worker for one in seen if one.worker is not None}
    return len(workers) > 1 or sum(one.trains for one in seen) > 1


def worker_of(process: int) -> int | None:
    """The worker is the parent of the server that the process was forked from."""
    worker = _parent(_parent(process))
    command = (PROC / str(worker) / "cmdline").read_bytes().split(b"\0")
    return worker if b"tts.tuning" in command or b"worker" in command else None


def _parent(process: int) -> int:
    status = (PROC / str(process) / "stat").read_text(encoding="utf-8", errors="replace")
    return int(status.rpartition(")")[2].split()[1])
