"""Where runs are recorded: MLflow, a file of JSON lines, or nowhere, behind one protocol."""

import os
from pathlib import Path

from tts.config import TrackingConfig
from tts.tracking.json_lines import JsonLinesTracker
from tts.tracking.nothing import NoTracker
from tts.tracking.protocol import CHAMPION, Registration, Run, Tracker

__all__ = ["CHAMPION", "NoTracker", "Registration", "Run", "Tracker", "open_tracker"]


def open_tracker(config: TrackingConfig, folder: Path) -> Tracker:
    """The tracker that the configuration asks for; without a URI it keeps everything in `folder`.

    For MLflow the environment's MLFLOW_TRACKING_URI stands in for an empty `uri`: Kubeflow Pipelines' MLflow plugin sets it.
    Raises UsageError, DataError (the file is not a database), CannotWriteError, ServiceUnavailableError.
    """
    if config.backend == "none":
        return NoTracker()
    if config.backend == "jsonl":
        return JsonLinesTracker(Path(config.uri) if config.uri else folder / "tracking.jsonl")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")  # with its back-off half a minute, not minutes
    from tts.tracking.mlflow_store import MlflowTracker

    uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI", "") or f"sqlite:///{folder.absolute()}/mlflow.db"
    return MlflowTracker(uri, config.experiment, folder)
