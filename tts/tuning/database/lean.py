"""Optuna's storage with the same tables and fewer statements.

Each of Optuna's reads and writes goes through the ORM in a transaction of its own, with a question before each answer: a trial with six
parameters and ten reports takes over 200 statements. What a worker does often takes one statement here. Inside a `study_lock` on PostgreSQL
all of it, Optuna's own operations included, belongs to the lock's transaction.
"""

import json
import threading
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Engine, Select, bindparam, func, select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from tts.tuning.database.address import canonical
from tts.tuning.database.engine import checked, engine_options
from tts.tuning.database.lock import joined, share
from tts.tuning.database.reading import TrialQuery

_Study: Any = models.StudyModel.__table__
_StudyAttribute: Any = models.StudyUserAttributeModel.__table__
_Trial: Any = models.TrialModel.__table__
_Param: Any = models.TrialParamModel.__table__

_ID = select(_Study.c.study_id).where(_Study.c.study_name == bindparam("name"))
_NAME = select(_Study.c.study_name).where(_Study.c.study_id == bindparam("id"))
_ATTRIBUTES = (
    select(_Study.c.study_id, _StudyAttribute.c.key, _StudyAttribute.c.value_json)
    .select_from(_Study.outerjoin(_StudyAttribute))
    .where(_Study.c.study_id == bindparam("id"))
)
_LOCK = select(_Trial.c.state).where(_Trial.c.trial_id == bindparam("id")).with_for_update(key_share=True)


class LeanStorage(RDBStorage):
    """Behaves as Optuna's, to the trial. One to a process, never forked; its methods may be called from several threads."""

    def __init__(self, url: str) -> None:
        url = canonical(url)
        # Optuna fills a template into the URL: braces of a password are no fields.
        super().__init__(url.replace("{", "{{").replace("}", "}}"), engine_options(url), skip_table_creation=True)
        self._url = url
        self._drafts = threading.local()
        self.scoped_session = _Sessions(url, self.engine, self._flush)
        dialect: Any = {"postgresql": postgresql, "sqlite": sqlite}.get(self.engine.dialect.name, mysql)
        self._insert = dialect.insert
        self._is_mysql = dialect is mysql
        self._query = TrialQuery(self.engine.dialect.name)
        self._alone = checked(self.engine).execution_options(isolation_level="AUTOCOMMIT")
        """For a statement that is a transaction by itself: nothing to begin, nothing to commit."""
        share(url, self.engine)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """The trial, read anew. Raises KeyError."""
        with self._single() as connection:
            return self._query.one(connection, trial_id)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Raises KeyError where there is no such study."""
        return int(self._found(_ID, {"name": study_name}))

    def get_study_name_from_id(self, study_id: int) -> str:
        """Raises KeyError where there is no such study."""
        return str(self._found(_NAME, {"id": study_id}))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Raises KeyError where there is no such study."""
        with self._single() as connection:
            rows = connection.execute(_ATTRIBUTES, {"id": study_id}).all()
        if not rows:
            raise KeyError(models.NOT_FOUND_MSG)
        return {key: json.loads(value) for _, key, value in rows if key is not None}

    def _get_trials(
        self, study_id: int, states: Container[TrialState] | None, included_trial_ids: set[int], trial_id_greater_than: int
    ) -> list[FrozenTrial]:
        with self._single() as connection:
            trials = self._query.changed(connection, study_id, included_trial_ids, trial_id_greater_than)
        return [trial for trial in trials if states is None or trial.state in states]

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        if template_trial is not None or self._is_mysql:
            return super()._create_new_trial(study_id, template_trial)
        begun = datetime.now(UTC)
        with self._writing() as connection:
            # As in Optuna, the study's row orders those that create trials: numbers are counts.
            if connection.execute(_NAME.with_for_update(), {"id": study_id}).scalar() is None:
                raise KeyError(models.NOT_FOUND_MSG)
            number = select(func.count()).select_from(_Trial).where(_Trial.c.study_id == study_id).scalar_subquery()
            row = {"study_id": study_id, "number": number, "state": TrialState.RUNNING, "datetime_start": begun.replace(tzinfo=None)}
            made = connection.execute(_Trial.insert().values(row).returning(_Trial.c.trial_id, _Trial.c.number)).one()
        return FrozenTrial(
            number=made.number, state=TrialState.RUNNING, value=None, values=None, trial_id=made.trial_id,
            datetime_start=begun.astimezone().replace(tzinfo=None), datetime_complete=None,
            params={}, distributions={}, user_attrs={}, system_attrs={}, intermediate_values={},
        )  # fmt: skip

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        if previous_distribution is None or self._is_mysql:
            super()._set_trial_param(trial_id, param_name, param_value_internal, distribution, previous_distribution)
            return
        check_distribution_compatibility(previous_distribution, distribution)
        row = {"trial_id": trial_id, "param_name": param_name, "param_value": param_value_internal}
        self._drafts.__dict__.setdefault("params", []).append({**row, "distribution_json": distribution_to_json(distribution)})

    def _set_trial_param_without_commit(self, session: Session, trial_id: int, *arguments: Any, **options: Any) -> None:
        self._permit(session.connection(), trial_id)
        super()._set_trial_param_without_commit(session, trial_id, *arguments, **options)

    def _flush(self) -> None:
        """Writes the parameters that this thread has set since it last did anything else here: all in one statement."""
        rows = self._drafts.__dict__.pop("params", None)
        if rows is None:
            return
        with self._writing() as connection:
            for trial_id in sorted({row["trial_id"] for row in rows}):
                self._permit(connection, trial_id)
            connection.execute(self._insert(_Param).on_conflict_do_nothing(), rows)

    def _permit(self, connection: Connection, trial_id: int) -> None:
        """Locks the trial's row until the transaction ends, and refuses to write to a trial that has ended."""
        self.check_trial_is_updatable(trial_id, self._state(connection, trial_id))

    def _state(self, connection: Connection, trial_id: int) -> TrialState:
        """The trial's state. Its row stays locked to the end of the transaction, so that neither state nor lease can change."""
        state: TrialState | None = connection.execute(_LOCK, {"id": trial_id}).scalar()
        if state is None:
            raise KeyError(models.NOT_FOUND_MSG)
        return state

    def _found(self, statement: Select[Any], values: Mapping[str, Any]) -> Any:
        with self._single() as connection:
            found = connection.execute(statement, values).scalar()
        if found is None:
            raise KeyError(models.NOT_FOUND_MSG)
        return found

    @contextmanager
    def _single(self) -> Iterator[Connection]:
        """A connection for one statement."""
        self._flush()
        connection = joined(self._url)
        if connection is not None:
            yield connection
            return
        with self._alone.connect() as own:
            yield own

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction, the lock's own inside a `study_lock`."""
        self._flush()
        connection = joined(self._url)
        if connection is not None:
            yield connection
            return
        with self.engine.connect() as own, own.begin():
            if self.engine.dialect.name == "sqlite":
                # One that reads first could not go on to write (SQLITE_BUSY_SNAPSHOT) once another has written in between.
                own.exec_driver_sql("BEGIN IMMEDIATE")
            yield own


class _Sessions(scoped_session[Session]):
    """For Optuna's own operations: in the lock's transaction inside a `study_lock`."""

    def __init__(self, url: str, engine: Engine, before: Callable[[], None]) -> None:
        super().__init__(sessionmaker(bind=engine))
        self._url, self._before = url, before

    def __call__(self, **options: Any) -> Session:
        self._before()
        connection = joined(self._url)
        if connection is None:
            return super().__call__(**options)
        # What fails is undone by itself: the lock, and what was done before under it, stay.
        return Session(bind=connection, join_transaction_mode="create_savepoint")
