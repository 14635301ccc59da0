"""The tracker that records nothing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tts.tracking.protocol import AlwaysDelivered, Registration, Run


class _Nothing:
    id = ""

    def params(self, values: Mapping[str, object]) -> None:
        """Forgets them."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Forgets them."""

    def artefact(self, path: Path, folder: str = "") -> None:
        """Forgets it."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Forgets them."""


class NoTracker(AlwaysDelivered):
    """Null object for `tracking.backend = none`. Its runs have the id ""."""

    @contextmanager
    def run(self, name: str, *, parent: str | None = None, run_id: str | None = None, anew: bool = False) -> Iterator[Run]:
        """A run that leaves no trace."""
        yield _Nothing()

    def register(
        self, files: Path, *, name: str, run_id: str, metrics: Mapping[str, float], compare: str, fingerprint: str, passed: bool
    ) -> Registration:
        """Registers nothing and says so: version 0."""
        return Registration(name, 0, champion=False, reason="tracking.backend is none: there is no registry")
