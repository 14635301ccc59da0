"""Inputs and outputs as Kubeflow Pipelines hands them over: each has a URI, and a path where its content is or is expected."""

from pathlib import Path
from typing import Any, Protocol

from tts.errors import DataError
from tts.storage import is_remote

Figures = dict[str, float]


class Artefact(Protocol):
    """What the pipeline passes from step to step. On a cluster `path` is a folder of the pod, and what is left there is uploaded to `uri`."""

    uri: str
    path: str
    metadata: dict[str, Any]
    custom_path: str
    """Where the content is, if not at `path`."""


class Metrics(Protocol):
    """Figures that the interface shows beside the step."""

    def log_metric(self, metric: str, value: float) -> None:
        """Adds one. The backend fails a finished step for a value that is not finite."""


def uploaded(artefact: Artefact) -> bool:
    """Whether the artefact is kept in an object store, as on a cluster. kfp.local's URIs are paths."""
    return "://" in artefact.uri


def output_folder(artefact: Artefact, work: str, name: str) -> Path:
    """The folder that an output is made in: below `work` where that is a folder, else the artefact's own.

    A cluster's artefact keeps its URI, because the next step's download fails for one that is no URI; it is uploaded from the folder.
    """
    if not work or is_remote(work):
        return Path(artefact.path)
    folder = Path(work).absolute() / name
    if uploaded(artefact):
        artefact.custom_path = str(folder)
    else:
        artefact.path = str(folder)
    return folder


def input_folder(artefact: Artefact, what: str) -> Path:
    """The folder with an input's content.

    Raises DataError where there is none: a cached step counts as done although its results were deleted from the store.
    """
    folder = Path(artefact.path)
    if not folder.is_dir() or not any(folder.iterdir()):
        raise DataError(
            f"the {what} at {artefact.uri} are gone: the step that made them was taken from the cache, and its results were deleted since; "
            "start the pipeline again without the cache (tts pipeline submit --no_cache)"
        )
    return folder


def show(figures: Figures, metrics: Metrics, artefact: Artefact, **facts: str) -> None:
    """Figures for the interface: beside the step, and as metadata of the artefact that they are about."""
    for name, value in figures.items():
        metrics.log_metric(name, value)
    artefact.metadata.update({**facts, **figures})
