"""The study: created once, with everything its workers must agree on kept inside it."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.storages import get_storage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from pydantic import BaseModel, ConfigDict, ValidationError

import tts
from tts.config import OBJECTIVES, Config
from tts.config.load import flatten, override
from tts.errors import DataError, UsageError
from tts.storage import is_remote, prepare_folder
from tts.tuning.database.lock import study_lock
from tts.tuning.database.retry import OPENING_SECONDS, persistently
from tts.tuning.database.storage import create_tables, open_storage, public, sqlite_file
from tts.tuning.database.study_storage import StudyStorage
from tts.tuning.search.objective import Objective
from tts.tuning.search.space import Space, default_params, search_space
from tts.tuning.search.strategy import directions, pruner, sampler
from tts.tuning.source import source_fingerprint

logger = logging.getLogger(__name__)

FORMAT = 2
PLAN = "plan"
"""Name of the study's attribute that holds its Plan."""
BASELINE = 0
"""Number of the trial that has the configuration's own values."""

# What must stay the same for trials to be comparable; the searched knobs themselves are set by each trial.
_SECTIONS = ("text", "audio", "data", "model", *OBJECTIVES, "optimiser")
_KNOBS = (
    "training.seed",
    "training.precision",
    "recovery.max_skipped_updates",
    "recovery.divergence_factor",
    "recovery.divergence_steps",
    "recovery.aligned_diagonality",
    "recovery.collapse_share",
    "recovery.collapse_validations",
    "tuning.knobs",
    "tuning.conditions",
    "tuning.objective",
    "tuning.free_running_utterances",
    "tuning.steps",
    "tuning.validation_interval",
    "tuning.trial_restarts",
)
_REMEDIES = ("recovery.remedies", "recovery.probation_steps")
"""What matters beside these where a trial may restart."""

optuna.logging.set_verbosity(optuna.logging.WARNING)  # its lines about every trial repeat what the worker logs


class Plan(BaseModel):
    """What all workers of a study share."""

    model_config = ConfigDict(frozen=True)

    format: int
    features: str
    """Fingerprint of the feature store."""
    code: str
    """Fingerprint of the code that trains and judges."""
    version: str
    """Of the product that made the study."""
    space: dict[str, str]
    """Optuna's JSON of each distribution."""
    config: Config
    """The configuration below the searched knobs, and the budget."""
    folder: Path
    """Where trials leave their runs, the same for every worker, unless `tuning.runs_uri` says another place."""
    extended: dict[str, tuple[float, float]] = {}
    """Budgets that `tts study extend` changed: what the configuration said, and what holds instead until it says something else."""

    @staticmethod
    def of(config: Config, features: str, folder: Path) -> "Plan":
        """The plan of a new study. Raises UsageError for knobs, ranges, a sampler, a pruner or a place of runs that cannot be searched with."""
        pruner(config.tuning)
        space = search_space(config.tuning)
        sampler(config.tuning, BASELINE, space)
        runs = config.tuning.runs_uri
        if runs and not is_remote(runs):
            raise UsageError(
                f"tuning.runs_uri must be a prefix of an object store, such as s3://bucket/prefix, got {runs!r}; empty: the study's folder"
            )
        return Plan(
            format=FORMAT, features=features, code=source_fingerprint(), version=tts.__version__,
            space=_json(space), config=config, folder=folder.resolve(),
        )  # fmt: skip

    def keeping(self, extended: Mapping[str, tuple[float, float]]) -> "Plan":
        """This plan with the budgets that were extended since its configuration was written."""
        said = self.config.tuning
        kept = {name: (before, after) for name, (before, after) in extended.items() if getattr(said, name) == before}
        config = override(self.config, {f"tuning.{name}": after for name, (_, after) in kept.items()}, "the study's extension")
        return self.model_copy(update={"config": config, "extended": kept})

    def differences(self, other: "Plan") -> list[str]:
        """What makes trials under `other` incomparable with those under this plan, in words."""
        found = []
        if self.features != other.features:
            found.append(f"the features' fingerprint is {other.features}, the study's is {self.features}")
        ours, theirs = flatten(self.config), flatten(other.config)
        named = {*_KNOBS, *(_REMEDIES if self.config.tuning.trial_restarts else ())}
        decisive = [
            name for name in ours if (name.startswith(tuple(f"{section}." for section in _SECTIONS)) or name in named) and name not in self.space
        ]
        found += [f"{name} is {_show(theirs[name])}, the study's is {_show(ours[name])}" for name in decisive if ours[name] != theirs.get(name)]
        ranges = [name for name in self.space if name in other.space and self.space[name] != other.space[name]]
        found += [f"the search range of {name} is {other.space[name]}, the study's is {self.space[name]}" for name in ranges]
        return found


@dataclass(frozen=True)
class Study:
    """An open study: one to a process."""

    trials: optuna.Study
    storage: StudyStorage
    url: str = field(repr=False)
    """It may hold a password."""

    @property
    def name(self) -> str:
        """Its name in the database."""
        return self.trials.study_name

    @property
    def id(self) -> int:
        """The database's own name for it."""
        return self.trials._study_id  # noqa: SLF001  # Optuna has no public one

    @property
    def plan(self) -> Plan:
        """Read anew each time: another `tts tune` may have extended the study. Waits for a database that is away."""
        return persistently(self.read_plan, url=self.url)

    def read_plan(self) -> Plan:
        """The plan, for a caller that does its own waiting. Raises DataError, SQLAlchemyError."""
        return _plan(self.trials, self.url)

    @property
    def space(self) -> Space:
        """The distributions of the searched knobs, as the study was made with."""
        return space_of(self.plan)

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return Objective(self.plan.config.tuning.objective)

    def forget(self) -> None:
        """Drops what was read of the trials: a transaction that was rolled back may have left some in Optuna's cache that never were."""
        self.trials._storage = get_storage(self.storage)  # noqa: SLF001


def space_of(plan: Plan) -> Space:
    """The distributions that a plan holds."""
    return {name: json_to_distribution(text) for name, text in plan.space.items()}


def create_study(url: str, name: str, plan: Plan) -> Study:
    """Creates schema and study with the configuration's own values as its first trial, or opens and extends the one that is there.

    Any number of processes may do so at once.

    Raises:
        UsageError: The study that is there was made with other features, code, knobs or ranges, or not by us; or there is no such database.
        DataError, CannotWriteError, ServiceUnavailableError: The database, or the study's folder.
    """
    first = default_params(plan.config, space_of(plan))
    prepare_folder(plan.folder)
    create_tables(url)
    storage = open_storage(url)
    study = persistently(lambda: _create(storage, url, name, plan, first), url=url, seconds=OPENING_SECONDS)
    study.pruner = pruner(plan.config.tuning)
    return Study(study, storage, url)


def open_study(url: str, name: str) -> Study:
    """Opens a study for a worker. Raises DataError where there is none of that name, UsageError, ServiceUnavailableError."""
    storage = open_storage(url)
    study = persistently(lambda: _load(storage, url, name), url=url, seconds=OPENING_SECONDS)
    return Study(study, storage, url)


def _create(storage: StudyStorage, url: str, name: str, plan: Plan, first: dict[str, Any]) -> optuna.Study:
    wanted = directions(plan.config.tuning)
    with study_lock(url, name):
        study = optuna.create_study(
            storage=storage, study_name=name, directions=[StudyDirection[word.upper()] for word in wanted], load_if_exists=True
        )
        trials = study.get_trials(deepcopy=False)
        if PLAN in study.user_attrs:
            known = _plan(study, url)
            _refuse_other(known, plan, name, url)
            plan = plan.keeping(known.extended)
        elif not plan.config.tuning.runs_uri and (plan.folder / "trials").exists():
            raise UsageError(f"{plan.folder} holds the trials of another study than {name!r}; choose another folder, or remove its trials/")
        elif any(trial.state != TrialState.WAITING for trial in trials):
            raise UsageError(f"study {name!r} in {public(url)} was not made by `tts tune`; choose another --study or --storage")
        elif _words(study) != wanted:
            raise UsageError(
                f"study {name!r} in {public(url)} exists with the directions {', '.join(_words(study))}, this one needs "
                f"{', '.join(wanted)}; choose another --study or --storage"
            )
        elif not trials:
            study.add_trial(create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": first}))
        study.set_user_attr(PLAN, plan.model_dump(mode="json"))
    return study


def _load(storage: StudyStorage, url: str, name: str) -> optuna.Study:
    try:
        study = optuna.load_study(storage=storage, study_name=name)
    except KeyError:
        known = ", ".join(found.study_name for found in storage.get_all_studies()) or "none"
        raise DataError(f"study {name!r} is not in {public(url)} (there: {known}); create it with `tts tune`") from None
    study.pruner = pruner(_plan(study, url).config.tuning)
    return study


def _plan(study: optuna.Study, url: str) -> Plan:
    try:
        values: Any = study.user_attrs.get(PLAN)
    except KeyError:
        raise DataError(f"study {study.study_name!r} was deleted from {public(url)}") from None
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
    elsewhere = known.folder != plan.folder and not moved and not known.config.tuning.runs_uri
    if elsewhere and known.folder.exists():
        raise UsageError(f"study {name!r} keeps its trials in {known.folder}; give that folder, or choose another study")
    if elsewhere:
        logger.warning("study %s kept its trials in %s, which is not here: those under way begin again in %s", name, known.folder, plan.folder)
    if known.code != plan.code:
        raise UsageError(
            f"study {name!r} was made by the code of version {known.version} ({known.code}), this is version {plan.version} ({plan.code}): trials "
            "would not be comparable; go on with it from the installation that made it, or start another study"
        )
    if different := known.differences(plan):
        raise UsageError(
            f"study {name!r} exists and its trials would not be comparable: {'; '.join(different)}; set it back, or choose another study"
        )


def _words(study: optuna.Study) -> list[str]:
    return [direction.name.lower() for direction in study.directions]


def _json(space: Space) -> dict[str, str]:
    return {name: distribution_to_json(distribution) for name, distribution in space.items()}


def _show(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
