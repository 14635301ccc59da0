"""A worker's sign of life: a thread that beats for the trial in its hands, and knows how far the worker may judge others.

A trial whose beats are older than `tuning.stale_seconds` is given to another worker. So a beat that does not get through is tried again for as
long as the worker lives, and a beat that the database refuses says that the trial is another attempt's by now: the lease is lost.

While the database is away nobody's beats get through, and all look dead when it returns. A worker therefore judges others only after its own
beats went through without a gap for the whole of `stale_seconds`, the others' and its own: by then every living worker has beaten again. Idle
workers ask the database for nothing but an answer, to know that.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from tts.errors import TtsError
from tts.tuning.database.failure import LeaseLostError, reaching
from tts.tuning.study import Study

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""Between beats that do not get through, at most."""
CLOSE_SECONDS = 2.0
"""For the beat under way when the worker ends; it may hang in a database that is gone."""
# Sleep of the whole machine is a gap in its beats, too.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass
class _Beating:
    trial_id: int
    lease: str
    then: Callable[[], None]


class Heartbeat:
    """The beats of one worker."""

    def __init__(self, study: Study, *, seconds: float, stale_seconds: float) -> None:
        self._study, self._seconds, self._stale = study, seconds, stale_seconds
        self._trial: _Beating | None = None
        self._lost: _Beating | None = None
        self._through: tuple[float, float] | None = None
        """First and last beat since the last gap."""
        self._failing = False
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(CLOSE_SECONDS)

    @contextmanager
    def of(self, trial_id: int, lease: str, then: Callable[[], None]) -> Iterator[None]:
        """Beats for a trial while the block runs; its first beat came with the lease. `then` follows each beat, in the heartbeat's thread."""
        with self._lock:
            self._trial, self._lost = _Beating(trial_id, lease, then), None
        try:
            yield
        finally:
            with self._lock:
                self._trial = None

    def check(self) -> None:
        """Raises LeaseLostError when the trial in hand was given to another attempt."""
        if self._lost is not None:
            raise LeaseLostError(self._lost.trial_id, self._lost.lease)

    @property
    def stale_seconds(self) -> float:
        """Without a beat for so long, this worker is dead. It stays so for its life, whatever the study says later, as its beats' interval does."""
        return self._stale

    def steady(self) -> float:
        """For how many seconds our beats have gone through without a gap, up to now: others without beats for that long at most are dead."""
        through = self._through
        if through is None:
            return 0.0
        first, last = through
        return last - first if _now() - last <= self._gap else 0.0

    @property
    def _gap(self) -> float:
        """Twice the interval: a late beat is no gap, and what is shorter makes nobody look dead (stale_seconds is three intervals or more)."""
        return 2 * self._seconds

    def _run(self) -> None:
        delay = 0.0
        while not self._closed.wait(delay):
            delay = self._seconds if self._beat() else min(self._seconds, RETRY_SECONDS)

    def _beat(self) -> bool:
        with self._lock:
            trial = self._trial
        try:
            with reaching(self._study.url):
                self._send(trial)
        except TtsError as error:
            self._through = None
            if not self._failing:
                logger.warning("no sign of life reaches the study, it is tried again until one does: %s", error)
            self._failing = True
            return False
        if self._failing:
            logger.warning("signs of life reach the study again")
        self._failing = False
        now, through = _now(), self._through
        self._through = (now, now) if through is None or now - through[1] > self._gap else (through[0], now)
        return True

    def _send(self, trial: _Beating | None) -> None:
        if trial is None:
            self._study.storage.stale(self._study.id, self._stale)  # any question will do
            return
        try:
            held = self._study.storage.beat(trial.trial_id, trial.lease)
            if held:
                trial.then()
        except LeaseLostError:
            held = False
        with self._lock:
            if not held and self._trial is trial:  # else the attempt has ended, and with it the lease
                self._trial, self._lost = None, trial


def _now() -> float:
    return time.clock_gettime(_CLOCK)
