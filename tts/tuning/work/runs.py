"""Where a trial's run is kept from one attempt to the next: in the study's folder, or in an object store.

In the study's folder, which all workers share, a run stays where it is. With `tuning.runs_uri` an attempt fetches what the one before it published
(publisher.py), trains in its worker's own folder and publishes each checkpoint below `<runs_uri>/<study>/trials/<number>/<lease>/`.
"""

import hashlib
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from optuna.trial import FrozenTrial

from tts.errors import CannotWriteError, DataError
from tts.storage import fetch, join
from tts.tuning.database.attributes import PREFIXES, RUN, UNPUBLISHED
from tts.tuning.database.failure import LeaseLostError
from tts.tuning.study import Plan, Study
from tts.tuning.work.publisher import Publisher, discard
from tts.tuning.work.queue import Held

logger = logging.getLogger(__name__)

Note = Callable[[Mapping[str, Any]], None]
"""Notes attributes of the trial, fenced by the lease, from any thread. Raises LeaseLostError, ServiceUnavailableError."""


class SharedRun:
    """The run of a trial in the study's folder."""

    def __init__(self, study_folder: Path, held: Held) -> None:
        self.folder = study_folder / "trials" / str(held.number)
        self.lock = study_folder / ".locks" / f"trial-{held.number}"
        """Held by the process that trains there."""
        self._elsewhere = bool(held.trial.user_attrs.get(RUN))

    def attributes(self) -> dict[str, Any]:
        """What the trial notes before anything is written, and again at the end."""
        return {RUN: ""} if self._elsewhere else {}

    @contextmanager
    def kept(self, note: Note, check: Callable[[], object], left: Callable[[float], float]) -> Iterator[Callable[[], None]]:
        """Around the training: the run is as the attempt before left it when the block begins, and there for the next when it ends.

        Yields what is to be called while the training waits and may have written a checkpoint. `check` and `left`: see Publisher.finish.
        Raises CannotWriteError, ServiceUnavailableError at its beginning, LeaseLostError at its end.
        """
        yield lambda: None

    def discard(self) -> None:
        """After the attempt: what nobody needs any more goes."""


class PublishedRun(SharedRun):
    """The run of a trial in a folder of its worker's, and in the object store."""

    def __init__(self, scratch: Path, held: Held, home: str) -> None:
        super().__init__(scratch, held)
        self._states = scratch / "states" / f"{held.number}-{held.lease.rpartition(':')[2]}"
        self._source: str = held.trial.user_attrs.get(RUN, "")
        self._number = held.number
        self._own = join(home, "trials", str(held.number), held.lease.replace(":", "-"))
        self._old: list[str] = [place for place in held.trial.user_attrs.get(PREFIXES, []) if place != self._own]
        self._seen = b""
        self.unpublished = ""
        """Why the last state is not in the object store."""

    def attributes(self) -> dict[str, Any]:
        """Where something may lie that is to be removed some day."""
        return {PREFIXES: [*self._old, self._own], UNPUBLISHED: self.unpublished}

    @contextmanager
    def kept(self, note: Note, check: Callable[[], object], left: Callable[[float], float]) -> Iterator[Callable[[], None]]:
        """Fetches, and publishes each checkpoint and the last state. That it cannot be published costs no trial."""
        self.discard()
        self._fetch()

        def tell(uri: str) -> None:
            note({RUN: uri, **self.attributes()})
            self._old = [place for place in self._old if not discard(place)]

        publisher = Publisher(self.folder, self._own, self._states, tell)
        try:
            with self._published_last(publisher, check, left):
                yield lambda: self._validated(publisher)
        except LeaseLostError:
            publisher.abandon()
            raise
        finally:
            publisher.close()

    def discard(self) -> None:
        """The next attempt has what was published."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _fetch(self) -> None:
        if not self._source:
            return
        try:
            fetch(self._source, self.folder)
        except DataError as error:
            # It makes the same steps again: that costs time and nothing else, where giving up would cost the trial.
            logger.warning("trial %d begins again, for what it had published cannot be used: %s", self._number, error)

    def _validated(self, publisher: Publisher) -> None:
        index = self.folder / "checkpoints" / "index.json"
        written = index.read_bytes() if index.is_file() else b""
        if written != self._seen:
            self._seen = written
            self._offer(publisher)

    def _offer(self, publisher: Publisher) -> str:
        try:
            publisher.offer()
        except CannotWriteError as error:
            logger.warning("trial %d: its run cannot be published: %s", self._number, error)
            return str(error)
        return ""

    @contextmanager
    def _published_last(self, publisher: Publisher, check: Callable[[], object], left: Callable[[float], float]) -> Iterator[None]:
        """After the block the state that it leaves is published, however it ends, unless the trial is another's."""
        try:
            yield
        except LeaseLostError:
            raise
        except BaseException:
            self._end(publisher, check, left)
            raise
        else:
            self._end(publisher, check, left)

    def _end(self, publisher: Publisher, check: Callable[[], object], left: Callable[[float], float]) -> None:
        if not self.folder.is_dir():
            return
        self.unpublished = self._offer(publisher) or publisher.finish(check, left)
        if self.unpublished:
            logger.warning("trial %d: the last state of its run is not published: %s", self._number, self.unpublished)


RunOf = Callable[[Held], SharedRun]


def runs_of(study: Study, plan: Plan, folder: Path) -> RunOf:
    """Makes the runs of a worker, whose folder that is, as the study keeps them. Raises UsageError."""
    if not plan.config.tuning.runs_uri:
        return lambda held: SharedRun(folder, held)
    home = home_of(study, plan.config.tuning.runs_uri)
    return lambda held: PublishedRun(folder, held, home)


def home_of(study: Study, runs_uri: str) -> str:
    """What of the study lies in the object store: all below one prefix. Raises UsageError."""
    plain = re.sub(r"[^\w.-]", "_", study.name)[:60].strip(".") or "study"
    digest = hashlib.blake2b(study.name.encode(), digest_size=4).hexdigest()
    return join(runs_uri.rstrip("/"), plain if plain == study.name else f"{plain}-{digest}")


@contextmanager
def run_folder(study: Study, trial: FrozenTrial) -> Iterator[Path]:
    """The run of a trial, fetched for the time of the block where it lies in an object store.

    Raises DataError where it is not there, ServiceUnavailableError, CannotWriteError.
    """
    published = trial.user_attrs.get(RUN, "")
    if not published:
        yield study.plan.folder / "trials" / str(trial.number)
        return
    with TemporaryDirectory(prefix="tts-run-") as folder:
        yield fetch(published, Path(folder) / "run")
