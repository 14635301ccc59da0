"""A study that is there: found by its folder or in its database, given a larger budget, deleted."""

import difflib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from tts.config.load import override
from tts.errors import DataError, UsageError
from tts.storage import remove as remove_place
from tts.storage import reporting
from tts.tuning.database.address import STORAGE_VARIABLE, given_storage
from tts.tuning.database.attributes import PREFIXES, WORKER
from tts.tuning.database.lock import study_lock
from tts.tuning.database.retry import persistently
from tts.tuning.database.storage import open_storage, public, reaching, sqlite_file, storage_url
from tts.tuning.study import PLAN, Plan, Study, open_study
from tts.tuning.work.ground import ground_of

BUDGETS = ("trials", "gpu_hours", "hours", "plateau_trials")
"""Knobs of `tuning` that a study's budget consists of."""


def find(folder: Path | None, storage: str | None, name: str | None) -> Study:
    """Opens the study `name`, or the only one there, of a folder's database or of the one at the URL `storage`, else at TTS_STORAGE.

    A folder whose study is in a server's database names the study, TTS_STORAGE the database.

    Raises:
        UsageError: Neither folder nor URL, or both; or no name, and several studies to choose among.
        DataError: No database, no study in it, or none of that name; those that are there are listed.
        CannotWriteError, ServiceUnavailableError: The database.
    """
    url, name = _database(folder, storage, name)
    opened = open_storage(url)
    names = persistently(lambda: sorted(study.study_name for study in opened.get_all_studies()), url=url)
    where = public(url)
    if not names:
        raise DataError(f"{where} holds no study; create one with `tts tune`")
    if name is None and len(names) > 1:
        raise UsageError(f"{where} holds several studies: {', '.join(names)}; choose one with --study")
    if name is not None and name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}? There: " if close else "there: "
        raise DataError(f"study {name!r} is not in {where}; {hint}{', '.join(names)}")
    return open_study(url, name or names[0])


def alive(study: Study) -> list[str]:
    """Workers that give signs of life: by the heartbeats of their trials, and on this host by the locks that they hold."""
    plan = study.plan
    with reaching(study.url):
        old = set(study.storage.stale(study.id, plan.config.tuning.stale_seconds))
        running = study.trials.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    beating = {trial.user_attrs.get(WORKER, f"the worker of trial {trial.number}") for trial in running if trial._trial_id not in old}  # noqa: SLF001
    ground = ground_of(study, plan)
    return sorted({worker for worker in beating if ground.lives(worker) is None} | ground.living())


def extend(study: Study, budgets: Mapping[str, float]) -> Plan:
    """Sets budgets of the study and returns the plan as it was before; workers that run heed the new one at their next trial.

    A budget may be lowered, too: a study that has used more than that is over.

    Raises:
        UsageError: None is given, or a value that is out of bounds.
        ServiceUnavailableError: The database.
    """
    if not budgets:
        raise UsageError(f"say what to extend: {', '.join(f'--{name}' for name in BUDGETS)}")

    def set_plan() -> Plan:
        with study_lock(study.url, study.name):
            before = study.plan
            config = override(before.config, {f"tuning.{name}": value for name, value in budgets.items()}, "extend")
            said = {name: before.extended.get(name, (getattr(before.config.tuning, name), 0))[0] for name in budgets}
            extended = {**before.extended, **{name: (value, getattr(config.tuning, name)) for name, value in said.items()}}
            study.trials.set_user_attr(PLAN, before.model_copy(update={"config": config, "extended": extended}).model_dump(mode="json"))
            return before

    return persistently(set_plan, url=study.url)


def trials_folder(study: Study) -> Path:
    """Where the trials' runs are. A study whose database lies in its folder may have been moved or copied with it."""
    file = sqlite_file(study.url)
    beside = file.resolve().parent / "trials" if file else None
    return beside if beside and beside.is_dir() else study.plan.folder / "trials"


def delete(study: Study, *, sure: bool, keep_trials: bool = False) -> str:
    """Deletes the study from its database, and its trials' runs; says what is gone. Tables and reports that `tts tune` wrote stay.

    Raises:
        UsageError: Without `sure`, naming what would be deleted; or workers are alive.
        CannotWriteError, ServiceUnavailableError: The folder, the database, the object store.
    """
    name, folder = study.name, trials_folder(study)
    trials = persistently(lambda: study.trials.get_trials(deepcopy=False), url=study.url)
    places = [] if keep_trials else [place for trial in trials for place in trial.user_attrs.get(PREFIXES, [])]
    what = f"study {name!r} with {len(trials)} trials in {public(study.url)}"
    runs = "" if keep_trials or not folder.is_dir() else f" and the runs in {folder}"
    runs += f" and the runs in {study.plan.config.tuning.runs_uri or 'the object store'}" if places else ""
    if not sure:
        raise UsageError(f"this deletes {what}{runs}, for good; add --yes to do it")

    def remove() -> None:
        with study_lock(study.url, name):
            if workers := alive(study):
                raise UsageError(f"study {name!r} has workers that are alive ({', '.join(workers)}); stop them first")
            optuna.delete_study(study_name=name, storage=study.storage)

    persistently(remove, url=study.url)
    if not keep_trials and folder.is_dir():
        with reporting(folder):
            shutil.rmtree(folder)
    for place in places:
        remove_place(place)
    return what + runs


def _database(folder: Path | None, storage: str | None, name: str | None) -> tuple[str, str | None]:
    """The database's URL, and the study's name where it is known."""
    given = given_storage(storage)
    if folder is None:
        if given is None:
            raise UsageError(f"say which study: its folder STUDY, or --storage URL, or set {STORAGE_VARIABLE}")
        return storage_url(Path(), given), name
    if storage is not None:
        raise UsageError(f"give STUDY or --storage, not both: which study is meant, that of {folder} or one of {public(storage)}?")
    if (folder / "study.db").exists():
        return storage_url(folder, None), name
    known, where = _elsewhere(folder)
    if given is not None and known:
        return storage_url(Path(), given), name or known
    raise DataError(f"the study of {folder} is in another database, {where}: set {STORAGE_VARIABLE} to its URL, password included, and try again")


def _elsewhere(folder: Path) -> tuple[str, str]:
    """Name and database, without its password, of a study that left only its results in the folder. Raises DataError."""
    if not folder.exists():
        raise DataError(f"study {folder} does not exist")
    if not (folder / "study.json").is_file():
        raise DataError(f"{folder} holds no study.db; expected a folder made by `tts tune`, or --storage URL")
    try:
        known: dict[str, Any] = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        return str(known["name"]), str(known["storage"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'study.json'} does not name a study ({error}); give its database with --storage URL") from None
