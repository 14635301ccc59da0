"""From a run's spool to the store: in order, each record once, by one process at a time."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from tts.errors import ServiceUnavailableError
from tts.tracking.mlflow_store import GoneError, MlflowStore, RefusedError
from tts.tracking.replay import Artefact, End, Item, Param, Part, Replay, Start, Values, changed
from tts.tracking.spool import Spool, State

logger = logging.getLogger(__name__)

Heard = Callable[[str, int], None]
"""Hears of which run the store has how many records more."""


def silent(_key: str, _records: int) -> None:
    """Hears nothing."""


class Delivery:
    """Delivers runs to one store, and remembers what it read of those that are not ended."""

    def __init__(self, store: MlflowStore, folder: Path) -> None:
        self.store, self.folder, self.name = store, folder, store.location.name
        self._replays: dict[str, Replay] = {}

    def deliver(self, spool: Spool, *, wait: float = 0.0, heard: Heard = silent) -> bool:
        """Sends what the store does not have yet; False where another process is at it, or the parent is not there yet.

        Raises ServiceUnavailableError and what else keeps the store from taking it: what was sent is noted, the rest waits.
        """
        with spool.delivering(wait) as ours:
            if not ours:
                return False
            state = spool.state(self.name)
            replay = self._replay(spool, state)
            self._replays.pop(spool.key, None)  # until it is known to be where the store is
            try:
                complete = self._send(spool, state, replay, heard)
            except _StrangerError:
                logger.warning("MLflow at %s does not know run %s any more: it is sent anew", self.store.location.public, spool.key)
                replay = Replay()
                complete = self._send_anew(spool, replay, heard)
            if complete:
                self._replays[spool.key] = replay
            return complete

    def finish(self, spool: Spool, *, wait: float = 0.0, heard: Heard = silent) -> bool:
        """Delivers; a run whose recorders have all died is ended as KILLED."""
        if not self.deliver(spool, wait=wait, heard=heard):
            return False
        replay = self._replays[spool.key]
        recorder = None if replay.ended else spool.abandoned(replay.attempt)
        if recorder is not None:
            recorder.append("end", status="KILLED", ms=int(spool.file.stat().st_mtime * 1000))
            recorder.close()
            if not self.deliver(spool, wait=wait, heard=heard):
                return False
        if self._replays[spool.key].ended:
            del self._replays[spool.key]  # a run that is taken up again is read again
        return True

    def run_id(self, key: str) -> str:
        """The store's id of a run. Raises GoneError where it is not there."""
        known = self._identify(key)
        if known is None:
            raise GoneError(f"MLflow at {self.store.location.public} has no run {key}")
        return known[0]

    def _replay(self, spool: Spool, state: State) -> Replay:
        replay = self._replays.get(spool.key)
        if replay is None or replay.offset != state.offset:
            replay = Replay()
            replay.skip(spool.records(stop=state.offset))
        return replay

    def _send(self, spool: Spool, state: State, replay: Replay, heard: Heard) -> bool:
        size = spool.size()  # what is recorded meanwhile is for the next time: a busy recorder must not hold others up
        for part in replay.parts(spool.records(state.offset, size)):
            start = part.content if isinstance(part.content, Start) else None
            if (start or not state.run) and not self._begin(spool, state, start or Start(spool.key, 0, "", ""), heard):
                return False
            self._take(spool, state.run, part)
            if state.doubtful and isinstance(part.content, End):
                self.store.remove_doubles(spool.key, state.run, state.experiment)
            state.offset = part.end
            spool.keep(state)
            if isinstance(part.content, Artefact):
                shutil.rmtree(spool.copies / Path(part.content.copy).parts[0], ignore_errors=True)
            heard(spool.key, part.records)
        return True

    def _send_anew(self, spool: Spool, replay: Replay, heard: Heard) -> bool:
        try:
            return self._send(spool, State(self.name), replay, heard)
        except _StrangerError as error:
            raise ServiceUnavailableError(
                f"MLflow at {self.store.location.public} forgets run {spool.key} as soon as it has made or named it; see its log and its database"
            ) from error

    def _begin(self, spool: Spool, state: State, start: Start, heard: Heard) -> bool:
        """Finds, or else creates, the run in the store; False while its parent is not there."""
        known = (state.run, state.experiment) if state.run else self.store.find(spool.key)
        if known is None:
            parent = None
            if start.parent:
                parent = self._parent(start.parent, heard)
                if parent is None and Spool(self.folder, start.parent).size():
                    return False
            elif start.inherited and start.inherited == self.store.parent:
                parent = (self.store.parent, self.store.experiment)
            known = self._create(spool, state, start, parent)
        else:
            self._heeding(spool.key, known[0], lambda: self.store.resume(known[0]))
        state.run, state.experiment = known
        return True

    def _create(self, spool: Spool, state: State, start: Start, parent: tuple[str, str] | None) -> tuple[str, str]:
        again, state.doubtful = state.doubtful, True
        spool.keep(state)
        known = self.store.create(spool.key, start.name, start.milliseconds, parent)
        state.doubtful = again
        return known

    def _parent(self, key: str, heard: Heard) -> tuple[str, str] | None:
        known = self._identify(key)
        if known is None and self.deliver(Spool(self.folder, key), heard=heard):
            known = self._identify(key)
        return known

    def _identify(self, key: str) -> tuple[str, str] | None:
        state = Spool(self.folder, key).state(self.name)
        return (state.run, state.experiment) if state.run else self.store.find(key)

    def _take(self, spool: Spool, run: str, part: Part) -> None:
        content = part.content
        if isinstance(content, Values):
            for items in content.calls():
                self._log(spool.key, run, items)
        elif isinstance(content, Artefact):
            path = spool.copies / content.copy
            if path.exists():  # else it was stored, and the process killed before it noted that
                self._heeding(spool.key, run, lambda: self.store.upload(run, path, content.folder))
        elif isinstance(content, End):
            self._heeding(spool.key, run, lambda: self.store.end(run, content.status, content.milliseconds))

    def _log(self, key: str, run: str, items: list[Item]) -> None:
        """Sends values. One that the store will never take is told and left out: it must not keep the others back."""
        self._heeding(key, run, lambda: self.store.log(run, items), lambda: self._sort_out(key, run, items))

    def _sort_out(self, key: str, run: str, items: list[Item]) -> bool:
        """What else is done with values that were refused together, or with the one that was; False: nothing."""
        half, item = len(items) // 2, items[0]
        if half:
            self._log(key, run, items[:half])
            self._log(key, run, items[half:])
            return True
        if isinstance(item, Param):  # it was written before, with another value, by a process whose spool is not here
            self._log(key, run, [changed(*item)])
        return isinstance(item, Param)

    def _heeding(self, key: str, run: str, call: Callable[[], None], otherwise: Callable[[], bool] = lambda: False) -> None:
        """Calls. A refusal is told, unless something else can be done."""
        try:
            call()
        except GoneError as error:
            raise _StrangerError from error
        except RefusedError as error:
            if self.store.is_deleted(run) or not otherwise():
                logger.warning("run %s: %s", key, error)


class _StrangerError(Exception):
    """The store does not know the run under the id that it gave us: its database is another one."""
