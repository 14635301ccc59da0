"""The study: created once, with everything its workers must agree on kept inside it."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial
from pydantic import BaseModel, ConfigDict, ValidationError

from tts.config import Config
from tts.config.load import flatten
from tts.errors import DataError, UsageError
from tts.tuning.objective import Objective
from tts.tuning.search import pruner
from tts.tuning.space import Space, default_params, search_space
from tts.tuning.storage import create_tables, locked, open_storage, public, reaching, sqlite_file

logger = logging.getLogger(__name__)

FORMAT = 1
PLAN = "plan"
BASELINE = 0
"""Number of the trial that has the configuration's own values."""
"""Name of the study's attribute that holds its Plan."""

# What must stay the same for trials to be comparable; the searched knobs themselves are set by each trial.
_SECTIONS = ("text", "audio", "data", "model", "losses", "guided_attention", "optimiser")
_KNOBS = (
    "training.seed",
    "training.precision",
    "training.max_skipped_updates",
    "tuning.knobs",
    "tuning.objective",
    "tuning.steps",
    "tuning.validation_interval",
)

optuna.logging.set_verbosity(optuna.logging.WARNING)  # its lines about every trial repeat what the worker logs


class Plan(BaseModel):
    """What all workers of a study share."""

    model_config = ConfigDict(frozen=True)

    format: int
    features: str
    """Fingerprint of the feature store."""
    space: dict[str, str]
    """Optuna's JSON of each distribution."""
    config: Config
    """The configuration below the searched knobs, and the budget."""
    folder: Path
    """Where trials leave their runs; the same for every worker."""

    @staticmethod
    def of(config: Config, features: str, folder: Path) -> "Plan":
        """The plan of a new study. Raises UsageError for knobs or a pruner that cannot be searched with."""
        pruner(config.tuning)
        space = search_space(config.tuning)
        return Plan(format=FORMAT, features=features, space=_json(space), config=config, folder=folder.resolve())

    def differences(self, other: "Plan") -> list[str]:
        """What makes trials under `other` incomparable with those under this plan, in words."""
        found = []
        if self.features != other.features:
            found.append(f"the features' fingerprint is {other.features}, the study's is {self.features}")
        ours, theirs = flatten(self.config), flatten(other.config)
        decisive = [
            name for name in ours if (name.startswith(tuple(f"{section}." for section in _SECTIONS)) or name in _KNOBS) and name not in self.space
        ]
        found += [f"{name} is {_show(theirs[name])}, the study's is {_show(ours[name])}" for name in decisive if ours[name] != theirs.get(name)]
        ranges = [name for name in self.space if name in other.space and self.space[name] != other.space[name]]
        found += [f"the search range of {name} is {other.space[name]}, the study's is {self.space[name]}" for name in ranges]
        return found


@dataclass(frozen=True)
class Study:
    """An open study: one to a process."""

    trials: optuna.Study
    storage: RDBStorage
    url: str

    @property
    def plan(self) -> Plan:
        """Read anew each time: another `tts tune` may have extended the study."""
        return _plan(self.trials, self.url)

    @property
    def space(self) -> Space:
        """The distributions of the searched knobs, as the study was made with."""
        return {name: json_to_distribution(text) for name, text in self.plan.space.items()}

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return Objective(self.plan.config.tuning.objective)


def create_study(url: str, name: str, plan: Plan) -> Study:
    """Creates schema and study with the configuration's own values as its first trial, or opens and extends the one that is there.

    Any number of processes may do so at once.

    Raises:
        UsageError: The study that is there was made with other features, knobs or ranges, or not by us.
        DataError, CannotWriteError, ServiceUnavailableError: The database.
    """
    first = default_params(plan.config, search_space(plan.config.tuning))
    with locked(study_lock(plan.folder)):
        create_tables(url)
        storage = open_storage(url)
        with reaching(url):
            study = optuna.create_study(
                storage=storage, study_name=name, direction="minimize", load_if_exists=True, pruner=pruner(plan.config.tuning)
            )
            trials = study.get_trials(deepcopy=False)
            if PLAN in study.user_attrs:
                _refuse_other(_plan(study, url), plan, name, url)
            elif (plan.folder / "trials").exists():
                raise UsageError(f"{plan.folder} holds the trials of another study than {name!r}; choose another folder, or remove its trials/")
            elif any(trial.state != TrialState.WAITING for trial in trials):
                raise UsageError(f"study {name!r} in {public(url)} was not made by `tts tune`; choose another --study or --storage")
            elif not trials:
                study.add_trial(create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": first}))
            study.set_user_attr(PLAN, plan.model_dump(mode="json"))
    return Study(study, storage, url)


def open_study(url: str, name: str) -> Study:
    """Opens a study for a worker. Raises DataError where there is none of that name, ServiceUnavailableError."""
    storage = open_storage(url)
    with reaching(url):
        try:
            study = optuna.load_study(storage=storage, study_name=name)
        except KeyError:
            known = ", ".join(found.study_name for found in storage.get_all_studies()) or "none"
            raise DataError(f"study {name!r} is not in {public(url)} (there: {known}); create it with `tts tune`") from None
        study.pruner = pruner(_plan(study, url).config.tuning)
    return Study(study, storage, url)


def study_lock(folder: Path) -> Path:
    """The lock under which trials are handed out and taken back."""
    return folder / ".locks" / "study"


def _plan(study: optuna.Study, url: str) -> Plan:
    with reaching(url):
        values: Any = study.user_attrs.get(PLAN)
    if values is None:
        raise DataError(f"study {study.study_name!r} in {public(url)} was not made by `tts tune`")
    if values.get("format") != FORMAT:
        raise DataError(f"study {study.study_name!r} in {public(url)} has format {values.get('format')!r}, this version reads {FORMAT}")
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        raise DataError(
            f"study {study.study_name!r} in {public(url)} was made by another version: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}"
        ) from None


def _refuse_other(known: Plan, plan: Plan, name: str, url: str) -> None:
    travels = sqlite_file(url)
    moved = travels is not None and travels.resolve().parent == plan.folder
    if known.folder != plan.folder and known.folder.exists() and not moved:
        raise UsageError(f"study {name!r} keeps its trials in {known.folder}; give that folder, or choose another study")
    if different := known.differences(plan):
        raise UsageError(
            f"study {name!r} exists and its trials would not be comparable: {'; '.join(different)}; set it back, or choose another study"
        )


def _json(space: Space) -> dict[str, str]:
    return {name: distribution_to_json(distribution) for name, distribution in space.items()}


def _show(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
