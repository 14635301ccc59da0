"""The study in its database: Optuna's tables, written in whole operations that only the attempt holding a trial's lease may do.

Optuna writes a trial in many small transactions that anyone may do who knows its number. Here an operation is one transaction: it locks the
trial's row, checks that the trial is RUNNING and that its attribute `lease` is the caller's, and writes. A worker that was given up for dead
and comes back finds its lease gone and can spoil nothing.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, and_, bindparam, select

from tts.tuning.database.failure import LeaseLostError
from tts.tuning.database.lean import LeanStorage

LEASE = "lease"
"""Name of the attribute that says which attempt may write."""

_Trial: Any = models.TrialModel.__table__
_Attribute: Any = models.TrialUserAttributeModel.__table__
_SystemAttribute: Any = models.TrialSystemAttributeModel.__table__
_Report: Any = models.TrialIntermediateValueModel.__table__
_Value: Any = models.TrialValueModel.__table__
_Beat: Any = models.TrialHeartbeatModel.__table__

_HOLDER = select(_Attribute.c.value_json).where(_Attribute.c.trial_id == bindparam("id"), _Attribute.c.key == LEASE)


class StudyStorage(LeanStorage):
    """Optuna's storage with the operations of an attempt. One to a process, never forked; its methods may be called from several threads.

    Inside a `study_lock` on PostgreSQL the calling thread's operations are part of the lock's transaction. None of them retries by itself:
    all may be repeated, so `persistently` goes around them.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._leases: dict[int, str] = {}
        """Of the trials that this process signed or adopted."""
        self._report = self._fenced_report()

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """The trial, read anew. Raises KeyError where there is none, LeaseLostError if this process had signed it."""
        try:
            return super().get_trial(trial_id)
        except KeyError:
            if (lease := self._leases.get(trial_id)) is None:
                raise
            raise LeaseLostError(trial_id, lease) from None

    def sign(self, trial_id: int, lease: str, attributes: Mapping[str, Any]) -> None:
        """Makes a RUNNING trial the attempt's, with a first sign of life. The caller holds the study's lock. Raises LeaseLostError."""
        with self._writing() as connection:
            if self._state(connection, trial_id) != TrialState.RUNNING:
                raise LeaseLostError(trial_id, lease)
            self._note(connection, trial_id, {**attributes, LEASE: lease})
            self._beat(connection, trial_id)
        self.adopt(trial_id, lease)

    def adopt(self, trial_id: int, lease: str) -> None:
        """Fences what Optuna writes about a trial, its values above all, by a lease that was signed before."""
        self._leases[trial_id] = lease

    def report(self, trial_id: int, lease: str, step: int, value: float, attributes: Mapping[str, Any] = {}, marks: Mapping[str, Any] = {}) -> None:
        """Keeps an intermediate value; one of the same step takes its place. `marks` are the pruner's own attributes. Raises LeaseLostError."""
        kept, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        row = {"id": trial_id, "lease": json.dumps(lease), "step": step, "value": kept, "kind": kind}
        with self._writing() if attributes or marks else self._single() as connection:
            if not connection.execute(self._report, row).rowcount:
                raise LeaseLostError(trial_id, lease)
            self._note(connection, trial_id, attributes)
            self._note(connection, trial_id, marks, _SystemAttribute)

    def note(self, trial_id: int, lease: str, attributes: Mapping[str, Any]) -> None:
        """Sets attributes. Raises LeaseLostError."""
        with self._fenced(trial_id, lease) as connection:
            self._note(connection, trial_id, attributes)

    def finish(self, trial_id: int, lease: str, state: TrialState, values: Sequence[float] | None, attributes: Mapping[str, Any]) -> None:
        """Ends the trial; again by the same lease: nothing happens. Raises LeaseLostError; ValueError for a value that is not a number."""
        if not state.is_finished() or (state == TrialState.COMPLETE) > (values is not None):
            raise ValueError(f"a trial ends COMPLETE with values, PRUNED or FAIL, got {state.name} and {values}")
        if any(math.isnan(value) for value in values or ()):
            raise ValueError(f"a trial's values must be numbers, got {values}")
        with self._writing() as connection:
            known = self._known(connection, trial_id, lease)
            if connection.execute(_HOLDER, {"id": trial_id}).scalar() != json.dumps(lease):
                raise LeaseLostError(trial_id, lease)
            if known.is_finished():
                return
            if known != TrialState.RUNNING:
                raise LeaseLostError(trial_id, lease)
            self._note(connection, trial_id, attributes)
            self._end(connection, trial_id, state, values)
        self._leases.pop(trial_id, None)

    def release(self, trial_id: int, attributes: Mapping[str, Any], *, lease: str | None) -> bool:
        """Lets a RUNNING trial wait for another attempt; whether it did, False for one that waits already or, without lease, is finished.

        `lease` None takes it from whoever has it: the caller holds the study's lock. Raises LeaseLostError.
        """
        with self._writing() as connection:
            state = self._known(connection, trial_id, lease)
            if state == TrialState.WAITING or (lease is None and state != TrialState.RUNNING):
                return False
            held = connection.execute(_HOLDER, {"id": trial_id}).scalar()
            if lease is not None and (state != TrialState.RUNNING or held != json.dumps(lease)):
                raise LeaseLostError(trial_id, lease)
            self._note(connection, trial_id, attributes)
            connection.execute(_Attribute.delete().where(_Attribute.c.trial_id == trial_id, _Attribute.c.key == LEASE))
            connection.execute(_Beat.delete().where(_Beat.c.trial_id == trial_id))
            connection.execute(_Trial.update().where(_Trial.c.trial_id == trial_id).values(state=TrialState.WAITING))
        self._leases.pop(trial_id, None)
        return True

    def fail(self, trial_id: int, attributes: Mapping[str, Any]) -> bool:
        """Gives a RUNNING trial up; whether it did, False for one that was handed back or finished. The caller holds the study's lock."""
        with self._writing() as connection:
            if self._state(connection, trial_id) != TrialState.RUNNING:
                return False
            self._note(connection, trial_id, attributes)
            connection.execute(_Attribute.delete().where(_Attribute.c.trial_id == trial_id, _Attribute.c.key == LEASE))
            self._end(connection, trial_id, TrialState.FAIL, None)
        self._leases.pop(trial_id, None)
        return True

    def beat(self, trial_id: int, lease: str) -> bool:
        """A sign of life now, by the database's clock; False: the lease is lost."""
        try:
            with self._fenced(trial_id, lease) as connection:
                self._beat(connection, trial_id)
        except LeaseLostError:
            return False
        return True

    def stale(self, study_id: int, seconds: float) -> list[int]:
        """Ids of RUNNING trials without a sign of life for that long by the database's clock, or that nobody ever signed."""
        old = sqlalchemy.or_(_Beat.c.heartbeat.is_(None), self._age() > seconds)
        running = and_(_Trial.c.study_id == study_id, _Trial.c.state == TrialState.RUNNING)
        found = select(_Trial.c.trial_id).select_from(_Trial.outerjoin(_Beat)).where(running, old).order_by(_Trial.c.trial_id)
        with self._single() as connection:
            return [int(trial) for trial in connection.execute(found).scalars()]

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's; for a trial that this process signed, fenced. Raises LeaseLostError."""
        with self._writing() as connection:
            self._permit(connection, trial_id)
            self._note(connection, trial_id, {key: value})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's, which samplers call; for a trial that this process signed, fenced. Raises LeaseLostError."""
        with self._writing() as connection:
            self._permit(connection, trial_id)
            self._note(connection, trial_id, {key: value}, _SystemAttribute)

    def clock(self) -> float:
        """The database's clock, in seconds since 1970: the same for everybody who asks."""
        with self._single() as connection:
            return float(connection.execute(select(self._seconds())).scalar_one())

    # What an operation consists of.

    @contextmanager
    def _fenced(self, trial_id: int, lease: str) -> Iterator[Connection]:
        with self._writing() as connection:
            self._check(connection, trial_id, lease)
            yield connection

    def _check(self, connection: Connection, trial_id: int, lease: str) -> None:
        state = self._known(connection, trial_id, lease)
        if state != TrialState.RUNNING or connection.execute(_HOLDER, {"id": trial_id}).scalar() != json.dumps(lease):
            raise LeaseLostError(trial_id, lease)

    def _known(self, connection: Connection, trial_id: int, lease: str | None) -> TrialState:
        """The trial's state, locked. One whose study was deleted is nobody's any more."""
        try:
            return self._state(connection, trial_id)
        except KeyError:
            raise LeaseLostError(trial_id, lease or "none") from None

    def _permit(self, connection: Connection, trial_id: int) -> None:
        lease = self._leases.get(trial_id)
        if lease is None:
            super()._permit(connection, trial_id)
        else:
            self._check(connection, trial_id, lease)

    def _fenced_report(self) -> Any:
        """One statement that looks for the lease and writes. Both rows are locked: what another moves meanwhile is seen moved."""
        mine = and_(_Trial.c.trial_id == bindparam("id"), _Trial.c.state == TrialState.RUNNING)
        held = and_(_Attribute.c.trial_id == _Trial.c.trial_id, _Attribute.c.key == LEASE, _Attribute.c.value_json == bindparam("lease"))
        columns = (_Report.c.trial_id, _Report.c.step, _Report.c.intermediate_value, _Report.c.intermediate_value_type)
        values = [bindparam(name, type_=column.type) for name, column in zip(("step", "value", "kind"), columns[1:], strict=True)]
        fence = select(_Trial.c.trial_id, *values).join_from(_Trial, _Attribute, held).where(mine)
        insert = self._insert(_Report).from_select(columns, fence.with_for_update(key_share=True, of=(_Trial, _Attribute)))
        upsert = self._or_update(insert, ("trial_id", "step"), ("intermediate_value", "intermediate_value_type"))
        return upsert.execution_options(preserve_rowcount=True)  # no row: not ours

    def _note(self, connection: Connection, trial_id: int, attributes: Mapping[str, Any], table: Any = _Attribute) -> None:
        rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]
        if rows:
            self._put(connection, table, ("trial_id", "key"), rows)

    def _beat(self, connection: Connection, trial_id: int) -> None:
        self._put(connection, _Beat, ("trial_id",), [{"trial_id": trial_id}], heartbeat=self._now())

    def _put(self, connection: Connection, table: Any, unique: tuple[str, ...], rows: list[dict[str, Any]], **computed: Any) -> None:
        """Inserts rows, or updates those that are there."""
        insert = self._insert(table).values(computed) if computed else self._insert(table)
        names = [name for name in (*rows[0], *computed) if name not in unique]
        connection.execute(self._or_update(insert, unique, names), rows if len(rows) > 1 else rows[0])

    def _or_update(self, insert: Any, unique: Sequence[str], names: Sequence[str]) -> Any:
        if self._is_mysql:
            return insert.on_duplicate_key_update({name: insert.inserted[name] for name in names})
        return insert.on_conflict_do_update(index_elements=unique, set_={name: insert.excluded[name] for name in names})

    def _end(self, connection: Connection, trial_id: int, state: TrialState, values: Sequence[float] | None) -> None:
        rows = []
        for objective, value in enumerate(values or ()):
            kept, kind = models.TrialValueModel.value_to_stored_repr(float(value))
            rows.append({"trial_id": trial_id, "objective": objective, "value": kept, "value_type": kind})
        if rows:
            self._put(connection, _Value, ("trial_id", "objective"), rows)
        ended = {"state": state, "datetime_complete": datetime.now(UTC).replace(tzinfo=None)}  # as Optuna keeps it: UTC without saying so
        connection.execute(_Trial.update().where(_Trial.c.trial_id == trial_id).values(ended))

    def _now(self) -> Any:
        """The database's clock, UTC. PostgreSQL's now() is when the transaction began, before it waited for a lock."""
        return {
            "postgresql": sqlalchemy.text("clock_timestamp() AT TIME ZONE 'UTC'"),
            "sqlite": sqlalchemy.text("strftime('%Y-%m-%d %H:%M:%f', 'now')"),
        }.get(self.engine.dialect.name, sqlalchemy.text("UTC_TIMESTAMP()"))

    def _seconds(self) -> Any:
        """The database's clock, in seconds since 1970."""
        return {
            "postgresql": sqlalchemy.literal_column("EXTRACT(EPOCH FROM clock_timestamp())"),
            "sqlite": sqlalchemy.literal_column("(julianday('now') - 2440587.5) * 86400"),
        }.get(self.engine.dialect.name, sqlalchemy.literal_column("UNIX_TIMESTAMP(NOW(6))"))

    def _age(self) -> Any:
        """Seconds since the last sign of life."""
        return {
            "postgresql": sqlalchemy.literal_column("EXTRACT(EPOCH FROM clock_timestamp() AT TIME ZONE 'UTC' - heartbeat)"),
            "sqlite": sqlalchemy.literal_column("(julianday('now') - julianday(heartbeat)) * 86400"),
        }.get(self.engine.dialect.name, sqlalchemy.literal_column("TIMESTAMPDIFF(SECOND, heartbeat, UTC_TIMESTAMP())"))
