"""Being asked to stop: by the cluster (SIGTERM) or by the user (Ctrl-C).

A signal only sets a flag. The loop looks at it between steps, where weights, optimiser and batch position belong together.
"""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tts.errors import PreemptedError

logger = logging.getLogger(__name__)


class StopFlag:
    """Whether, and by which signal, a run was asked to stop. False as long as it was not: a default is chosen by `is None`, not by `or`."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def set(self, number: int = signal.SIGTERM) -> None:
        """Asks the run to stop after the step under way. The first request counts."""
        if self.signal is None:
            self.signal = signal.Signals(number)

    def __bool__(self) -> bool:
        return self.signal is not None

    def error(self, step: int) -> PreemptedError | KeyboardInterrupt:
        """What a run that stopped after `step` ends with."""
        if self.signal is signal.SIGINT:
            return KeyboardInterrupt(f"stopped after step {step}")
        return PreemptedError(f"asked to stop: checkpoint written at step {step}; the same command goes on from there")


@contextmanager
def listen(stop: StopFlag | None = None) -> Iterator[StopFlag]:
    """Lets SIGTERM and the first Ctrl-C set the flag while the block runs; a Ctrl-C after either interrupts at once. Main thread only."""
    stop = StopFlag() if stop is None else stop

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and stop:
            raise KeyboardInterrupt
        # Logging is not safe inside a handler that interrupts logging; the loop reports the stop.
        stop.set(number)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
