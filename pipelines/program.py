"""The edge of this package's programs: an error is one line and an exit code, as with `tts`."""

import logging
import sys
from collections.abc import Callable

from tts.errors import INTERRUPTED, TtsError
from tts.threads import wait_patiently


def run(call: Callable[[], object], name: str) -> int:
    """Calls, and returns the exit code; `name` begins the line of an error."""
    wait_patiently()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        call()
    except TtsError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    return 0
