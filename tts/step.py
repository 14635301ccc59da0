"""A pipeline's step: turns the form's texts and numbers into a call of a stage, wherever the step runs.

On a cluster a step's folders are artefacts that the launcher uploads. On one machine `work` names a folder that stays, so that a step
that was killed goes on; and a step ends when the process that started the pipeline is gone.
"""

import fcntl
import logging
import math
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tts import chain
from tts.config import Config
from tts.config.resolve import overrides_from_json, resolve
from tts.errors import INTERRUPTED, TtsError
from tts.progress import Lines
from tts.storage import prepare_folder
from tts.threads import wait_patiently
from tts.tracking import NOTE, NoTracker, Tracker, open_tracker

logger = logging.getLogger(__name__)

PIPELINE_LOCK = ".pipeline.lock"
"""In the work folder: held by the process that runs the pipeline for as long as it lives."""
STEP_LOCK = ".step.lock"
"""Held by a step: the first step of a new pipeline waits for one that a killed pipeline left behind, and that is saving its work."""

Figures = dict[str, float]


def place(artefact: str, work: str, name: str) -> str:
    """The folder of an output: the artefact's own, or on one machine `work`/`name`."""
    return str(Path(work).absolute() / name) if work else artefact


def prepare(corpus: str, features: str, *, preset: str, language: str, overrides: str, work: str) -> Figures:
    """Recordings into the folder `features`."""
    with _running(work):
        config = _configuration(None, preset, overrides, {"text.language": language})
        return _end(chain.prepare(Path(corpus), Path(features), config, progress=Lines()))


def tune(features: str, study: str, page: str, *, preset: str, trials: int, overrides: str, tracking_uri: str, work: str) -> Figures:
    """The study into the folder `study`, its page into the file `page`."""
    with _running(work):
        named = {"tuning.trials": trials, "tracking.uri": tracking_uri}
        config = _configuration(features, preset, overrides, named)
        tracker, folder = _tracking(config, work, study, must_answer=not (Path(study) / NOTE).is_file())
        with tracker:
            stage = chain.tune(Path(features), Path(study), config, tracker=tracker, tracking_folder=folder, progress=Lines())
        _publish(Path(study) / "study.html", page)
        return _end(stage)


def train(features: str, study: str, run: str, *, preset: str, training_steps: int, overrides: str, tracking_uri: str, work: str) -> Figures:
    """The final training, with the study's best configuration, into the folder `run`."""
    with _running(work):
        named = {"training.steps": training_steps, "tracking.uri": tracking_uri}
        config = _configuration(features, preset, overrides, named)
        tracker, _ = _tracking(config, work, run, must_answer=not (Path(run) / NOTE).is_file())
        with tracker:
            return _end(chain.train(Path(features), Path(run), config, study=Path(study), tracker=tracker, progress=Lines()))


def diagnose(run: str, diagnostics: str, page: str, *, work: str) -> Figures:
    """The diagnosis into the folder `diagnostics`, its page into the file `page`."""
    with _running(work):
        stage = chain.diagnose(Path(run), Path(diagnostics))
        _publish(Path(diagnostics) / "diagnostics.html", page)
        return _end(stage)


def evaluate(run: str, features: str, study: str, evaluation: str, page: str, *, preset: str, overrides: str, work: str) -> Figures:
    """The evaluation into the folder `evaluation`, the report into the file `page`."""
    with _running(work):
        config = _configuration(features, preset, overrides, {})
        stage = chain.evaluate(Path(run), Path(features), Path(evaluation), config, study=Path(study), progress=Lines())
        _publish(Path(evaluation) / "report.html", page)
        return _end(stage)


def register(run: str, evaluation: str, registration: str, *, preset: str, overrides: str, tracking_uri: str, work: str) -> Figures:
    """A version in the registry; what came of it into the folder `registration`."""
    with _running(work):
        config = _configuration(run, preset, overrides, {"tracking.uri": tracking_uri})
        tracker, _ = _tracking(config, work, "", spool=registration)
        with tracker:
            return _end(chain.register(Path(run), Path(evaluation), Path(registration), config, tracker=tracker))


def _configuration(folder: str | None, preset: str, overrides: str, named: dict[str, Any]) -> Config:
    """Preset, then the form's named fields (0 and '' mean: not given), then its JSON of knobs."""
    given = {name: value for name, value in named.items() if value not in ("", 0)}
    return resolve(folder=Path(folder) if folder else None, name=preset, overrides={**given, **overrides_from_json(overrides)})


def _tracking(config: Config, work: str, output: str, *, must_answer: bool = False, spool: str = "") -> tuple[Tracker, Path]:
    """The tracker, and the folder of its own store. Without a server, steps share a store only where they share a folder.

    `spool` is the folder where a step that makes no store of its own keeps what a server does not take at once.
    """
    folder = Path(work or output or spool)
    if not (work or output or config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")):
        logger.warning("tracking_uri is not given: this step can record nothing that lasts")
        return NoTracker(), folder
    return open_tracker(config.tracking, folder, must_answer=must_answer), folder


def _publish(page: Path, artefact: str) -> None:
    Path(artefact).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(page, artefact)


def _end(stage: chain.Stage) -> Figures:
    """Finite figures only: the backend fails a finished step for a metric that is not a number."""
    logger.info("%s", chain.describe(stage))
    return {name: float(value) for name, value in stage.figures.items() if math.isfinite(value)}


@contextmanager
def _running(work: str) -> Iterator[None]:
    """The edge of a step: one line for an error, and the exit code that says what to do about it."""
    wait_patiently()
    try:
        if work:
            with (prepare_folder(Path(work)) / STEP_LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _end_with_pipeline(Path(work) / PIPELINE_LOCK)
                yield
        else:
            yield
    except TtsError as error:
        logger.error("%s", error)  # noqa: TRY400  # the message is for a person; there is no defect to trace
        raise SystemExit(error.exit_code) from error
    except KeyboardInterrupt:
        logger.warning("interrupted")
        raise SystemExit(INTERRUPTED) from None


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


def _wait(file: Any) -> None:
    fcntl.flock(file, fcntl.LOCK_SH)
    os.kill(os.getpid(), signal.SIGTERM)
