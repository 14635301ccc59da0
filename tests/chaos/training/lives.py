"""`tts` as processes that can be killed at any moment, begun by a server that has torch already: a life then takes a moment to begin, not seconds."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

PRELOADED = ("tts.cli.commands", "tts.training.run", "tts.tracking.nothing", __name__)
GLANCE_SECONDS = 0.0005
"""Between two looks at a life that is to be killed at a moment of its own."""
LONGEST_SECONDS = 600.0
"""After which a life counts as hanging."""

Moment = Callable[[float], bool]
"""Whether it has come, at a life's age in seconds."""


class Life:
    """One process of the program, from here to its end. At the end of the block it is over."""

    def __init__(self, arguments: list[str], log: Path, environment: Mapping[str, str], before: Callable[[], None] | None = None) -> None:
        """Begins it. The environment is ours and what is given; what it says goes into the file `log`. `before` is called in it first."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        self._process = context.Process(target=_main, args=(arguments, dict(environment), str(log), before))
        self._process.start()
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    @property
    def code(self) -> int | None:
        """How it ended, minus a signal's number where that ended it; None as long as it lasts."""
        return self._process.exitcode

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begun

    def until(self, moment: Moment) -> bool:
        """Waits for a moment; False where the life is over before."""
        while self.code is None:
            if moment(self.seconds):
                return True
            time.sleep(GLANCE_SECONDS)
        return False

    def send(self, number: int) -> bool:
        """Whether it lasted until the signal."""
        if self.code is not None or self._process.pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)
            return True
        return False

    def end(self, seconds: float = LONGEST_SECONDS) -> int | None:
        """Waits for the end; None where it does not come."""
        self._process.join(seconds)
        return self.code


def _main(arguments: list[str], environment: dict[str, str], log: str, before: Callable[[], None] | None) -> None:
    os.environ.update(environment)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(said, 1)
    os.dup2(said, 2)

    from tts.cli import main

    if before:
        before()
    sys.exit(main(arguments))
