"""SIGKILL and SIGTERM at random moments of runs, each of which goes on afterwards and must end as the run that nobody disturbed."""

import itertools
import json
import os
import random
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.training.lives import Life, Moment
from tests.chaos.training.runs import Kind, Place
from tests.chaos.training.sameness import differences
from tts.progress import Task
from tts.storage.files import PARTIAL

AT_ONCE = 2
"""Runs."""
MOST = 8
"""Kills of one run."""
TERMINATED = 0.3
"""Share of the signals that are SIGTERM; the others are SIGKILL."""
AIMED = 0.4
"""Share of the moments that are aimed at the writing of a file; the others are anywhere in what a life still has before it."""
LATEST_FILE = 8
"""Files that a life writes undisturbed before such a moment, at most."""
BEGINNING = 0.3
"""Share of an undisturbed life that each life takes before its first step, or less."""
ALONE_SECONDS = 3.0
"""For a rank to notice by itself that another is gone; then it is ended, as torchrun does it."""
ENDS = {signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (75, -signal.SIGTERM)}
"""How who was sent a signal may end, if not unmoved because its work was done: by the signal itself where it did not listen yet, or no longer."""
LEFT_BEHIND = (75, -signal.SIGTERM, -signal.SIGKILL)
"""How a rank may end when another is gone, if its own work was not done."""


@dataclass(frozen=True)
class Strike:
    """What is done to one life of a run."""

    number: signal.Signals
    moment: Moment
    victims: tuple[int, ...]
    """Ranks."""


class Kills:
    """All that are killed, and what it came to. Choices are those of the seed; the moments depend on the machine, too."""

    def __init__(self, place: Place, kinds: Sequence[Kind], wanted: int, seed: int, task: Task) -> None:
        self._place, self._kinds, self._seed, self._task = place, kinds, seed, task
        self._permits, self._lock, self._numbers = threading.Semaphore(wanted), threading.Lock(), itertools.count(1)
        self._seconds: dict[str, float] = {}
        self.signals, self.kinds = Counter[str](), Counter[str]()
        self.amid_writing = self.runs = self.not_exact = 0
        """SIGKILLs that left a file half-written; runs judged, and those that did not end as they should."""
        self.inexact, self.surprises = list[str](), list[str]()
        """In words: what differs, and how a process ended that it should not have."""

    def perform(self) -> None:
        """Trains each kind undisturbed, then one run after the other with kills until there were as many as are wanted."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._train_undisturbed, self._kinds))
            for player in [pool.submit(self._play) for _ in range(AT_ONCE)]:
                player.result()

    def _undisturbed(self, kind: Kind) -> Path:
        return self._place.folder / "undisturbed" / kind.name

    def _train_undisturbed(self, kind: Kind) -> None:
        run = self._undisturbed(kind)
        with ExitStack() as stack:
            lives = [stack.enter_context(life) for life in self._place.lives(kind, run)]
            codes = [life.end() for life in lives]
            self._seconds[kind.name] = lives[0].seconds
        restarts = json.loads((run / "run.json").read_text(encoding="utf-8"))["totals"]["restarts"]
        if (codes, restarts) != ([kind.ends] * kind.ranks, kind.restarts):
            raise AssertionError(f"{kind.name}: undisturbed, it ended with {codes} after {restarts} restarts; see {self._place.log(run, 0)}")

    def _play(self) -> None:
        while self._permits.acquire(blocking=False):
            with self._lock:
                name = f"{next(self._numbers):03}"
            choice = random.Random(f"{self._seed} {name}")
            (kind,) = choice.choices(self._kinds, [kind.share for kind in self._kinds])
            run = self._place.folder / "runs" / name
            self._disturb(kind, run, choice)
            found = differences(run, self._undisturbed(kind))
            with self._lock:
                self.runs += 1
                self.not_exact += bool(found)
                self.inexact += [f"run {name} ({kind.name}): {text}" for text in found]
            if not found:
                shutil.rmtree(run)

    def _disturb(self, kind: Kind, run: Path, choice: random.Random) -> None:
        """Kills it up to MOST times and lets it end. Comes with the permit for the first kill."""
        for time in range(MOST):
            if time > 0 and not self._permits.acquire(blocking=False):
                break
            if not self._strike(kind, run, self._strike_of(kind, run, choice)):
                self._permits.release()  # the run had ended before its moment
                return
        self._strike(kind, run, None)

    def _strike_of(self, kind: Kind, run: Path, choice: random.Random) -> Strike:
        number = signal.SIGTERM if choice.random() < TERMINATED else signal.SIGKILL
        rest = self._seconds[kind.name] * (BEGINNING + (1 - BEGINNING) * (1 - _done(run)))
        moment = _at_file(run, choice.randint(1, LATEST_FILE)) if choice.random() < AIMED else _after(choice.random() * rest)
        victims = choice.choice(((0,), (1,), (0, 1))) if kind.ranks > 1 else (0,)
        return Strike(number, moment, victims)

    def _strike(self, kind: Kind, run: Path, strike: Strike | None) -> bool:
        """Lives one life of the run; whether it was still there at its moment."""
        with ExitStack() as stack:
            lives = [stack.enter_context(life) for life in self._place.lives(kind, run)]
            hit = strike is not None and lives[0].until(strike.moment) and _send(strike, lives)
            codes = _ends(lives, disturbed=hit)
        with self._lock:
            for rank, code in enumerate(codes):
                allowed = () if strike is None or not hit else ENDS[strike.number] if rank in strike.victims else LEFT_BEHIND
                if code not in (kind.ends, *allowed):
                    sent = f"{strike.number.name} sent to {strike.victims}" if strike and hit else "undisturbed"
                    log = self._place.log(run, rank)
                    self.surprises.append(f"run {run.name} ({kind.name}), {sent}: rank {rank} ended with {code}; see {log}")
            if strike and hit:
                self.signals[strike.number.name] += 1
                self.kinds[kind.name] += 1
                self.amid_writing += strike.number == signal.SIGKILL and any(run.rglob(f".*{PARTIAL}"))
                self._task.advance(1, runs=str(self.runs), wrong=str(len(self.inexact) + len(self.surprises)))
        return hit


def _send(strike: Strike, lives: list[Life]) -> bool:
    """Whether one of those that it was meant for was still there."""
    return max([lives[victim].send(strike.number) for victim in strike.victims])


def _ends(lives: list[Life], *, disturbed: bool) -> list[int | None]:
    """Waits for all ranks. Where one was killed while they met, the others would wait for it for long, and are ended."""
    if disturbed and len(lives) > 1:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for life in lives:
                if life.end(ALONE_SECONDS) is None:
                    life.send(number)
    return [life.end() for life in lives]


def _done(run: Path) -> float:
    """Share of a run's steps that its newest checkpoint has."""
    with suppress(FileNotFoundError):
        newest = json.loads((run / "checkpoints" / "index.json").read_text(encoding="utf-8"))["checkpoints"][-1]["step"]
        return float(newest / json.loads((run / "config.json").read_text(encoding="utf-8"))["training"]["steps"])
    return 0.0


def _after(seconds: float) -> Moment:
    return lambda age: age >= seconds


def _at_file(run: Path, number: int) -> Moment:
    """When the file of that number, counted from here, is being written."""
    seen = {name for folder in (run, *_folders(run)) for name in _partial(folder)}
    before = len(seen)

    def look(_age: float) -> bool:
        seen.update(name for folder in (run, *_folders(run)) for name in _partial(folder))
        return len(seen) - before >= number

    return look


def _folders(run: Path) -> list[Path]:
    return [run / name for name in ("checkpoints", "snapshots", "anomalies", "restarts/01", "restarts/02")]


def _partial(folder: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return [entry.name for entry in os.scandir(folder) if entry.name.endswith(PARTIAL)]
    return []
