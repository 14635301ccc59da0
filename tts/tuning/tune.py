"""The whole of tuning: a study, workers, and what comes out of it."""

import json
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts.config import Config
from tts.config.load import to_json
from tts.data.store import FeatureStore
from tts.errors import (
    CannotWriteError,
    DataError,
    PreemptedError,
    ServiceUnavailableError,
    TakenOverError,
    TrainingDivergedError,
    TtsError,
    UsageError,
)
from tts.progress import Progress
from tts.storage import is_remote, local, prepare_folder, write_text
from tts.tracking import NOTE, Tracker
from tts.training.preemption import StopFlag
from tts.training.validation import RECOGNISER_METRICS, validation_metrics
from tts.tuning.budget import Budget
from tts.tuning.database.storage import storage_url
from tts.tuning.fleet import Fleet, check_reach, exit_code, launcher_of
from tts.tuning.keep.archive import read_archive
from tts.tuning.keep.warm_start import import_archive
from tts.tuning.launch import Launcher, Task, Workers
from tts.tuning.report.live import shown
from tts.tuning.report.records import StudyRecord, record
from tts.tuning.report.results import is_current, write_tables
from tts.tuning.report.snapshot import snapshot
from tts.tuning.search.objective import Objective
from tts.tuning.study import Plan, Study, create_study
from tts.tuning.trials.free_running import FREE_RUNNING_METRICS
from tts.tuning.work.launcher_lease import LauncherLease
from tts.tuning.work.recording import deliver, known_run, note_run, place_of
from tts.tuning.work.worker import stopped

__all__ = ["TuneSummary", "launcher_of", "plan_of", "tune"]

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Between looks at the workers; the study is looked at as often while it changes."""


@dataclass(frozen=True)
class TuneSummary:
    """What tuning ended with."""

    name: str
    folder: Path
    best: int
    """Number of the best trial."""
    values: dict[str, float]
    """Its objectives by their names."""
    params: dict[str, Any]
    best_file: Path
    """Usable as --config."""
    counts: dict[str, int]
    """Trials by state."""
    spent: str
    """Why the study is at its end."""
    ran: bool
    """False: it was before."""

    @property
    def value(self) -> float:
        """The first objective, of most studies the only one."""
        return next(iter(self.values.values()))


def plan_of(features: Path, study: Path, config: Config) -> Plan:
    """What the study's workers would agree on; nothing is made, and no server asked. Raises UsageError, DataError.

    `features` lie on this machine.
    """
    Objective(config.tuning.objective).check([*validation_metrics(config.model), *FREE_RUNNING_METRICS], RECOGNISER_METRICS)
    store = FeatureStore.open(features)
    store.check(config)
    return Plan.of(config, store.fingerprint, study)


def tune(
    features: str | Path,
    study: Path,
    config: Config,
    *,
    storage: str | None,
    name: str,
    tracker: Tracker,
    progress: Progress,
    stop: StopFlag | None = None,
    tracking_folder: Path | None = None,
    warm_start: Path | None = None,
    launcher: Launcher | None = None,
) -> TuneSummary:
    """Creates, takes up or extends the study and runs workers until its budget is spent: of trials, hours, or trials without a better one.

    Args:
        features: The feature store that trials train on, a folder or a URI; workers on other machines get it as it is written here.
        study: Folder for results, and for the database if `storage` is None.
        config: What trials share, and the study's budget and space.
        storage: The database's URL.
        name: The study's name in the database.
        tracker: Gets the parent run.
        progress: Shows the finished trials and the best.
        tracking_folder: What `tracker` was opened with, if not the study's folder; workers open the same.
        warm_start: What `tts study export` wrote of another study: its trials that fit are imported, once.
        stop: Ends the study early; it goes on when called again.
        launcher: Runs the workers, and may give them the features from elsewhere; by default the one that `tuning.launcher` names.

    Raises:
        UsageError: Knobs, objective, ranges, features or code do not fit, or differ from the existing study's; its hours ended before a trial did;
            another `tts tune` launches its workers elsewhere.
        DataError, CannotWriteError, ServiceUnavailableError: Features, archive, folder or database.
        TrainingDivergedError: No trial completed; the message lists the reasons.
        PreemptedError, KeyboardInterrupt: The flag was set.
        TakenOverError: Another `tts tune` launches its workers by now.
    """
    stop = StopFlag() if stop is None else stop
    url = storage_url(study, storage)
    check_reach(config, str(features) if launcher is None else None, url)
    store = local(str(features))
    plan = plan_of(store, study, config)
    archive = read_archive(warm_start) if warm_start else None
    prepare_folder(study)
    opened = create_study(url, name, plan)
    if archive:
        logger.info("%s", import_archive(opened, archive))
    write_text(study / "config.json", to_json(config))
    spent = Budget.state(opened).spent
    if spent:
        logger.info("study %s is at its end: %s; give it more, such as --tuning.trials %d", name, spent, 2 * config.tuning.trials)
        deliver(opened, study)
        return _summary(_write(opened, study), study, ran=False)
    launcher = launcher or launcher_of(config, study)
    task = Task(str(features) if is_remote(str(features)) else str(store.resolve()), url, name)
    with _lease(opened, stop) as check:
        results = _recorded(opened, launcher, task, check, store=store, folder=study, tracker=tracker, progress=progress, stop=stop,
                            where=place_of(config.tracking, tracking_folder or study))  # fmt: skip
    return _summary(results, study, ran=True)


def _recorded(
    study: Study, launcher: Launcher, task: Task, check: Callable[[], None],
    *, store: Path, folder: Path, tracker: Tracker, progress: Progress, stop: StopFlag, where: Mapping[str, str],
) -> StudyRecord:  # fmt: skip
    """Runs workers and leaves the results, as a tracked run."""
    plan = study.plan
    with tracker.run(task.name, run_id=known_run(study, where)) as parent:
        parent.params({"study": task.name, "features": plan.features, **plan.config.tuning.model_dump(mode="json")})
        write_text(folder / NOTE, json.dumps({"run": parent.id, **where}) + "\n")
        note_run(study, parent.id, where)
        _run(study, launcher, task, plan.config.tuning.workers, progress, stop, check)
        results = _write(study, folder)
        parent.artefact(folder / "study.html")
        parent.tags({"spent": results.spent, **{f"trials.{state}": str(number) for state, number in results.counts.items()}})
        if results.best:
            names = [f"best.{objective}" for objective in results.objectives] if results.several else ["best_value"]
            parent.metrics(dict(zip(names, results.best.values, strict=True)), results.best.number)
            from tts.tuning.report.showcase import show_best  # loads torch and Matplotlib: not before workers have started

            show_best(study, results.best.number, store, tracker, parent.id, folder)
    deliver(study, folder)
    return results


@contextmanager
def _lease(study: Study, stop: StopFlag) -> Iterator[Callable[[], None]]:
    """Workers on other machines know for the time of the block that somebody waits for them; yields what raises TakenOverError once that is another.

    Raises UsageError where another `tts tune` launches them. Workers of this machine need no sign: they hold a pipe.
    """
    if study.plan.config.tuning.launcher == "local":
        yield lambda: None
        return
    with LauncherLease(study, stop) as lease:
        yield lease.check


def _run(
    study: Study, launcher: Launcher, task: Task, workers: int, progress: Progress, stop: StopFlag, check: Callable[[], None] = lambda: None
) -> None:
    """Runs workers until the budget is spent. They are gone when it returns or raises, unless `check` says that they are another's by now."""
    fleet = Fleet(study, lambda: stop)
    with (
        _started(launcher, task, workers, stop),
        _ending_as_asked(stop, task.name),
        shown(progress, snapshot(study, workers=workers, stop=lambda: stop)) as view,
    ):
        while True:
            check()
            alive = launcher.poll()  # before the study is read: once nobody is left, that is final
            now = snapshot(study, workers=alive.alive, waiting=alive.waiting, stop=lambda: stop)
            view.update(now)
            fleet.heed(alive, spent=bool(now.study.spent))
            if now.study.spent:
                return
            if stop:
                logger.info("stopping: trials under way write their checkpoints")
                raise stopped(stop, f"study {task.name!r} stopped after {now.study.finished} trials; the same command goes on with it")
            if alive.alive == 0:
                raise _abandoned(alive, task.name, now.study.finished)
            time.sleep(POLL_SECONDS)


@contextmanager
def _started(launcher: Launcher, task: Task, workers: int, stop: StopFlag) -> Iterator[None]:
    """Workers run for the time of the block, and are gone after it, unless it says that they are another's by now."""
    try:
        launcher.start(task, workers)
        yield
    except TakenOverError:
        raise
    except BaseException:
        if stop.signal is signal.SIGTERM:
            launcher.preempted()
        launcher.stop()
        raise
    else:
        launcher.stop()


@contextmanager
def _ending_as_asked(stop: StopFlag, name: str) -> Iterator[None]:
    """Who was asked to stop while the database was away has stopped as asked: nothing is left to do about the database."""
    try:
        yield
    except ServiceUnavailableError as error:
        if stop:
            raise stopped(stop, f"study {name!r} stopped while its database was away ({error}); the same command goes on with it") from error
        raise


def _abandoned(workers: Workers, name: str, done: int) -> TtsError:
    """All workers are gone and the budget is not spent: the error that they ended with."""
    kinds = {kind.exit_code: kind for kind in (UsageError, DataError, ServiceUnavailableError, CannotWriteError, PreemptedError)}
    codes = [exit_code(ended) for ended in workers.ended]
    killed: type[TtsError] = PreemptedError if all(code < 0 for code in codes) else TtsError
    kind = next((kinds[code] for code in codes if code in kinds), killed)
    lines = "; ".join(dict.fromkeys(str(ended) for ended in workers.ended))
    return kind(f"study {name!r} has no worker left after {done} finished trials ({lines}); the same command goes on with it")


def _write(study: Study, folder: Path) -> StudyRecord:
    """Leaves the results; those that are there already and current stay."""
    results = record(study)
    if not is_current(folder, results):
        from tts.tuning.report.page import write_page  # loads Matplotlib: not before workers have started

        write_tables(folder, results)
        write_page(folder, results)
    return results


def _summary(results: StudyRecord, folder: Path, *, ran: bool) -> TuneSummary:
    if results.best is None and results.counts.get("waiting"):
        raise UsageError(f"study {results.name!r}: {results.spent} before a trial completed; give it more, and its trials go on")
    if results.best is None:
        reasons = Counter(trial.reason for trial in results.trials if trial.reason)
        listed = "; ".join(f"{number} x {reason}" for reason, number in reasons.most_common(3))
        raise TrainingDivergedError(f"no trial of study {results.name!r} completed ({listed or 'none failed'}); see {folder / 'study.html'}")
    best = results.best
    values = dict(zip(results.objectives, best.values, strict=True))
    return TuneSummary(results.name, folder, best.number, values, best.params, folder / "best.yaml", results.counts, results.spent, ran)
