"""A training on several devices: a process for each, started by torchrun."""

import logging
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tts.config import Config
from tts.config.load import to_json
from tts.errors import PreemptedError, TrainingDivergedError, TtsError
from tts.storage import write_text

logger = logging.getLogger(__name__)

STOP_SECONDS = 60.0
"""For the processes to write their checkpoint and end."""


def train_together(features: Path, run: Path, config: Config, count: int) -> None:
    """Trains in `run` until `training.steps` with `count` processes. Their exit codes do not come through torchrun: the run says how it ended.

    Raises TrainingDivergedError, PreemptedError, TtsError.
    """
    before = _written(run)
    logger.info("training on %d devices", count)
    with TemporaryDirectory(prefix="tts-train-") as folder:
        file = Path(folder, "config.json")
        write_text(file, to_json(config))
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        process = subprocess.Popen([*launch, "-m", "tts.cli", "train", str(features), str(run), "--config", str(file)])  # noqa: S603  # our own program
        try:
            code = process.wait()
        finally:
            _end(process)
    if code == 0:
        return
    raise _reason(run, count, code, said=_written(run) != before)


def _reason(run: Path, count: int, code: int, *, said: bool) -> TtsError:
    """Why processes ended that did not end well. `said`: the run's state is theirs, and not what an earlier attempt left."""
    from tts.training.run_folder import read_state

    state = read_state(run) if said else None
    ended = state.state if state else ""
    if ended == "diverged":
        return TrainingDivergedError(f"training on {count} devices diverged; the log above says why and what was tried")
    if ended == "preempted":
        return PreemptedError(f"training on {count} devices was asked to stop; it goes on from its last checkpoint")
    return TtsError(f"training on {count} devices ended with exit code {code}; the reason is in the log above")


def _written(run: Path) -> tuple[int, int] | None:
    """Another each time that the run's state is written, for each is a new file."""
    path = run / "run.json"
    if not path.exists():
        return None
    there = path.stat()
    return there.st_ino, there.st_mtime_ns


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
