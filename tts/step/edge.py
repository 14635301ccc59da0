"""The edge of a step: turns, one line for an error, and why it failed where it can be found."""

import contextlib
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tts import chain
from tts.errors import INTERRUPTED, TtsError
from tts.step.alone import alone
from tts.step.artefact import Artefact, Figures
from tts.step.failure import clear, record
from tts.storage import is_remote
from tts.threads import wait_patiently

logger = logging.getLogger(__name__)


@contextmanager
def running(stage: str, output: Artefact, work: str, page: Artefact | None = None) -> Iterator[None]:
    """Around all that a step does. An error ends the process with its exit code, after failure.json and the page were left to say why."""
    wait_patiently()
    try:
        with _turn(work):
            yield
            clear(stage=stage, output=output, work=work)
    except TtsError as error:
        logger.error("%s", error)  # noqa: TRY400  # the message is for a person; there is no defect to trace
        record(error, error.exit_code, stage=stage, output=output, page=page, work=work)
        raise SystemExit(error.exit_code) from error
    except KeyboardInterrupt as error:
        logger.warning("interrupted")
        record(error, INTERRUPTED, stage=stage, output=output, page=page, work=work)
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        record(error, 1, stage=stage, output=output, page=page, work=work)
        raise


@contextmanager
def _turn(work: str) -> Iterator[None]:
    """Steps that share a folder take turns. In an object store nobody can wait for another: each run of the pipeline names a `work` of its own."""
    with contextlib.nullcontext() if not work or is_remote(work) else alone(Path(work)):
        yield


def end(stage: chain.Stage) -> Figures:
    """Finite figures only: the backend fails a finished step for a metric that is not a number."""
    logger.info("%s", chain.describe(stage))
    return {name: float(value) for name, value in stage.figures.items() if math.isfinite(value)}
