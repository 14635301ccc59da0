"""Being asked to stop: by the cluster (SIGTERM), by the user (Ctrl-C), or because memory is short (memory.py).

A signal only sets a flag. The loop looks at it between steps, where weights, optimiser and batch position belong together.
"""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tts.errors import PreemptedError, UsageError

logger = logging.getLogger(__name__)


MEMORY = 1
"""The word for memory that is short, among signals' numbers: below those that are listened to, so that a signal goes before it."""


class ShortOfMemoryError(PreemptedError):
    """Ended at a checkpoint before the kernel would have killed it; a fresh process goes on from there."""


class TooLittleMemoryError(UsageError):
    """Memory is short so soon that a fresh process would only come to the same point."""


class StopFlag:
    """Whether, and why, a run was asked to stop. False as long as it was not: a default is chosen by `is None`, not by `or`."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.shortage = ""
        """Where memory is short: how short, in words."""

    def set(self, number: int = signal.SIGTERM) -> None:
        """Asks the run to stop after the step under way. The first request counts."""
        if self.signal is None:
            self.signal = signal.Signals(number)

    def shorten(self, shortage: str) -> None:
        """Asks the run to stop because memory is short. A signal, before or after, goes before it."""
        self.shortage = self.shortage or shortage

    @property
    def word(self) -> int:
        """What other ranks are told: a signal's number, MEMORY, or 0."""
        return int(self.signal or (MEMORY if self.shortage else 0))

    def hear(self, word: int) -> None:
        """Takes over the word that all ranks agreed on."""
        if word == MEMORY:
            self.shorten("memory is short where another process of this training runs; its log says how short")
        elif word:
            self.signal = signal.Signals(word)

    def __bool__(self) -> bool:
        return bool(self.word)

    def error(self, step: int, *, worthwhile: bool = True) -> PreemptedError | TooLittleMemoryError | KeyboardInterrupt:
        """What a run that stopped after `step` ends with. `worthwhile`: whether a fresh process would come further from there."""
        if self.signal is signal.SIGINT:
            return KeyboardInterrupt(f"stopped after step {step}")
        saved = f"checkpoint written at step {step}" if step else "before the first step"
        if self.signal is not None or not self.shortage:
            return PreemptedError(f"asked to stop: {saved}; the same command goes on from there")
        if worthwhile:
            return ShortOfMemoryError(
                f"{self.shortage}; {saved}; the same command goes on from there in a fresh process; where this comes again and again, raise the "
                "container's limit or lower data.frame_budget"
            )
        return TooLittleMemoryError(
            f"{self.shortage}; {saved}, but so few steps were made that a fresh process would only come to the same point; raise the container's "
            "limit (the pod's resources.limits.memory), end what else runs there, or lower data.frame_budget; the same command then goes on"
        )


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
