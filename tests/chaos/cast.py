"""Who plays: `tts tune` and its workers, each a process, each started again when it was killed, as Kubernetes would."""

import itertools
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.chaos.plan import Stage

MARK = "TTS_CHAOS"
"""In the environment of everybody on stage, to find whoever should have left it."""
AGAIN_SECONDS = 0.5
"""Before a process that ended is started again."""
LEAVE_SECONDS = 20.0
"""For those whose parent is gone to follow it."""
EXPECTED = (-signal.SIGKILL, 69, 75)
"""How a process may end when the study is not finished: killed, without a service for too long, or asked to stop."""


class Kept:
    """A command that is run until it ends well."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], logs: Path) -> None:
        self.name, self.ends = name, list[int]()
        self._command, self._environment, self._logs = command, environment, logs
        self._process: subprocess.Popen[bytes] | None = None
        self._due = 0.0

    def look(self) -> None:
        """Starts it where it does not run and is not done."""
        if self._process is not None and (code := self._process.poll()) is not None:
            self.ends.append(code)
            self._process, self._due = None, time.monotonic() + AGAIN_SECONDS
        if self._process is None and not self.done and time.monotonic() >= self._due:
            with (self._logs / f"{self.name}.log").open("ab") as log:
                log.write(f"--- start {len(self.ends) + 1}\n".encode())
                log.flush()
                self._process = subprocess.Popen(
                    self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
                )

    @property
    def done(self) -> bool:
        """Whether it ended well."""
        return bool(self.ends) and self.ends[-1] == 0

    @property
    def process(self) -> psutil.Process | None:
        """The one that runs."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid) if self._process is not None and self._process.poll() is None else None
        return None

    def kill(self) -> None:
        """For good."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Cast:
    """Everybody. At the end of the block nobody is left."""

    def __init__(self, stage: Stage) -> None:
        logs = stage.folder / "logs"
        logs.mkdir()
        self._mark = f"{stage.folder}"
        environment = {**stage.environment, MARK: self._mark}
        self.tune = Kept("tune", stage.command("tune"), environment, logs)
        self.workers = [Kept(f"worker-{number}", stage.command("worker"), environment, logs) for number in range(1, stage.plan.workers)]
        self._created = stage.study / "tracking.json" if stage.plan.outages else stage.study / "config.json"
        self.left = 0
        """Who was still there a while after the end, and had to be killed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for kept in (self.tune, *self.workers):
            kept.kill()
        end = time.monotonic() + LEAVE_SECONDS
        while (marked := list(self._marked())) and time.monotonic() < end:
            time.sleep(0.1)
        self.left = len(marked)
        for process in marked:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def look(self) -> None:
        """Starts again whoever ended. Workers come once `tts tune` has made the study."""
        self.tune.look()
        if self.created:
            for worker in self.workers:
                worker.look()

    @property
    def created(self) -> bool:
        """Whether the study is there."""
        return self._created.exists()

    @property
    def done(self) -> bool:
        """Whether all have ended well: each found the study's budget spent."""
        return self.tune.done and all(worker.done for worker in self.workers)

    @property
    def surprises(self) -> Counter[str]:
        """Ends that nothing on stage explains."""
        ends = ((kept.name, code) for kept in (self.tune, *self.workers) for code in kept.ends)
        return Counter(f"{name} ended with {code}" for name, code in ends if code not in (0, *EXPECTED))

    def victims(self) -> dict[str, list[psutil.Process]]:
        """Who can be killed now, by role. A server is that which a worker's trials are forked from; trials include the one that waits."""
        tune = [process] if (process := self.tune.process) else []
        workers = [process for worker in self.workers if (process := worker.process)]
        workers += [child for process in tune for child in _children(process, "tts.tuning")]
        servers = [server for worker in workers for server in _children(worker, "forkserver")]
        trials = [trial for server in servers for trial in _children(server, "forkserver")]
        return {"worker": workers, "trial": trials, "tune": tune, "server": servers}

    def _marked(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    yield process


def _children(process: psutil.Process, word: str) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [child for child in process.children() if word in " ".join(itertools.chain(_words(child)))]
    return []


def _words(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []
