"""One trial of a Katib Experiment: trains, and says its measurements in the lines that Katib's collector reads.

A line has a time and `name=value` for each: `2026-03-01T12:00:00.000000Z step=500 objective=0.4312 mel_loss=0.21`. Katib takes the last line's
values, and stops a trial by the lines before; it starts no trial again from a checkpoint, so each begins anew.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from tts.config import Config
from tts.config.load import flatten
from tts.data.store import FeatureStore
from tts.progress import Progress
from tts.tracking import Tracker
from tts.training.loop import train
from tts.training.preemption import StopFlag
from tts.training.run_folder import prepare_run
from tts.training.validation import RECOGNISER_METRICS, validation_metrics
from tts.tuning.search.objective import Objective
from tts.tuning.trials.free_running import FREE_RUNNING_METRICS, is_free_running
from tts.tuning.work.attempt import trial_config

OBJECTIVE = "objective"
"""Name of the objective among the metrics; `loss` is one of them already."""


def trial(features: Path, run: Path, config: Config, *, tracker: Tracker, progress: Progress, stop: StopFlag) -> Iterator[str]:
    """Trains in `run` for a trial's budget of steps; yields a line after each validation.

    Raises:
        UnusableMetricError: A metric of the objective is not finite: the trial has failed.
        UsageError, DataError, CannotWriteError, TrainingDivergedError, PreemptedError: As training does.
    """
    objective = Objective(config.tuning.objective)
    objective.check([*validation_metrics(config.model), *FREE_RUNNING_METRICS], RECOGNISER_METRICS)
    config = trial_config(config, {})
    store = FeatureStore.open(features)
    store.check(config)
    prepare_run(run)
    measure = None
    if is_free_running(config):
        from tts.tuning.trials.spoken import speaking

        measure = speaking(store, config, stop)
    with tracker.run(run.name) as tracked, closing(train(store, config, run, progress=progress, stop=stop, measure=measure)) as records:
        tracked.params(flatten(config))
        for record in records:
            tracked.metrics(record.metrics, record.step)
            (value,) = objective.values(record.metrics, record.step)
            tracked.metrics({OBJECTIVE: value}, record.step)
            yield line(record.step, {OBJECTIVE: value, **record.metrics})


def line(step: int, values: Mapping[str, float]) -> str:
    """A line for Katib. What is not finite it could not read: it is left out."""
    told = [f"{name}={value!r}" for name, value in values.items() if math.isfinite(value)]
    return " ".join([datetime.now(UTC).isoformat().replace("+00:00", "Z"), f"step={step}", *told])
