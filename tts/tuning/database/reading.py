"""Trials read in one statement.

Optuna reads them through the ORM with six (trials, parameters, values, two kinds of attributes, reports), each through a dozen layers, which
took two fifths of a worker's time (8 workers, TPE, PostgreSQL; Optuna 5.0). Here the six tables come as one result of uniform rows.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, text

_TRIAL, _PARAM, _VALUE, _USER, _SYSTEM, _REPORT = range(6)
"""Kinds of rows: the numbers with which the SELECTs below begin. Then: trial, number or place, name, text, value, begin, end."""
_ROWS = """
SELECT 0, trial_id, number, CAST(state AS CHAR(8)), NULL, NULL, datetime_start, datetime_complete FROM chosen
UNION ALL SELECT 1, t.trial_id, t.param_id, t.param_name, t.distribution_json, t.param_value, NULL, NULL
FROM chosen JOIN trial_params t ON t.trial_id = chosen.trial_id
UNION ALL SELECT 2, t.trial_id, t.objective, CAST(t.value_type AS CHAR(8)), NULL, t.value, NULL, NULL
FROM chosen JOIN trial_values t ON t.trial_id = chosen.trial_id
UNION ALL SELECT 3, t.trial_id, t.trial_user_attribute_id, t.key, t.value_json, NULL, NULL, NULL
FROM chosen JOIN trial_user_attributes t ON t.trial_id = chosen.trial_id
UNION ALL SELECT 4, t.trial_id, t.trial_system_attribute_id, t.key, t.value_json, NULL, NULL, NULL
FROM chosen JOIN trial_system_attributes t ON t.trial_id = chosen.trial_id
UNION ALL SELECT 5, t.trial_id, t.step, CAST(t.intermediate_value_type AS CHAR(8)), NULL, t.intermediate_value, NULL, NULL
FROM chosen JOIN trial_intermediate_values t ON t.trial_id = chosen.trial_id
"""


class TrialQuery:
    """The statements for trials of a study and for one trial, in the words of one database."""

    def __init__(self, dialect: str) -> None:
        known = {
            "postgresql": "trial_id = ANY (CAST(:ids AS INTEGER[]))",
            "sqlite": "trial_id IN (SELECT value FROM json_each(:ids))",
        }.get(dialect, "FIND_IN_SET(trial_id, :ids)")
        columns = "SELECT trial_id, number, state, datetime_start, datetime_complete FROM trials WHERE"
        self._list = {"postgresql": "{%s}", "sqlite": "[%s]"}.get(dialect, "%s")
        self._one = text(f"WITH chosen AS ({columns} trial_id = :id) {_ROWS}")
        self._changed = text(f"WITH chosen AS ({columns} study_id = :study AND (trial_id > :after OR {known})) {_ROWS}")

    def one(self, connection: Connection, trial_id: int) -> FrozenTrial:
        """The trial. Raises KeyError where there is none, as Optuna does."""
        found = _frozen(connection.execute(self._one, {"id": trial_id}))
        if not found:
            raise KeyError(models.NOT_FOUND_MSG)
        return found[0]

    def changed(self, connection: Connection, study_id: int, ids: Iterable[int], after: int) -> list[FrozenTrial]:
        """The study's trials with ids greater than `after`, and those of `ids`, by id."""
        listed = self._list % ",".join(str(number) for number in ids)
        return _frozen(connection.execute(self._changed, {"study": study_id, "after": after, "ids": listed}))


def _frozen(rows: Iterable[Sequence[Any]]) -> list[FrozenTrial]:
    parts: dict[int, list[list[Sequence[Any]]]] = defaultdict(lambda: [[] for _ in range(6)])
    for row in rows:
        parts[row[1]][row[0]].append(row)
    return [_trial(trial_id, kinds) for trial_id, kinds in sorted(parts.items())]


def _trial(trial_id: int, kinds: list[list[Sequence[Any]]]) -> FrozenTrial:
    ((_, _, number, state, _, _, begun, ended),) = kinds[_TRIAL]
    params = [(name, _distribution(distribution), value) for _, _, _, name, distribution, value, *_ in sorted(kinds[_PARAM], key=_order)]
    values = [_value(kind.strip(), value) for _, _, _, kind, _, value, *_ in sorted(kinds[_VALUE], key=_order)]
    return FrozenTrial(
        number=number,
        state=TrialState[state.strip()],
        value=None,
        values=values or None,
        datetime_start=_local(begun),
        datetime_complete=_local(ended),
        params={name: distribution.to_external_repr(value) for name, distribution, value in params},
        distributions={name: distribution for name, distribution, _ in params},
        user_attrs={row[3]: json.loads(row[4]) for row in sorted(kinds[_USER], key=_order)},
        system_attrs={row[3]: json.loads(row[4]) for row in sorted(kinds[_SYSTEM], key=_order)},
        intermediate_values={row[2]: _value(row[3].strip(), row[5]) for row in sorted(kinds[_REPORT], key=_order)},
        trial_id=trial_id,
    )


def _order(row: Sequence[Any]) -> int:
    place: int = row[2]
    return place


def _value(kind: str, value: float | None) -> float:
    known = {"INF_POS": float("inf"), "INF_NEG": float("-inf"), "NAN": float("nan")}
    return known[kind] if value is None else value


@lru_cache(maxsize=1024)
def _distribution(written: str) -> BaseDistribution:
    return json_to_distribution(written)


def _local(moment: datetime | str | None) -> datetime | None:
    """Optuna keeps UTC without saying so, and shows the zone of the machine without saying so. SQLite gives text."""
    if moment is None:
        return None
    read = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return read.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
