"""The whole of tuning: a study, workers, and what comes out of it."""

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from tts.config import Config, TrackingConfig
from tts.config.load import to_json
from tts.data.store import FeatureStore
from tts.errors import CannotWriteError, DataError, PreemptedError, ServiceUnavailableError, TrainingDivergedError, TtsError, UsageError
from tts.progress import Progress
from tts.storage import prepare_folder, write_text
from tts.tracking import Tracker
from tts.training.preemption import StopFlag
from tts.training.validation import VALIDATION_METRICS
from tts.tuning.launch import Launcher, LocalLauncher, Task, Workers
from tts.tuning.objective import Objective
from tts.tuning.queue import count, is_spent
from tts.tuning.results import StudyRecord, is_current, record, write_tables
from tts.tuning.storage import reaching, storage_url
from tts.tuning.study import Plan, Study, create_study
from tts.tuning.worker import TRACKING, stopped

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class TuneSummary:
    """What tuning ended with."""

    name: str
    folder: Path
    best: int
    """Number of the best trial."""
    value: float
    """Its objective."""
    params: dict[str, Any]
    best_file: Path
    """Usable as --config."""
    counts: dict[str, int]
    """Trials by state."""
    ran: bool
    """False: the study's budget had been spent before."""


def tune(
    features: Path,
    study: Path,
    config: Config,
    *,
    storage: str | None,
    name: str,
    tracker: Tracker,
    progress: Progress,
    stop: StopFlag | None = None,
    tracking_folder: Path | None = None,
    launcher: Launcher | None = None,
) -> TuneSummary:
    """Creates, takes up or extends the study and runs workers until `tuning.trials` trials are finished.

    Args:
        features: The feature store that trials train on.
        study: Folder for results, and for the database if `storage` is None.
        config: What trials share, and the study's budget and space.
        storage: The database's URL.
        name: The study's name in the database.
        tracker: Gets the parent run.
        progress: Shows the finished trials and the best.
        tracking_folder: What `tracker` was opened with, if not the study's folder; workers open the same.
        stop: Ends the study early; it goes on when called again.
        launcher: Runs the workers; by default processes on this machine.

    Raises:
        UsageError: Knobs, objective, ranges or features do not fit, or differ from the existing study's.
        DataError, CannotWriteError, ServiceUnavailableError: Features, folder or database.
        TrainingDivergedError: No trial completed; the message lists the reasons.
        PreemptedError, KeyboardInterrupt: The flag was set.
    """
    Objective(config.tuning.objective).check(VALIDATION_METRICS)
    store = FeatureStore.open(features)
    store.check(config)
    plan = Plan.of(config, store.fingerprint, study)
    url = storage_url(study, storage)
    prepare_folder(study)
    opened = create_study(url, name, plan)
    write_text(study / "config.json", to_json(config))
    ran = not is_spent(opened)
    if ran:
        launcher = launcher or LocalLauncher(study / "workers")
        where = _where(config.tracking, tracking_folder or study)
        with tracker.run(name, run_id=_tracked(study, where)) as parent:
            parent.params({"study": name, "features": store.fingerprint, **config.tuning.model_dump(mode="json")})
            write_text(study / TRACKING, json.dumps({"run": parent.id, **where}) + "\n")
            _run(opened, launcher, Task(features, url, name), config.tuning.workers, progress, StopFlag() if stop is None else stop)
            results = _write(opened, study)
            parent.artefact(study / "study.html")
            parent.tags({f"trials.{state}": str(number) for state, number in results.counts.items()})
            if results.best:
                parent.metrics({"best_value": results.best.value}, results.best.number)
    else:
        logger.info("study %s: all %d trials are finished; ask for more with --tuning.trials", name, config.tuning.trials)
        results = _write(opened, study)
    return _summary(results, study, ran=ran)


def _run(study: Study, launcher: Launcher, task: Task, workers: int, progress: Progress, stop: StopFlag) -> None:
    """Runs workers until the budget is spent. They are gone when it returns or raises."""
    try:
        launcher.start(task, workers)
        done, reported = _finished(count(study)), 0
        with progress.task("Trials", total=study.plan.config.tuning.trials, done=done) as shown:
            while True:
                now = launcher.poll()
                counts = count(study)
                shown.advance(_finished(counts) - done, **_figures(study, counts, now))
                done = _finished(counts)
                if is_spent(study):
                    return
                if stop:
                    logger.info("stopping: trials under way write their checkpoints")
                    raise stopped(stop, f"study {task.name!r} stopped after {done} trials; the same command goes on with it")
                for ended in now.ended[reported:]:
                    logger.warning("%s; its trial waits for another worker", ended)
                reported = len(now.ended)
                if now.alive == 0:
                    raise _abandoned(now, task.name, done)
                time.sleep(POLL_SECONDS)
    finally:
        launcher.stop()


def _finished(counts: Counter[TrialState]) -> int:
    return sum(number for state, number in counts.items() if state.is_finished())


def _figures(study: Study, counts: Counter[TrialState], workers: Workers) -> dict[str, float | str]:
    figures: dict[str, float | str] = {"workers": str(workers.alive), "running": str(counts[TrialState.RUNNING])}
    for name, state in (("pruned", TrialState.PRUNED), ("failed", TrialState.FAIL)):
        if counts[state]:
            figures[name] = str(counts[state])
    if counts[TrialState.COMPLETE]:
        with reaching(study.url):
            figures["best"] = study.trials.best_value
    return figures


def _abandoned(workers: Workers, name: str, done: int) -> TtsError:
    """All workers are gone and the budget is not spent: the error that they ended with."""
    kinds = {kind.exit_code: kind for kind in (UsageError, DataError, ServiceUnavailableError, CannotWriteError, PreemptedError)}
    kind = next((kinds[ended.code] for ended in workers.ended if ended.code in kinds), TtsError)
    lines = "; ".join(dict.fromkeys(str(ended) for ended in workers.ended))
    return kind(f"study {name!r} has no worker left after {done} finished trials ({lines}); the same command goes on with it")


def _where(config: TrackingConfig, folder: Path) -> dict[str, str]:
    """Names a tracking store. Its URI may hold a password: only a hash is written."""
    return {"folder": str(folder.resolve()), "store": f"{config.backend}-{hashlib.sha256(config.uri.encode()).hexdigest()[:12]}"}


def _tracked(folder: Path, where: Mapping[str, str]) -> str | None:
    """The parent run that an earlier call began in the same store."""
    file = folder / TRACKING
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    run: str | None = known["run"] if known.items() >= where.items() else None
    return run


def _write(study: Study, folder: Path) -> StudyRecord:
    """Leaves the results; those that are there already and current stay."""
    results = record(study)
    if not is_current(folder, results):
        from tts.tuning.report import write_page  # loads Matplotlib: not before workers have started

        write_tables(folder, results)
        write_page(folder, results)
    return results


def _summary(results: StudyRecord, folder: Path, *, ran: bool) -> TuneSummary:
    if results.best is None:
        reasons = Counter(trial.reason for trial in results.trials if trial.reason)
        listed = "; ".join(f"{number} x {reason}" for reason, number in reasons.most_common(3))
        raise TrainingDivergedError(f"no trial of study {results.name!r} completed ({listed or 'none failed'}); see {folder / 'study.html'}")
    best = results.best
    return TuneSummary(results.name, folder, best.number, best.value, best.params, folder / "best.yaml", results.counts, ran)
