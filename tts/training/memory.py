"""Memory that runs short while a run trains: caches are dropped, and where that is not enough the run ends at a checkpoint, before it is killed.

What a process takes of the host's memory is its own affair, but that all end for it is not: it becomes a reason to stop (preemption.py), which all
ranks hear between two steps.
"""

import ctypes
import gc
import logging
import math
import time
from collections.abc import Callable

import psutil
import torch

from tts.config import Config
from tts.memory import Memory, memory
from tts.training.preemption import StopFlag

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Between two looks. One takes 0.1 ms to 1 ms, below 0.1 % of the time that way, however short the steps are."""
WORTHWHILE_STEPS = 50
"""A process that makes fewer before memory is short would spend its time with starting again. A checkpoint's interval, where shorter, is enough."""
MIB = 2**20


class MemoryWatch:
    """Looks at memory between the steps of one process."""

    def __init__(self, config: Config, read: Callable[[], Memory] = memory, clock: Callable[[], float] = time.monotonic) -> None:
        """`read` gives what is held and may be; `clock` seconds."""
        self._share, self._read, self._clock = config.recovery.memory_share, read, clock
        self._enough = min(WORTHWHILE_STEPS, config.training.checkpoint_interval)
        self._made, self._looked, self._said = 0, -math.inf, False

    @property
    def worthwhile(self) -> bool:
        """Whether this process has made enough steps for another to be started where it ended."""
        return self._made >= self._enough

    def stepped(self, stop: StopFlag) -> None:
        """After each step; sets `stop` where memory is short."""
        self._made += 1
        self.look(stop)

    def look(self, stop: StopFlag) -> None:
        """After whatever else takes memory. Never before the first step: what is taken then is not this process's."""
        if not self._share or not self._made or stop or self._clock() - self._looked < LOOK_SECONDS:
            return
        before = self._read()
        if before.share >= self._share:
            drop_caches()
            after = self._read()
            if after.share >= self._share:
                stop.shorten(self._sentence(after))
            elif not self._said:
                self._said = True
                logger.warning("%s; dropping caches has freed %d MiB, and is repeated where needed", self._sentence(before), _freed(before, after))
        self._looked = self._clock()

    def _sentence(self, found: Memory) -> str:
        own = psutil.Process().memory_info().rss
        return (
            f"memory is short: {found.held} of the {found.limit} bytes that {found.of} has are held, {found.share:.0%} "
            f"(recovery.memory_share {self._share:g}), {own} by this process"
        )


def drop_caches() -> None:
    """Gives back what this process holds without using it: unreachable objects, blocks that torch and the C library keep for later."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim:
        trim(0)


def _freed(before: Memory, after: Memory) -> int:
    return max(0, before.held - after.held) // MIB
