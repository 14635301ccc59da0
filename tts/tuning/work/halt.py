"""Whether a trial under way is to end, and how long its last words may take."""

import math
import time

from tts.errors import ServiceUnavailableError
from tts.training.preemption import StopFlag
from tts.tuning.work.heartbeat import Heartbeat

FAREWELL_SECONDS = 10.0
"""How long a worker that ends waits for a database that is away: a trial that it cannot hand back is found stale later, and nothing is lost."""
PUBLISH_SECONDS = 300.0
"""How long a trial that has ended waits for the last state of its run to be published."""
RESERVE_SECONDS = 15.0
"""Of the time between SIGTERM and SIGKILL, what is left for handing the trial back and ending."""


UPLOAD_SECONDS = 45.0
"""... and before that, for the upload of its last checkpoint, even where the trial does not end by itself."""
SHORTEST_SECONDS = 10.0
"""What a trial gets at least: the upload then has less."""


def trial_seconds(grace_seconds: float) -> float:
    """Seconds in which a trial has to reach its checkpoint if its worker is killed `grace_seconds` after it was asked to stop."""
    return max(SHORTEST_SECONDS, grace_seconds - UPLOAD_SECONDS - RESERVE_SECONDS)


class Halt(StopFlag):
    """Whether a trial under way is to end at its checkpoint: its worker was asked to stop, the study's time is up, or its database is gone.

    Raises LeaseLostError when looked at once the trial is another attempt's: then there is no checkpoint to wait for.
    """

    def __init__(self, stop: StopFlag, heartbeat: Heartbeat, *, grace_seconds: float) -> None:
        """`grace_seconds`: from when the worker is asked to stop until it is killed."""
        super().__init__()
        self._stop, self._heartbeat, self._grace = stop, heartbeat, grace_seconds
        self._asked_at: float | None = None
        self.reason = ""
        """Another than the worker's stop."""
        self.broken: ServiceUnavailableError | None = None
        """What the worker ends with."""

    @property
    def patience(self) -> float:
        """Seconds for which the last words wait for the database; none where it has been waited for in vain."""
        return FAREWELL_SECONDS if self.broken is None else 0.0

    @property
    def asked(self) -> bool:
        """Whether the worker was asked to stop: it waits for nothing any more."""
        return bool(self._stop)

    def left(self, waited: float) -> float:
        """Seconds for which the last state of a run may still be waited for, after `waited`."""
        self._notice()
        killed = math.inf if self._asked_at is None else self._asked_at + self._grace - RESERVE_SECONDS - time.monotonic()
        return min(PUBLISH_SECONDS - waited, killed)

    def __bool__(self) -> bool:
        self._heartbeat.check()
        self._notice()
        return self.asked or bool(self.reason) or self.broken is not None

    def _notice(self) -> None:
        if self.asked and self._asked_at is None:
            self._asked_at = time.monotonic()
