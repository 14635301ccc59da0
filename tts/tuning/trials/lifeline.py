"""How the process of a trial knows that its worker lives: a pipe into which the worker writes the time, again and again.

A worker that is gone, killed or not, has closed it; one that is paused (SIGSTOP, a frozen container, a laptop's lid) writes no more. Its
process ends in either case before another worker is given the trial: two must not write to one folder. What counts is when a ping was
sent, not when it was read: a process that was paused together with its worker finds the last ping in the pipe, and it is old.
"""

import os
import signal
import struct
import threading
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import NoReturn

from tts.errors import PreemptedError

PING_SECONDS = 1.0
# Goes on while the machine sleeps, as the database's clock does, and is the same in both processes.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_TIME = struct.Struct("=d")  # far below what a pipe writes and reads as one piece
_PINGS_AT_ONCE = 512


def silence_allowed(stale_seconds: float) -> float:
    """How long a process goes on without a ping: half the time after which its trial may be given to another worker."""
    return stale_seconds / 2


class Lifeline:
    """The worker's end. A thread pings until `close`, or until nobody reads any more."""

    def __init__(self, stale_seconds: float) -> None:
        self.theirs, self._ours = Pipe(duplex=False)
        # A full pipe's reader is paused: it must not stop this thread, too.
        os.set_blocking(self._ours.fileno(), False)
        self._closed = threading.Event()
        self._ping()
        every = min(PING_SECONDS, silence_allowed(stale_seconds) / 4)
        self._thread = threading.Thread(target=self._keep_pinging, args=(every,), name="lifeline", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The process at the other end ends at once if it still runs."""
        self._closed.set()
        self._thread.join()
        self._ours.close()

    def _keep_pinging(self, every: float) -> None:
        while not self._closed.wait(every):
            try:
                self._ping()
            except BrokenPipeError:
                return

    def _ping(self) -> None:
        try:
            os.write(self._ours.fileno(), _TIME.pack(time.clock_gettime(_CLOCK)))
        except BlockingIOError:
            return


class Watch:
    """The process's end: ends it (exit code 75) when its worker is gone, or has not pinged for too long."""

    def __init__(self, lifeline: Connection, stale_seconds: float) -> None:
        os.set_blocking(lifeline.fileno(), False)
        self._lifeline, self._allowed = lifeline, silence_allowed(stale_seconds)
        self._newest = time.clock_gettime(_CLOCK)

    def start(self) -> None:
        """From now on a thread looks; after a pause (SIGCONT) the main thread looks before it does anything else. Main thread only."""
        signal.signal(signal.SIGCONT, lambda _number, _frame: self.look())
        threading.Thread(target=self._keep_looking, name="watch", daemon=True).start()

    def look(self) -> None:
        """Reads what was sent. Does not return if it is time to end. For several threads at once, and for signal handlers."""
        try:
            while pings := os.read(self._lifeline.fileno(), _PINGS_AT_ONCE * _TIME.size):
                self._newest = max(self._newest, *(sent for (sent,) in _TIME.iter_unpack(pings)))
            _end("its worker is gone")
        except BlockingIOError:
            pass  # all is read
        silent = time.clock_gettime(_CLOCK) - self._newest
        if silent > self._allowed:
            _end(f"its worker gave no sign of life for {silent:.1f} s")

    def _keep_looking(self) -> None:
        while True:
            wait([self._lifeline], timeout=self._allowed / 4)
            self.look()


def _end(reason: str) -> NoReturn:
    # No logging: its lock may be held by the thread that this interrupts.
    os.write(2, f"the process ends: {reason}\n".encode())
    os._exit(PreemptedError.exit_code)
