"""The launcher's lease: a sign of life of `tts tune` in the study, for workers that it started on other machines.

Workers on this machine end with `tts tune`, however it ends. Pods do not: they would go on, for days, with nobody to ask for them. So `tts tune`
beats an attribute of the study, by the database's clock, and workers that were told that they were launched look at it; once it is old they hand
their trials back and stop. While the database is away nobody's sign gets through and all are old when it returns, so a worker judges only after
its own beats went through for as long as the launcher may take to beat again.

A study has one such launcher: another that begins while it lives is refused; one whose launcher is silent takes its place.
"""

import logging
import threading
import time
from dataclasses import dataclass
from typing import Self

from tts.errors import DataError, TakenOverError, TtsError, UsageError
from tts.training.preemption import StopFlag
from tts.tuning.database.attributes import LAUNCHER
from tts.tuning.database.failure import reaching
from tts.tuning.database.lock import study_lock
from tts.tuning.database.retry import persistently
from tts.tuning.study import Study
from tts.tuning.work.heartbeat import Heartbeat
from tts.tuning.work.identity import new_worker

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""Between signs that do not get through, at most."""
SILENT_BEATS = 3
"""Beats that a launcher misses before it counts as silent for one who watched it."""
FAREWELL_SECONDS = 10.0
"""How long the end waits for a database that is away."""
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Sign:
    """The last sign of life, as the study keeps it."""

    holder: str
    """The launcher; empty where it has ended in order."""
    beat: float
    """When, by the database's clock, in seconds since 1970."""
    every: float
    """Seconds between two of them."""
    stale: float
    """Seconds after which its workers stop."""


def last_sign(study: Study) -> Sign | None:
    """Of the study's launcher, if it ever had one elsewhere. Raises DataError for a study that was deleted, SQLAlchemyError."""
    try:
        kept = study.trials.user_attrs.get(LAUNCHER)
    except KeyError:
        raise DataError(f"study {study.name!r} was deleted from its database") from None
    return Sign(**kept) if kept else None


class LauncherLease:
    """Held while `with LauncherLease(study, stop) as lease:` lasts, by a thread that beats.

    Entering raises UsageError while another launcher of the study lives, which takes its interval between beats to see; once `stop` is set while
    that is waited for, PreemptedError or KeyboardInterrupt.
    """

    def __init__(self, study: Study, stop: StopFlag) -> None:
        tuning = study.plan.config.tuning
        self._study, self._stop = study, stop
        self._holder = new_worker()
        self._stale = tuning.launcher_stale_seconds
        self._every = min(tuning.heartbeat_seconds, self._stale / (2 * SILENT_BEATS))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="launcher", daemon=True)
        self._failing = False
        self.lost = False
        """Whether another launcher has taken the study over: its workers are no longer ours."""

    def __enter__(self) -> Self:
        self._wait_for_turn()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """The study is free for another launcher. Workers that still run go by the last sign, which grows old."""
        self._closed.set()
        self._thread.join(FAREWELL_SECONDS)
        try:
            persistently(lambda: self._beat("", only=self._holder), url=self._study.url, seconds=FAREWELL_SECONDS, stop=lambda: self._stop)
        except TtsError as error:
            logger.warning("the study is not told that this launcher ends (%s); another waits until it is silent for long enough", error)

    def check(self) -> None:
        """Raises TakenOverError once another launcher has the study."""
        if self.lost:
            raise TakenOverError(f"study {self._study.name!r} is launched by another `tts tune` by now; its workers are left to that one")

    def _wait_for_turn(self) -> None:
        watched: tuple[Sign, float] | None = None
        while True:
            sign = persistently(lambda watched=watched: self._claim(watched), url=self._study.url, stop=lambda: self._stop)  # type: ignore[misc]
            if sign is None:
                return
            if watched and (sign.holder, sign.beat) != (watched[0].holder, watched[0].beat):
                raise UsageError(
                    f"study {self._study.name!r} has another `tts tune` that runs its workers ({sign.holder}); stop that one first, or let it be"
                )
            if watched is None:
                logger.warning("study %s: waiting to see whether its other `tts tune` (%s) still lives", self._study.name, sign.holder)
                watched = sign, time.monotonic()
            if self._stop:
                raise type(self._stop.error(0))(f"stopped while another `tts tune` of study {self._study.name!r} was waited for; nothing was begun")
            time.sleep(min(_LOOK_SECONDS, self._every))

    def _claim(self, watched: tuple[Sign, float] | None) -> Sign | None:
        """The sign of another launcher that may live; None: the lease is ours."""
        with study_lock(self._study.url, self._study.name):
            sign = last_sign(self._study)
            if sign and sign.holder not in ("", self._holder) and self._study.storage.clock() - sign.beat <= sign.stale:
                silent = watched is not None and watched[0] == sign and time.monotonic() - watched[1] > SILENT_BEATS * sign.every
                if not silent:
                    return sign
            self._write(self._holder, self._study.storage.clock())
        return None

    def _beat(self, holder: str, *, only: str) -> bool:
        """A sign by `holder` in place of one by `only`, fenced; False: the lease is another's."""
        with study_lock(self._study.url, self._study.name):
            sign = last_sign(self._study)
            if sign is None or sign.holder != only:
                return False
            self._write(holder, self._study.storage.clock() if holder else sign.beat)
        return True

    def _write(self, holder: str, beat: float) -> None:
        self._study.trials.set_user_attr(LAUNCHER, {"holder": holder, "beat": round(beat, 3), "every": self._every, "stale": self._stale})

    def _run(self) -> None:
        delay = self._every
        while not self._closed.wait(delay):
            try:
                with reaching(self._study.url):
                    self.lost = not self._beat(self._holder, only=self._holder)
            except DataError:
                return  # the study was deleted, and whoever reads it next is told
            except TtsError as error:
                if not self._failing:
                    logger.warning("no sign of life reaches the study, it is tried again until one does: %s", error)
                self._failing, delay = True, min(self._every, RETRY_SECONDS)
                continue
            if self.lost:
                return
            self._failing, delay = False, self._every


class LauncherWatch:
    """How a worker that was launched knows that its launcher is gone."""

    def __init__(self, study: Study, heartbeat: Heartbeat) -> None:
        self._study, self._heartbeat = study, heartbeat

    def gone(self) -> str:
        """Why there is nobody to work for, in words; empty while there is. Raises DataError, SQLAlchemyError."""
        silence, sign = self._silence()
        if sign is None:
            return "no `tts tune` ever launched workers for it"
        if silence <= sign.stale or self._heartbeat.steady() < SILENT_BEATS * sign.every:
            return ""
        return f"its `tts tune` gave no sign of life for {silence:.0f} s (tuning.launcher_stale_seconds is {sign.stale:g})"

    def silent(self) -> bool:
        """Whether it looks gone; it may only have been unable to reach the database, as everybody. Raises DataError, SQLAlchemyError."""
        silence, sign = self._silence()
        return sign is None or silence > sign.stale

    def _silence(self) -> tuple[float, Sign | None]:
        """Seconds since the last sign, and the sign."""
        sign = last_sign(self._study)
        return (self._study.storage.clock() - sign.beat if sign else 0.0), sign
