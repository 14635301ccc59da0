"""A study as one file: exported whole, and imported into another study as what its sampler starts from.

The file is JSON: an object with `format` "tts-study" and `version` 1 and the fields of Archive. It holds no number that is not finite (null
stands for it) and no password: one inside a URL, wherever it stands, is written as ***.

Imported trials (attribute `imported`: the name of their study) have numbers of their own, are no part of the budget and never the best. Only
what can be compared is taken: a trial whose values for the searched knobs lie in this study's space, that differs in no other searched knob,
and whose value is of this study's objective, by the objective or by its metrics.
"""

import hashlib
import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial
from pydantic import AwareDatetime, BaseModel, ConfigDict, FiniteFloat, ValidationError

from tts.errors import DataError
from tts.storage import write_text
from tts.tuning.database.retry import persistently
from tts.tuning.database.storage import public
from tts.tuning.report.records import utc
from tts.tuning.study import PLAN, Study

FORMAT: Literal["tts-study"] = "tts-study"
VERSION = 1
ORIGIN = "origin"
"""An imported trial's attribute: what tells it from every other trial, wherever it goes."""
_PASSWORD = re.compile(r"(://[^/@:\s\"']*):[^@/\s\"']+@")


class ArchivedTrial(BaseModel):
    """A trial with everything that the study holds of it."""

    model_config = ConfigDict(frozen=True)

    number: int
    state: Literal["complete", "pruned", "fail", "running", "waiting"]
    values: list[FiniteFloat]
    """One for each objective; empty unless completed."""
    params: dict[str, bool | int | FiniteFloat | str]
    distributions: dict[str, str]
    """Optuna's JSON, by the knob."""
    intermediate: list[tuple[int, FiniteFloat | None]]
    """Step and value of each report; null where it was not finite."""
    attributes: dict[str, Any]
    """Ours: worker, metrics, reason, log, interruptions and the like."""
    system_attributes: dict[str, Any]
    """Optuna's."""
    start: AwareDatetime | None
    end: AwareDatetime | None

    @property
    def origin(self) -> str:
        """The same wherever the trial was imported to."""
        known = self.attributes.get(ORIGIN)
        if isinstance(known, str):
            return known
        begun = self.start and self.start.isoformat(timespec="seconds")  # some databases keep no more
        content = [self.state, self.values, sorted(self.params.items()), self.intermediate, begun]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


class Archive(BaseModel):
    """The file."""

    model_config = ConfigDict(frozen=True)

    format: Literal["tts-study"]
    version: Literal[1]
    optuna: str
    """Version."""
    exported: AwareDatetime
    study: str
    """Name."""
    storage: str
    directions: list[Literal["minimize", "maximize"]]
    objectives: list[str]
    """Names, in the order of `values`."""
    plan: dict[str, Any]
    """What the study's workers share: features, space, configuration."""
    attributes: dict[str, Any]
    """Other attributes of the study."""
    trials: list[ArchivedTrial]


def export_study(study: Study, path: Path) -> Archive:
    """Writes the study to a file. Raises CannotWriteError, ServiceUnavailableError."""
    archive = persistently(lambda: read_study(study), url=study.url)
    write_text(path, json.dumps(archive.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return archive


def read_study(study: Study) -> Archive:
    """The study as it stands."""
    attributes = study.trials.user_attrs
    return Archive(
        format=FORMAT,
        version=VERSION,
        optuna=optuna.__version__,
        exported=datetime.now(UTC),
        study=study.trials.study_name,
        storage=public(study.url),
        directions=[direction.name.lower() for direction in study.trials.directions],
        objectives=list(study.objective.names),
        plan=_clean(attributes[PLAN]),
        attributes=_clean({name: value for name, value in attributes.items() if name != PLAN}),
        trials=[archived(trial) for trial in study.trials.get_trials(deepcopy=False)],
    )


def archived(trial: FrozenTrial) -> ArchivedTrial:
    """A trial of Optuna's as the file has it."""
    return ArchivedTrial(
        number=trial.number,
        state=trial.state.name.lower(),
        values=list(trial.values or []),
        params=trial.params,
        distributions={name: distribution_to_json(distribution) for name, distribution in trial.distributions.items()},
        intermediate=[(step, value if math.isfinite(value) else None) for step, value in sorted(trial.intermediate_values.items())],
        attributes=_clean(trial.user_attrs),
        system_attributes=_clean(trial.system_attrs),
        start=utc(trial.datetime_start),
        end=utc(trial.datetime_complete),
    )


def read_archive(path: Path) -> Archive:
    """A file that `export_study` wrote. Raises DataError, with the field that is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); expected a file made by `tts study export`") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path} is not an exported study; expected a file made by `tts study export`")
    if content.get("version") != VERSION:
        raise DataError(f"{path} has version {content.get('version')!r} of the format, this program reads {VERSION}; export the study with it")
    try:
        return Archive.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}; export the study again") from None


def _clean(value: Any) -> Any:
    """JSON without numbers that are not finite and without passwords."""
    if isinstance(value, dict):
        return {str(name): _clean(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _PASSWORD.sub(r"\1:***@", value) if isinstance(value, str) else value
