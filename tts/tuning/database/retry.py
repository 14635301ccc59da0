"""Operations on the study's database that outlast its short absences."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from tts.tuning.database.address import public
from tts.tuning.database.failure import passes, reaching, words
from tts.tuning.database.lock import holds

logger = logging.getLogger(__name__)

OPENING_SECONDS = 20.0
"""How long opening a database waits for it."""
OUTAGE_SECONDS = 300.0
"""How long a study under way waits for its database to come back."""
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 10.0
_LOOK_SECONDS = 0.2
"""Between looks at whether waiting is to end."""
T = TypeVar("T")


def persistently(operation: Callable[[], T], *, url: str, seconds: float | None = None, stop: Callable[[], object] = lambda: False) -> T:
    """Calls the operation until it succeeds, at most for `seconds` (by default OUTAGE_SECONDS).

    Waits grow to ten seconds at most and differ between workers.

    Only failures that pass by themselves are retried, so `operation` must be one that may be repeated after it was done without being told so.
    Inside a `study_lock` nothing is retried: what is done under it is repeated as a whole, lock included. Once `stop()` is true, nothing is
    waited for any more.

    Raises:
        ServiceUnavailableError: The database stayed away, or was away when waiting was to stop.
        UsageError, DataError, CannotWriteError: What waiting does not help.
    """
    if holds(url):
        return operation()
    seconds = OUTAGE_SECONDS if seconds is None else seconds
    begun = time.monotonic()

    def warn(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number == 1 and error is not None:
            logger.warning("study database %s: %s; trying again for up to %.0f s", public(url), words(error), seconds)

    late = stop_after_delay(seconds)
    attempts = Retrying(
        retry=retry_if_exception(passes),
        wait=wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT),
        stop=lambda state: late(state) or bool(stop()),
        sleep=lambda wait: _sleep(wait, stop),
        before_sleep=warn,
        reraise=True,
    )
    with reaching(url):
        result: T = attempts(operation)
    if attempts.statistics["attempt_number"] > 1:
        logger.warning("study database %s answers again after %.1f s", public(url), time.monotonic() - begun)
    return result


def _sleep(seconds: float, stop: Callable[[], object]) -> None:
    end = time.monotonic() + seconds
    while not stop() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _LOOK_SECONDS))
