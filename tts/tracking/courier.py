"""A thread that delivers what this process records, and what dead ones left, while the process does other things."""

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from tts.errors import TtsError
from tts.tracking.location import Location
from tts.tracking.spool import Spool, spools

if TYPE_CHECKING:
    from tts.tracking.delivery import Delivery
    from tts.tracking.mlflow_store import MlflowStore

logger = logging.getLogger(__name__)

LINGER_SECONDS = 1.0
"""Between a record and its delivery: what follows soon goes with it."""
SWEEP_SECONDS = 10.0
"""Between looks for what dead processes left."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0
"""Seconds between attempts while the store does not answer: the first, and what doubling ends at."""
TURN_SECONDS = 0.1
"""Before another look at a run that another process delivers, or whose parent it delivers."""
AWAY = 2
"""Failures in a row that make a store that is away: a connection that the server closed for its age makes one."""
FAILURES = 3
"""Runs that may fail before the others are left for the next attempt: what is wrong is not one run's artefact, but the store."""


class Courier:
    """One for a tracker."""

    def __init__(self, location: Location, store: "MlflowStore | None") -> None:
        self._location, self._store = location, store
        self._delivery: Delivery | None = None
        self._own: dict[str, Spool] = {}
        """Runs of this process that are not ended and delivered yet."""
        self._changing = threading.Lock()
        """Of `_own`."""
        self._settled: dict[str, int] = {}
        """Sizes of spools at which nothing was left of them."""
        self._wake, self._closing = threading.Event(), threading.Event()
        self._failures = 0
        """In a row, since the store answered last."""
        self._swept = -SWEEP_SECONDS
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Starts the thread, if it is not there yet."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
            self._thread.start()

    def add(self, spool: Spool) -> None:
        """From now on the run is this process's to deliver."""
        with self._changing:
            self._own[spool.key] = spool
        self.begin()

    def notify(self) -> None:
        """Something was recorded."""
        self._wake.set()

    def close(self, seconds: float) -> int:
        """Ends the thread when all is delivered, the store is known to be away, or `seconds` are over. Returns the records that are left."""
        self._closing.set()
        self._wake.set()
        if self._thread:
            self._thread.join(seconds)
        with self._changing:
            runs = list(self._own.values())
        return sum(spool.pending(self._location.name) for spool in runs)

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while not (self._closing.wait(LINGER_SECONDS) and self._failures >= AWAY):
            closing = self._closing.is_set()
            self._wake.clear()
            try:
                complete = self._round()
            except TtsError as error:
                self._tell(error)
                self._closing.wait(pause * random.uniform(0.75, 1.25))
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            self._tell(None)
            pause = FIRST_PAUSE
            if not complete:
                time.sleep(TURN_SECONDS)
            elif closing:
                return
            else:
                self._wake.wait(SWEEP_SECONDS)

    def _tell(self, error: TtsError | None) -> None:
        """One line when the store goes away, one when it is back."""
        if error:
            self._failures += 1
            if self._failures == AWAY:
                logger.warning("%s; until then records are kept in %s", error, self._location.spool)
            return
        if self._failures >= AWAY:
            logger.info("MLflow at %s is back", self._location.public)
        self._failures = 0

    def _round(self) -> bool:
        """Delivers what there is; whether nothing of ours is left. Raises TtsError when the store does not take it."""
        delivery = self._connected()
        complete, errors = True, []
        for spool in self._waiting():
            try:
                ended, size = not spool.alive(), spool.size()
                done = delivery.finish(spool) if ended else delivery.deliver(spool)
            except TtsError as error:
                errors.append(error)
                if len(errors) == FAILURES:
                    break
                continue
            if done and ended:
                self._settle(spool, size)
            complete = complete and (done or spool.key not in self._own)
        if errors:
            raise errors[0]
        return complete

    def _settle(self, spool: Spool, size: int) -> None:
        """Nothing is left of a run up to that size, and nobody records in it: it is no more to be thought of, unless it is taken up again."""
        self._settled[spool.key] = size
        with self._changing:
            if self._own.get(spool.key) is spool:  # else it was taken up again meanwhile
                del self._own[spool.key]

    def _waiting(self) -> list[Spool]:
        """Our runs, and now and then those that nobody records in any more: to their end, whoever began them."""
        with self._changing:
            runs = list(self._own.values())
        if self._closing.is_set() or time.monotonic() - self._swept >= SWEEP_SECONDS:
            self._swept = time.monotonic()
            own = {spool.key for spool in runs}
            others = [spool for spool in spools(self._location.spool) if spool.key not in own]
            runs += [spool for spool in others if not self._is_settled(spool) and not spool.alive()]
        return [spool for spool in runs if not self._is_settled(spool)]

    def _is_settled(self, spool: Spool) -> bool:
        return self._settled.get(spool.key) == spool.size()

    def _connected(self) -> "Delivery":
        if self._delivery is None:
            # Importing MLflow takes seconds: here nobody waits for it.
            from tts.tracking.delivery import Delivery
            from tts.tracking.mlflow_store import MlflowStore

            self._store = self._store or MlflowStore(self._location)
            self._delivery = Delivery(self._store, self._location.spool)
        return self._delivery
