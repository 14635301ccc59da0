"""Publishes the states of one trial's run while it trains: a thread uploads what was kept last, and training does not wait.

Each state goes under a prefix of its own, is whole or not there, and only then the study is told, fenced by the lease; what it replaces is removed
after that. So a worker that is killed at any moment leaves the study pointing to a whole state, and one that was paused and comes back late
changes nothing that the study points to.

A state is kept by links: files in folders of the run are written once, under their final names. Files at its top grow, and are copied.
"""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tts.errors import TtsError
from tts.storage import join, publish, remove, reporting
from tts.tuning.database.failure import LeaseLostError

logger = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds between tries to publish a state, at first and at most."""
ABANDON_SECONDS = 30.0
"""For an upload under way whose trial was lost: nobody else would remove what it sends."""
_LOOK_SECONDS = 0.1


class Publisher:
    """Of one attempt. At most two states are kept: the one under way, and the newest one that waits."""

    def __init__(self, run: Path, place: str, kept: Path, tell: Callable[[str], None]) -> None:
        """`run` is published below `place`; `kept` is a folder for its states; `tell` notes the URI of one that is published, in our thread.

        `tell` raises LeaseLostError where the trial is another attempt's, TtsError for what may pass.
        """
        self._run, self._place, self._kept, self._tell = run, place, kept, tell
        self._changed = threading.Condition()
        self._waiting: tuple[int, Path] | None = None
        self._closed = False
        self._offered = self._published = 0
        """Number of the newest state that was kept, and of the newest that the study knows of."""
        self._litter: list[str] = []
        """What goes once another state is published."""
        self._problem = ""
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
        self._thread.start()

    def offer(self) -> None:
        """Keeps the run as it is now, to be published. Raises CannotWriteError, and FileNotFoundError where a file of it went meanwhile."""
        state = self._kept / str(self._offered + 1)
        try:
            with reporting(state):
                _keep(self._run, state)
        except (OSError, TtsError):
            shutil.rmtree(state, ignore_errors=True)
            raise
        with self._changed:
            self._offered += 1
            replaced, self._waiting = self._waiting, (self._offered, state)
            self._changed.notify_all()
        if replaced:
            shutil.rmtree(replaced[1], ignore_errors=True)

    def finish(self, check: Callable[[], object], left: Callable[[float], float]) -> str:
        """Waits until the newest state is published and the study knows; else says why it is not.

        Gives up once `left(seconds waited)`, which is asked again and again, is not above zero. `check` raises what ends the waiting at once.
        """
        begun = time.monotonic()

        def wait_while(condition: Callable[[], bool]) -> None:
            while condition() and self._thread.is_alive() and left(time.monotonic() - begun) > 0:
                check()
                time.sleep(_LOOK_SECONDS)

        try:
            wait_while(lambda: self._behind)
            behind = self._behind
        finally:
            self.close()
        if behind:
            return self._problem or "there was no time left for it"
        wait_while(lambda: True)  # until what it replaced is removed: nobody would after us
        return ""

    def close(self) -> None:
        """What waits is dropped. An upload under way goes on alone: once the lease is gone the study is not told of it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Closes, once the trial is another attempt's. An upload under way is waited for, because it then removes what it sent."""
        self.close()
        self._thread.join(ABANDON_SECONDS)

    @property
    def _behind(self) -> bool:
        with self._changed:
            return self._published < self._offered

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            number, state = taken
            try:
                self._publish(number, state)
            except LeaseLostError as error:
                self._problem = str(error)
                return
            finally:
                shutil.rmtree(state, ignore_errors=True)

    def _next(self) -> tuple[int, Path] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting is not None)
            taken, self._waiting = self._waiting, None
            return None if self._closed else taken

    def _publish(self, number: int, state: Path) -> None:
        """Publishes one state, or gives way to a newer one. Raises LeaseLostError."""
        uri, wait = join(self._place, f"{number:06d}"), FIRST_WAIT
        while not self._try(uri, state):
            if self._rests(wait):
                self._litter.append(uri)
                return
            wait = min(2 * wait, LONGEST_WAIT)
        with self._changed:
            self._published = number
        self._litter = [left for left in self._litter if not discard(left)] + [uri]

    def _try(self, uri: str, state: Path) -> bool:
        try:
            publish(state, uri)
            self._tell(uri)
        except LeaseLostError:
            discard(uri)
            raise
        except TtsError as error:
            if not self._problem:
                logger.warning("the run is not published (%s); it is tried again, and training goes on", error)
            self._problem = str(error)
            return False
        if self._problem:
            logger.warning("the run is published again")
        self._problem = ""
        return True

    def _rests(self, seconds: float) -> bool:
        """Waits before the next try; whether there is none, for a newer state has come or this one is wanted no more."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or self._waiting is not None, seconds)


def discard(place: str) -> bool:
    """Removes what nobody points to any more; False: it stays, which costs room and nothing else."""
    try:
        remove(place)
    except TtsError as error:
        logger.warning("%s is not removed: %s", place, error)
        return False
    return True


def _keep(run: Path, state: Path) -> None:
    """The run's files as they are, without locks and what is half written."""
    for folder, below, files in os.walk(run):
        below[:] = [name for name in below if not name.startswith(".")]
        target = state / Path(folder).relative_to(run)
        target.mkdir(parents=True, exist_ok=True)
        for name in files:
            if not name.startswith("."):
                (shutil.copyfile if Path(folder) == run else os.link)(Path(folder) / name, target / name)
