"""Where runs are recorded: MLflow, a file of JSON lines, or nowhere, behind one protocol."""

import os
from pathlib import Path

from tts.config import TrackingConfig
from tts.tracking.json_lines import JsonLinesTracker
from tts.tracking.location import Location, refuse_password
from tts.tracking.mlflow_tracker import MlflowTracker
from tts.tracking.nothing import NoTracker
from tts.tracking.protocol import CHAMPION, Registration, Run, Tracker

__all__ = ["CHAMPION", "NOTE", "NoTracker", "Registration", "Run", "Tracker", "open_tracker", "prepare_environment"]

NOTE = "tracking.json"
"""In the folder of a study or training run that was recorded: as what."""
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # read when MLflow is imported
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the thread that delivers waits by itself, and longer
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds; a loaded server takes some, and only the thread waits for it
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is for what a command made
}
"""Of MLflow's client, through the environment, because it offers no other way; what the environment says already stays."""


def open_tracker(config: TrackingConfig, folder: Path, *, must_answer: bool = False) -> Tracker:
    """The tracker that the configuration asks for; without a URI it keeps everything in `folder`.

    With `must_answer` the store is opened now, in about ten seconds at most: for new work, whose folder has no NOTE yet, a wrong address is best
    told at once. Otherwise nothing is asked, and nobody waits. For MLflow the environment's MLFLOW_TRACKING_URI stands in for an empty `uri`:
    Kubeflow Pipelines' MLflow plugin sets it.

    Raises UsageError (the address, what answers there), DataError (the file is not a database), CannotWriteError, and with `must_answer`
    ServiceUnavailableError.
    """
    if config.backend == "none":
        refuse_password(config.uri)
        return NoTracker()
    if config.backend == "jsonl":
        return JsonLinesTracker(Path(config.uri) if config.uri else folder / "tracking.jsonl")
    location = Location.of(config, folder)
    prepare_environment()
    if not must_answer:
        return MlflowTracker(location)
    from tts.tracking.answer import answering

    return MlflowTracker(location, answering(location))


def prepare_environment() -> None:
    """Settles how MLflow's client behaves."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
