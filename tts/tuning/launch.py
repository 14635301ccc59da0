"""Where workers run: a protocol, and processes on this machine. A launcher starts workers, says how they are, and stops them."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from tts.storage import reporting
from tts.tuning.devices import VISIBLE, share, visible_devices
from tts.tuning.trials.trial import GRACE_SECONDS, tail

logger = logging.getLogger(__name__)

STOP_SECONDS = GRACE_SECONDS + 15
"""A worker's trial gets GRACE_SECONDS; handing it back takes the rest."""


@dataclass(frozen=True)
class Task:
    """What a worker works on."""

    features: str
    """The feature store: a path or a URI, as workers see it."""
    storage: str = field(repr=False)
    """The database's URL. It may hold a password: never in arguments, environment or logs."""
    name: str


@dataclass(frozen=True)
class Ended:
    """A worker that is no more."""

    worker: str
    code: int
    """Exit code; negative: killed by that signal."""
    log: str
    """Its last lines."""
    reason: str = ""
    """What is known beyond its exit code, in words that follow its name."""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.worker} {self.reason}" + (f": {self.log.splitlines()[-1]}" if self.log else "")
        if self.code < 0:
            return f"{self.worker} was killed by {signal.Signals(-self.code).name}"
        return f"{self.worker} ended with exit code {self.code}" + (f": {self.log.splitlines()[-1]}" if self.log else "")


@dataclass(frozen=True)
class Workers:
    """How the workers are."""

    alive: int
    """Workers that run, or will without anybody's doing; those that wait for a place to run are among them."""
    ended: tuple[Ended, ...]
    """Workers that are no more and are not started again."""
    waiting: tuple[str, ...] = ()
    """Why workers wait, a line for each reason, such as "2 pods wait: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu"; empty: none waits."""
    notes: tuple[str, ...] = ()
    """What befell workers that were started again, since the launcher began: a line each, the oldest first."""


class Launcher(Protocol):
    """Runs workers."""

    def start(self, task: Task, workers: int) -> None:
        """Starts them. Raises CannotWriteError, and a cluster's UsageError, ServiceUnavailableError."""

    def poll(self) -> Workers:
        """How they are now. Raises, on a cluster, UsageError, ServiceUnavailableError."""

    def stop(self) -> None:
        """Asks them to hand their trials back and waits until they are gone; those that do not go are killed. Once more does nothing."""

    def preempted(self) -> None:
        """This process is told to end (SIGTERM) and may be started again elsewhere: called before `stop`, which then leaves who can wait for that."""


class LocalLauncher:
    """Worker processes on this machine. They end with this process, however it ends: each watches the pipe that it holds."""

    def __init__(self, logs: Path, *, restarts: int = 0, devices_each: int = 1) -> None:
        """Each worker sees `devices_each` of the CUDA devices, where the machine has some."""
        self._logs, self._restarts, self._devices_each = logs, restarts, devices_each
        self._processes: list[subprocess.Popen[bytes]] = []
        self._killed: Counter[int] = Counter()
        self._line = b""

    def start(self, task: Task, workers: int) -> None:
        """Each worker logs to a file of its own."""
        self._line = (json.dumps({"features": task.features, "storage": task.storage, "name": task.name}) + "\n").encode()
        with reporting(self._logs):
            self._logs.mkdir(parents=True, exist_ok=True)
        self._processes = [self._start(number) for number in range(workers)]

    def preempted(self) -> None:
        """Processes of this machine go with it."""

    def poll(self) -> Workers:
        """By the exit codes of the processes. A worker that was killed, by the kernel for its memory say, is started again, `restarts` times."""
        for number, process in enumerate(self._processes):
            code = process.poll()
            if code is not None and code < 0 and self._killed[number] < self._restarts:
                self._killed[number] += 1
                logger.warning("%s; it is started again", Ended(f"worker {number}", code, ""))
                _pipe(process).close()
                self._processes[number] = self._start(number)
        codes = [process.poll() for process in self._processes]
        ended = [Ended(f"worker {number}", code, tail(self._log(number))) for number, code in enumerate(codes) if code is not None]
        return Workers(len(codes) - len(ended), tuple(ended))

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + STOP_SECONDS
        for process in self._processes:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning(
                    "worker %d does not stop within %d s and is killed; its trial goes on from its last checkpoint", process.pid, STOP_SECONDS
                )
                process.kill()
                process.wait()
            _pipe(process).close()

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        with reporting(self._logs), self._log(number).open("ab") as log:
            # A group of their own: Ctrl-C in the terminal reaches only us, and we stop them in order.
            process = subprocess.Popen(
                [sys.executable, "-m", "tts.tuning"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                env=self._environment(number),
            )
        _pipe(process).write(self._line)
        _pipe(process).flush()
        return process

    def _environment(self, number: int) -> dict[str, str]:
        devices = visible_devices()
        return {**os.environ, VISIBLE: ",".join(share(devices, number, self._devices_each))} if devices else dict(os.environ)

    def _log(self, number: int) -> Path:
        return self._logs / f"{number}.log"


def _pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdin is None:
        raise TypeError("the worker was started without a pipe")
    return process.stdin
