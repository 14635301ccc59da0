"""Progress of long work, behind a protocol: bars on a terminal, a line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

logger = logging.getLogger(__name__)


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        """Moves on by `steps` and shows the figures (loss, frames/s) beside the bar."""


class Progress(Protocol):
    """Where progress is shown."""

    def task(self, title: str, total: int, done: int = 0) -> AbstractContextManager[Task]:
        """A context manager that yields the Task."""


def show(figures: dict[str, float | str]) -> str:
    """Figures as one short text."""
    return "  ".join(f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items())


class _Bar:
    def __init__(self, progress: RichProgress, title: str, total: int, done: int) -> None:
        self._progress = progress
        self._id = progress.add_task(title, total=total, completed=done, figures="")

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        self._progress.advance(self._id, steps)
        if figures:
            self._progress.update(self._id, figures=show(figures))


class Bars:
    """rich's bars on standard error."""

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Task]:
        """A bar."""
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[figures]}"),
        )  # fmt: skip
        with RichProgress(*columns, console=Console(stderr=True)) as progress:
            yield _Bar(progress, title, total, done)


class _Line:
    def __init__(self, title: str, total: int, done: int, every: float) -> None:
        self.title, self.total, self.done, self.every = title, total, done, every
        self.figures: dict[str, float | str] = {}
        self._begun = self._shown = time.monotonic()
        self._first = done
        self._last_shown: int | None = None

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        self.done += steps
        self.figures.update(figures)
        if time.monotonic() - self._shown >= self.every:
            self._shown = time.monotonic()
            self.show()

    def show(self) -> None:
        if self.done == self._last_shown:
            return
        self._last_shown = self.done
        spent = time.monotonic() - self._begun
        left = spent / max(1, self.done - self._first) * (self.total - self.done)
        logger.info("%s %d/%d  %.0f s, %.0f s left  %s", self.title, self.done, self.total, spent, left, show(self.figures))


class Lines:
    """A log line each `every` seconds: for files, pods and CI, where a bar would be noise."""

    def __init__(self, every: float = 10.0) -> None:
        self.every = every

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Task]:
        """A line now and then, and one at the end."""
        line = _Line(title, total, done, self.every)
        yield line
        line.show()


class _Nothing:
    def advance(self, steps: int = 1, **figures: float | str) -> None:
        """Shows nothing."""


class Silent:
    """No progress: for tests and for trials, whose worker shows it."""

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Task]:
        """Nothing is shown."""
        yield _Nothing()


def for_terminal() -> Progress:
    """Bars where standard error is a terminal, lines elsewhere."""
    return Bars() if sys.stderr.isatty() else Lines()
