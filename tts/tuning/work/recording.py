"""As what a study is recorded, known to workers on other machines: the study's database says it.

A store that is a file, MLflow's or JSON lines, lies in a folder of the machine of `tts tune`. A worker that does not see that folder records
nothing: in a folder of its own it would vanish with it. What a server has not taken when such a worker ends is left in the object store, from
where `tts tune` delivers it.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tts.config import TrackingConfig
from tts.errors import TtsError
from tts.progress import Silent
from tts.storage import entries, fetch, join, publish, remove
from tts.tracking import NOTE, NoTracker, Tracker, open_tracker
from tts.tracking.flush import flush
from tts.tracking.location import SPOOL, Location, given_uri
from tts.tuning.database.attributes import TRACKING
from tts.tuning.database.lock import study_lock
from tts.tuning.database.retry import persistently
from tts.tuning.study import Study
from tts.tuning.work.runs import home_of

logger = logging.getLogger(__name__)

LEFT = "spool"
"""Of what a study has in the object store: what a tracking server has not taken, a prefix for each worker."""
SERVERS = ("http://", "https://", "postgresql", "mysql")


def place_of(config: TrackingConfig, folder: Path) -> dict[str, str]:
    """Names where a study is recorded. The URI may name hosts that are nobody's business: its name in the spool, a hash, is written."""
    name = Location(folder, given_uri(config), config.experiment).name
    return {"folder": str(folder.resolve()), "store": f"{config.backend}-{name}", "reach": "server" if _has_server(config) else "folder"}


def known_run(study: Study, where: Mapping[str, str]) -> str | None:
    """The parent run that an earlier `tts tune` began in the same store. Raises ServiceUnavailableError."""
    known = _noted(study)
    run: str | None = known["run"] if _same_store(known, where) else None
    return run


def note_run(study: Study, run: str, where: Mapping[str, str]) -> None:
    """Tells workers on any machine. Of several `tts tune` that begin at once the first one's run stays. Raises ServiceUnavailableError."""

    def operation() -> None:
        with study_lock(study.url, study.name):
            known = study.trials.user_attrs.get(TRACKING, {})
            noted = {"run": known["run"] if _same_store(known, where) else run, **where}
            if noted != known:
                study.trials.set_user_attr(TRACKING, noted)

    persistently(operation, url=study.url)


@contextmanager
def recording(study: Study, scratch: Path, worker: str) -> Iterator[tuple[Tracker, str | None]]:
    """A worker's tracker and the study's run, while the block lasts; `scratch` is the worker's own folder. Raises CannotWriteError, UsageError."""
    plan, known = study.plan, _noted(study)
    folder = Path(known.get("folder", plan.folder))
    if not plan.config.tuning.runs_uri or _is_here(folder, known):
        with open_tracker(plan.config.tracking, folder) as tracker:
            yield tracker, known.get("run")
    elif not _has_server(plan.config.tracking):
        if plan.config.tracking.backend != "none":
            logger.warning("study %s is recorded in %s, which is not here: this worker's trials are recorded nowhere", study.name, folder)
        with NoTracker() as nothing:
            yield nothing, None
    else:
        with _leaving(study, scratch, worker, plan.config.tuning.runs_uri), open_tracker(plan.config.tracking, scratch) as tracker:
            yield tracker, known.get("run")


def deliver(study: Study, folder: Path) -> None:
    """Delivers what workers left in the object store; what the server does not take now is kept there, for the next time."""
    plan = study.plan
    if not plan.config.tuning.runs_uri or not _has_server(plan.config.tracking):
        return
    place = join(home_of(study, plan.config.tuning.runs_uri), LEFT)
    try:
        for worker in sorted({entry.name.split("/")[0] for entry in entries(place)}):
            fetch(join(place, worker), folder / LEFT / worker / SPOOL)
            done = flush(folder / LEFT / worker, plan.config.tracking, progress=Silent())
            logger.info("study %s: delivered %d records that worker %s had left", study.name, done.records, worker)
            if done.reason:
                raise done.reason
            remove(join(place, worker))
    except TtsError as error:
        logger.warning("what workers left for the tracking server is not all delivered (%s); `tts tune` of the finished study tries again", error)


@contextmanager
def _leaving(study: Study, scratch: Path, worker: str, runs_uri: str) -> Iterator[None]:
    """Publishes at the end what the server has not taken by then."""
    try:
        yield
    finally:
        spool = scratch / SPOOL
        if any(_undelivered(spool)):
            place = join(home_of(study, runs_uri), LEFT, worker)
            try:
                publish(spool, place)
                logger.warning("what the tracking server has not taken is left in %s; `tts tune` delivers it when the study ends", place)
            except TtsError as error:
                logger.warning("what the tracking server has not taken is lost with this worker: %s", error)


def _undelivered(spool: Path) -> Iterator[bool]:
    """Of each run of each store, whether something waits."""
    from tts.tracking.spool import spools

    for store in spool.iterdir() if spool.is_dir() else ():
        for run in spools(store):
            yield run.pending(store.name) > 0


def _noted(study: Study) -> dict[str, Any]:
    known: dict[str, Any] = persistently(lambda: study.trials.user_attrs.get(TRACKING, {}), url=study.url)
    return known


def _same_store(known: Mapping[str, Any], where: Mapping[str, str]) -> bool:
    """A server is the same from any folder; files are another store in another one."""
    names = ("reach", "store") if where["reach"] == "server" else ("reach", "store", "folder")
    return all(known.get(name) == where[name] for name in names)


def _is_here(folder: Path, known: Mapping[str, Any]) -> bool:
    """Whether that folder is the one of the `tts tune` that noted the run, and not another machine's of the same name."""
    file = folder / NOTE
    try:
        return bool(known) and bool(json.loads(file.read_text(encoding="utf-8"))["run"] == known["run"])
    except (OSError, ValueError, KeyError):
        return False


def _has_server(config: TrackingConfig) -> bool:
    return config.backend == "mlflow" and given_uri(config).startswith(SERVERS)
