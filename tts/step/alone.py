"""Steps that share a folder take turns, and end with the process that started their pipeline."""

import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tts.storage import prepare_folder

PIPELINE_LOCK = ".pipeline.lock"
"""In the work folder: held by the process that runs the pipeline for as long as it lives."""
STEP_LOCK = ".step.lock"
"""Held by a step: the first step of a new pipeline waits for one that a killed pipeline left behind, and that is saving its work."""


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """Holds the folder; waits for a step that has it. Raises CannotWriteError."""
    with (prepare_folder(work) / STEP_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _end_with_pipeline(work / PIPELINE_LOCK)
        yield


def _end_with_pipeline(lock: Path) -> None:
    """Sends this process SIGTERM, the request to save and stop, when the lock's holder has died, even by SIGKILL."""
    try:
        file = lock.open()
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return
    except BlockingIOError:
        threading.Thread(target=_wait, args=(file,), daemon=True).start()
        return
    file.close()


def _wait(file: IO[str]) -> None:
    fcntl.flock(file, fcntl.LOCK_SH)
    os.kill(os.getpid(), signal.SIGTERM)
