"""The services that come and go: PostgreSQL is restarted, MLflow is down for a third of the time."""

import random
import threading
import time

from tests.mlflow_server import MlflowServer
from tests.postgresql import PostgresServer

DOWN_SECONDS = (4.0, 12.0)
"""For which a killed MLflow server stays away before it is started again, which takes as long once more."""
AWAY_SECONDS = (1.0, 4.0)
"""For which PostgreSQL stays away."""


class Outages:
    """From `begin` to `end` kills the MLflow server and starts it again, so that it is away for a third of the time. It is up at the end."""

    def __init__(self, server: MlflowServer, seed: int) -> None:
        self._server, self._random = server, random.Random(seed)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._begun = time.monotonic()
        self._error: BaseException | None = None
        self.up = True
        self.down_seconds, self.seconds = 0.0, 0.0

    def begin(self) -> None:
        """Once more does nothing."""
        if self._thread is None:
            self._begun = time.monotonic()
            self._thread = threading.Thread(target=self._play, name="outages")
            self._thread.start()

    @property
    def share(self) -> float:
        """Of the time until `end` for which nobody answered."""
        return self.down_seconds / self.seconds

    def end(self) -> None:
        """Raises what a thread of ours met."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._error:
            raise self._error

    def _play(self) -> None:
        try:
            while not self._ended.is_set():
                self._away()
                # What is still owed to two thirds of the time.
                until = self._begun + 3 * self.down_seconds
                while time.monotonic() < until and not self._ended.wait(0.1):
                    pass
        except (RuntimeError, OSError) as error:
            self._error = error
        self.seconds = time.monotonic() - self._begun

    def _away(self) -> None:
        began = time.monotonic()
        self.up = False
        self._server.stop()
        self._ended.wait(self._random.uniform(*DOWN_SECONDS))
        self._server.start()
        self.up = True
        self.down_seconds += time.monotonic() - began


class Restarts:
    """Restarts PostgreSQL from a thread, so that workers go on, and are killed, meanwhile."""

    def __init__(self, server: PostgresServer, modes: tuple[str, ...], seed: int) -> None:
        self._server, self._modes, self._random = server, modes, random.Random(seed)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.done = 0

    def at(self, share: float) -> None:
        """What is due when this share of the study is finished: of three restarts the first at a quarter."""
        if self._thread is not None and self._thread.is_alive():
            return
        self.end()
        begun = self.done
        if begun < len(self._modes) and share >= (begun + 1) / (len(self._modes) + 1):
            self._thread = threading.Thread(target=self._restart, args=(self._modes[begun],), name="restart")
            self._thread.start()

    @property
    def up(self) -> bool:
        """Whether it is."""
        return self._thread is None or not self._thread.is_alive()

    def end(self) -> None:
        """Waits for a restart under way. Raises what it met."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error:
            raise self._error

    def _restart(self, mode: str) -> None:
        try:
            self._server.stop(mode)
            time.sleep(self._random.uniform(*AWAY_SECONDS))
            self._server.start()
            self.done += 1
        except (AssertionError, OSError) as error:
            self._error = error
