"""What every tracker offers, and when a voice becomes the champion."""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from tts.errors import PreemptedError, TakenOverError

CHAMPION = "champion"
"""Alias of the version that is in use."""


@dataclass(frozen=True)
class Registration:
    """A version in the registry."""

    name: str
    version: int
    champion: bool
    reason: str


class Run(Protocol):
    """One run under way."""

    id: str

    def params(self, values: Mapping[str, object]) -> None:
        """Records parameters. They are written once: a value that differs on a continued run becomes the tag `changed.<name>`."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Records metrics. Those that are not finite are counted in the tag `non_finite.<name>` and not sent."""

    def artefact(self, path: Path, folder: str = "") -> None:
        """Keeps a copy of a file or of a folder's content."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Sets tags."""


class Tracker(Protocol):
    """Where runs are recorded. Recording waits for no server; a context manager that delivers what it can when it ends."""

    def run(self, name: str, *, parent: str | None = None, run_id: str | None = None, anew: bool = False) -> AbstractContextManager[Run]:
        """A run, or with `run_id` the continuation of one: FINISHED when the block ends, FAILED by an error, KILLED by a stop from outside.

        TakenOverError leaves the run to the process that continues it. A continued run repeats, maybe, what an attempt that was killed had
        recorded: a metric's value at a step is taken once, the first time.
        `anew`: what was recorded before does not count, as after a start over with another configuration. Below a `parent` names are unique:
        the same name is the same run. Raises CannotWriteError, as the run's methods do.
        """

    def register(
        self, files: Path, *, name: str, run_id: str, metrics: Mapping[str, float], compare: str, fingerprint: str, passed: bool
    ) -> Registration:
        """Registers the files as a version of the model `name`, and makes it champion where `judge` says so.

        The same files are registered once: again, the version that holds them is judged anew. Raises ServiceUnavailableError and UsageError.
        """

    @property
    def undelivered(self) -> int:
        """Records that the store does not have yet."""

    def close(self, seconds: float = ...) -> None:
        """Delivers what it can in that time, and tells what is left."""

    def __enter__(self) -> Self:
        """Itself."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Closes."""


class AlwaysDelivered:
    """A tracker that keeps nothing back."""

    undelivered = 0

    def close(self, seconds: float = 0.0) -> None:
        """There is nothing to deliver."""

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """There is nothing to deliver."""


@dataclass(frozen=True)
class Champion:
    """The version that a new one must beat."""

    version: int
    value: float
    fingerprint: str


def judge(value: float, *, version: int, compare: str, fingerprint: str, passed: bool, champion: Champion | None) -> tuple[bool, str]:
    """Whether a version is or becomes the champion, and why. `value` is its `compare` metric; lower is better."""
    if champion and champion.version == version:
        return True, "is the champion already"
    if not passed or not math.isfinite(value):
        return False, f"has no finite {compare}" if passed else "did not pass its evaluation"
    if champion is None:
        return True, "the first voice that passed its evaluation"
    if champion.fingerprint != fingerprint or not math.isfinite(champion.value):
        return False, (
            f"its {compare} cannot be compared with version {champion.version}, which was judged on other features or by another metric; "
            f"set the alias {CHAMPION} by hand or register under another name"
        )
    better = value < champion.value
    return better, f"{compare} {value:.4g} is {'below' if better else 'not below'} {champion.value:.4g} of version {champion.version}"


def split(values: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
    """Finite metrics, and the names of the others."""
    finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
    return finite, [name for name in values if name not in finite]


class Ending(Protocol):
    """Ends a run with MLflow's name of a state: FINISHED, FAILED or KILLED."""

    def __call__(self, status: str) -> None:
        """Ends it."""


@contextmanager
def ending(end: Ending) -> Iterator[None]:
    """Ends a run as the block ends, unless another process has taken it over."""
    try:
        yield
    except TakenOverError:
        raise
    except (PreemptedError, KeyboardInterrupt):
        end("KILLED")
        raise
    except BaseException:
        end("FAILED")
        raise
    else:
        end("FINISHED")
