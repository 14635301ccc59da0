"""A whole training run as a stage: open the features, train, record in the tracking store."""

import hashlib
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from tts.config import Config
from tts.config.load import flatten, to_json
from tts.data.store import FeatureStore
from tts.errors import DataError, TrainingDivergedError
from tts.progress import Progress
from tts.storage import write_text
from tts.tracking import NOTE, Run, Tracker
from tts.training.checkpoint import Checkpoints, check_resumable
from tts.training.loop import follow, train
from tts.training.metrics_log import read_metrics
from tts.training.preemption import StopFlag
from tts.training.ranks import ALONE, Ranks
from tts.training.recovery.abandoned import read_restarts
from tts.training.run_folder import prepare_run, read_state
from tts.training.validation import past_records

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSummary:
    """What a training run came to."""

    steps: int
    already_finished: bool
    """Nothing was left to do."""
    skipped_updates: int
    seconds: float
    """Over all attempts."""
    best_step: int | None
    """Of the checkpoint that load_model takes; None where no validation was finite."""
    metrics: dict[str, float]
    """Those of the validation at the best step, or else of the last one, that are finite."""
    tracking_run: str
    """Id in the tracking store."""


def run_training(
    features: Path, run: Path, config: Config, *, tracker: Tracker, progress: Progress, stop: StopFlag, ranks: Ranks = ALONE
) -> TrainSummary:
    """Trains in `run` until `training.steps`, going on from what is there; a finished run returns at once.

    Measurements reach the tracker after each validation. A run that is resumed goes on in the tracking run that it had.
    Raises what `train` raises, DataError for damaged features, and ServiceUnavailableError.
    """
    store = FeatureStore.open(features)
    store.check(config)
    prepare_run(run)
    if _is_finished(store, config, run):
        logger.info("%s has made its %d steps already; set training.steps higher to go on", run, config.training.steps)
        return _summary(run, already_finished=True)
    with _tracking(run, config, store, tracker) as measurements:
        for _ in train(store, config, run, progress=progress, stop=stop, ranks=ranks):
            measurements.send()
        measurements.send()  # a run that was killed at its very end has nothing left to do but this
    return _summary(run, already_finished=False)


def follow_training(features: Path, config: Config, *, stop: StopFlag, ranks: Ranks) -> int:
    """What the other ranks do meanwhile; they write nothing. The exit code that all end with. Raises as `follow` does."""
    return follow(FeatureStore.open(features), config, stop=stop, ranks=ranks)


def tracked_run(run: Path) -> tuple[str, int]:
    """Id of the run in the tracking store, empty where there is none, and the last step that was recorded. Raises DataError."""
    known, step, _ = _note(run)
    return known, step


class _Measurements:
    """Sends the lines of metrics.jsonl that the tracking store does not have yet."""

    def __init__(self, run: Path, tracked: Run, step: int, digest: str) -> None:
        self._run, self._tracked, self._step, self._digest = run, tracked, step, digest
        self._told = 0
        self._note()

    def send(self) -> None:
        lines = [line for line in read_metrics(self._run / "metrics.jsonl") if line["step"] > self._step]
        for line in lines:
            kind, step = line.pop("kind"), line.pop("step")
            self._tracked.metrics({f"{kind}/{name}": value for name, value in line.items()}, step)
            self._step = step
        self._tell_restarts()
        self._note()

    def _tell_restarts(self) -> None:
        """How many, and why each. What was measured on the way that a restart abandoned stays: a value at a step is taken once."""
        restarts = read_restarts(self._run)
        for restart in restarts[self._told :]:
            self._tracked.metrics({"restarts": restart.number}, restart.noticed_step)
            self._tracked.tags({"restarts": str(restart.number), f"restart.{restart.number}": f"{restart.trigger}: {restart.sentence}"})
        self._told = len(restarts)

    def _note(self) -> None:
        """The run's id in the tracking store, the last step that is recorded, and of what configuration."""
        write_text(self._run / NOTE, json.dumps({"run": self._tracked.id, "step": self._step, "config": self._digest}) + "\n")


@contextmanager
def _tracking(run: Path, config: Config, store: FeatureStore, tracker: Tracker) -> Iterator[_Measurements]:
    known, step, before = _note(run)
    digest = hashlib.sha256(to_json(config).encode()).hexdigest()[:12]
    anew = False
    if not Checkpoints(run).index().checkpoints:  # the run starts over; with another configuration, what was recorded of it no longer counts
        step, anew = 0, before != digest
    with tracker.run(run.name, run_id=known or None, anew=anew) as tracked:
        tracked.params(flatten(config))
        tracked.tags({"fingerprint": store.fingerprint, "stage": "train"})
        measurements = _Measurements(run, tracked, step, digest)
        try:
            yield measurements
        except TrainingDivergedError:
            # How it went wrong is what one wants to see; on SIGTERM there is no time for it, and the next attempt sends it.
            measurements.send()
            raise
        for name in ("config.json", "corpus.json", "run.json", "metrics.jsonl", "modules.jsonl"):
            tracked.artefact(run / name)


def _note(run: Path) -> tuple[str, int, str]:
    try:
        values = json.loads((run / NOTE).read_text(encoding="utf-8"))
        return str(values["run"]), int(values["step"]), str(values.get("config", ""))
    except FileNotFoundError:
        return "", 0, ""
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{run / NOTE} does not name a tracking run ({error}); remove it to record under a new one") from None


def _is_finished(store: FeatureStore, config: Config, run: Path) -> bool:
    content = Checkpoints(run).newest(torch.device("cpu"))
    if content is None:
        return False
    check_resumable(content, config, store.fingerprint, run)
    state = read_state(run)
    return state is not None and state.state == "finished" and content["step"] == config.training.steps


def _summary(run: Path, *, already_finished: bool) -> TrainSummary:
    state = read_state(run)
    if state is None:
        raise DataError(f"{run} has checkpoints but no run.json; train into another folder")
    best = Checkpoints(run).index().best_entry
    records = {record.step: record.metrics for record in past_records(run)}
    best_step = best.step if best else None
    metrics = records.get(best_step if best_step is not None else max(records, default=0), {})
    return TrainSummary(
        steps=state.step,
        already_finished=already_finished,
        skipped_updates=state.totals.skipped_updates,
        seconds=state.totals.seconds,
        best_step=best_step,
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
        tracking_run=tracked_run(run)[0],
    )
