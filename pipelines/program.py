"""The edge of this package's programs: an error is one line and an exit code, as with `tts`."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tts.errors import INTERRUPTED, TtsError, UsageError
from tts.threads import wait_patiently

ARGUMENTS_DO_NOT_PARSE = 2
"""Tyro's exit code."""


@contextmanager
def parsing() -> Iterator[None]:
    """Arguments that do not parse end the block with the exit code of a usage error; tyro has said what is wrong."""
    try:
        yield
    except SystemExit as stop:
        if stop.code == ARGUMENTS_DO_NOT_PARSE:
            raise SystemExit(UsageError.exit_code) from None
        raise


def run(call: Callable[[], object], name: str) -> int:
    """Calls, and returns the exit code; `name` begins the line of an error."""
    wait_patiently()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        with parsing():
            call()
    except TtsError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return error.exit_code
    except SystemExit as stop:
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    return 0
