"""Every statement, as builders that execute nothing.

Named parameters, one text for SQLite and PostgreSQL. The first half is compiled once and run by the writer's
driver; the second half is run by the async engine, which serves reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, Final, TypeAlias, cast

from sqlalchemy import (
    ColumnElement,
    Delete,
    Insert,
    Integer,
    Select,
    Update,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal_column,
    null,
    select,
    union_all,
    update,
)
from sqlalchemy.sql.base import Executable

from runlane.protocol.limits import MAX_PRIORITY
from runlane.protocol.states import FINAL, StateName, StateType

from ..orchestration.states import LEASABLE
from .records import RETRY_LANE, SCHEDULED_LANE
from .tables import broker, task_run, task_run_payload, task_run_state, worker_session

#: A statement of the writer, named by the function that builds it.
Query: TypeAlias = Callable[[], Executable]

#: Later than any due time.
NEVER: Final = 2**62
_ONE: Final[ColumnElement[int]] = literal_column("1", Integer)


def _p(name: str) -> Any:
    """A parameter. The underscore keeps it apart from the names that inserts and updates give their columns."""
    return cast("Any", bindparam(f"{name}_"))


def _const(value: StrEnum) -> ColumnElement[Any]:
    """A constant in the text itself: partial indexes are found by it, which a parameter would prevent."""
    return literal_column(f"'{value.value}'")


def _one_of(column: ColumnElement[Any], states: Iterable[StateType]) -> ColumnElement[bool]:
    return column.in_([_const(state) for state in sorted(states)])


def _is_held_as_given() -> ColumnElement[bool]:
    """The fence: this run, under this very lease."""
    return and_(
        task_run.c.id == _p("id"),
        task_run.c.attempt == _p("attempt"),
        task_run.c.session_id == _p("session_id"),
    )


# --- The writer's ---------------------------------------------------------------------------------------------


def insert_run() -> Insert:
    """Insert a run unless its id is there; the caller looks at the row count."""
    columns = list(task_run.c)
    values = select(*(_p(c.name) for c in columns)).where(~exists().where(task_run.c.id == _p("id")))
    return insert(task_run).from_select(columns, values)


def insert_payload() -> Insert:
    """Insert the parameters of a new run."""
    return insert(task_run_payload).values(task_run_id=_p("id"), parameters=_p("parameters"))


def insert_state() -> Insert:
    """Append to the state history."""
    return insert(task_run_state).values({c.name: _p(c.name) for c in task_run_state.c})


def read_hash() -> Executable:
    """Return the payload hash of a run."""
    return select(task_run.c.payload_hash).where(task_run.c.id == _p("id"))


def read_idempotent() -> Executable:
    """Return id and payload hash of the run that has an idempotency key."""
    return select(task_run.c.id, task_run.c.payload_hash).where(
        task_run.c.task_key == _p("task_key"),
        task_run.c.idempotency_key == _p("idempotency_key"),
        task_run.c.idempotency_key.is_not(None),
    )


def read_natural() -> Executable:
    """Return the id of the run without a flow run that has a client's own name."""
    t = task_run.c
    return select(t.id).where(
        t.task_key == _p("task_key"),
        t.dynamic_key == _p("dynamic_key"),
        t.flow_run_id.is_(None),
        t.dynamic_key != t.id,
    )


def holds_session() -> Executable:
    """Return a row if the session is this broker's at this epoch."""
    return select(_ONE).where(
        worker_session.c.id == _p("session_id"),
        worker_session.c.broker_id == _p("broker_id"),
        worker_session.c.epoch == _p("epoch"),
    )


def lease_run() -> Update:
    """Give a queued run to a session: PENDING, attempt + 1."""
    return (
        update(task_run)
        .where(
            task_run.c.id == _p("id"),
            task_run.c.state_type == _const(StateType.SCHEDULED),
            task_run.c.expires.is_(None) | (task_run.c.expires > _p("now")),
        )
        .values(
            state_type=_const(StateType.PENDING),
            state_name=_const(StateName.PENDING),
            state_id=_p("state_id"),
            state_timestamp=_p("timestamp"),
            session_id=_p("session_id"),
            attempt=task_run.c.attempt + _ONE,
            updated=_p("timestamp"),
        )
        .returning(
            task_run.c.attempt,
            task_run.c.task_key,
            task_run.c.timeout,
            task_run.c.expires,
            task_run.c.headers,
        )
    )


def read_parameters() -> Executable:
    """Return a run's parameters."""
    return select(task_run_payload.c.parameters).where(task_run_payload.c.task_run_id == _p("id"))


def expire_run() -> Update:
    """End a queued run whose start-by time has passed."""
    return (
        update(task_run)
        .where(
            task_run.c.id == _p("id"),
            task_run.c.state_type == _const(StateType.SCHEDULED),
            task_run.c.expires <= _p("now"),
        )
        .values(
            state_type=_const(StateType.CANCELLED),
            state_name=_const(StateName.EXPIRED),
            state_id=_p("state_id"),
            state_timestamp=_p("timestamp"),
            end_time=_p("timestamp"),
            updated=_p("timestamp"),
        )
        .returning(task_run.c.task_key, task_run.c.attempt)
    )


def start_run() -> Executable:
    """A worker has begun: RUNNING, at the time it said so, but after the state before."""
    t = task_run.c
    name = case(
        (t.failures > literal_column("0", Integer), _const(StateName.RETRYING)), else_=_const(StateName.RUNNING)
    )
    timestamp = case((t.state_timestamp < _p("at"), _p("at")), else_=t.state_timestamp + _ONE)
    return (
        update(task_run)
        .where(_is_held_as_given(), t.state_type == _const(StateType.PENDING))
        .values(
            state_type=_const(StateType.RUNNING),
            state_name=name,
            state_id=_p("state_id"),
            state_timestamp=timestamp,
            run_count=t.run_count + _ONE,
            start_time=func.coalesce(t.start_time, timestamp),
            updated=timestamp,
        )
        .returning(t.state_name, t.state_timestamp)
    )


def _lease_columns() -> Any:
    t = task_run.c
    return select(
        t.id,
        t.task_key,
        t.priority,
        t.due,
        t.state_type,
        t.state_timestamp,
        t.session_id,
        t.attempt,
        t.failures,
        t.losses,
        t.retries,
        t.retry_delay,
        t.retry_jitter,
        t.total_run_time,
    )


def read_lease() -> Executable:
    """Return what a decision on a run needs (see `operations.LeaseRow`)."""
    return _lease_columns().where(task_run.c.id == _p("id"))


def read_session_leases() -> Executable:
    """Return the same for all that a session holds."""
    return _lease_columns().where(task_run.c.session_id == _p("session_id")).order_by(task_run.c.id)


def end_lease() -> Update:
    """Move a run out of its lease, under the fence."""
    return (
        update(task_run)
        .where(_is_held_as_given(), _one_of(task_run.c.state_type, LEASABLE))
        .values(
            state_type=_p("state_type"),
            state_name=_p("state_name"),
            state_id=_p("state_id"),
            state_timestamp=_p("timestamp"),
            session_id=null(),
            lane=_p("lane"),
            due=_p("due"),
            failures=_p("failures"),
            losses=_p("losses"),
            end_time=_p("end_time"),
            total_run_time=_p("total_run_time"),
            updated=_p("timestamp"),
        )
    )


def write_outcome() -> Update:
    """Keep what a task returned or raised."""
    return (
        update(task_run_payload)
        .where(task_run_payload.c.task_run_id == _p("id"))
        .values(result=_p("result"), error=_p("error"))
    )


def find_report() -> Executable:
    """Return a row if this very lease has reported an end before (only reports carry both)."""
    s = task_run_state.c
    return select(_ONE).where(
        s.task_run_id == _p("id"),
        s.attempt == _p("attempt"),
        s.session_id == _p("session_id"),
        _one_of(s.type, FINAL) | (s.name == _const(StateName.AWAITING_RETRY)),
    )


def read_newest_state() -> Executable:
    """Return the time of the newest state of all: ids sort by time."""
    newest = select(func.max(task_run_state.c.id)).scalar_subquery()
    return select(task_run_state.c.timestamp).where(task_run_state.c.id == newest)


def insert_session() -> Insert:
    """Open a session."""
    return insert(worker_session).values({c.name: _p(c.name) for c in worker_session.c})


def read_session() -> Executable:
    """Return a session's epoch, client and token hash."""
    s = worker_session.c
    return select(s.epoch, s.client_id, s.token_hash).where(s.id == _p("session_id"))


def resume_session() -> Update:
    """Take a session up: compare the epoch, set the next."""
    s = worker_session.c
    return (
        update(worker_session)
        .where(s.id == _p("session_id"), s.epoch == _p("old_epoch"))
        .values(
            broker_id=_p("broker_id"),
            epoch=s.epoch + _ONE,
            updated=_p("timestamp"),
        )
    )


def delete_session() -> Delete:
    """End a session that is still at this epoch."""
    s = worker_session.c
    return delete(worker_session).where(s.id == _p("session_id"), s.epoch == _p("epoch"))


def insert_broker() -> Insert:
    """Register a broker process."""
    return insert(broker).values({c.name: _p(c.name) for c in broker.c})


def delete_brokers() -> Delete:
    """Forget brokers that ran on this database before (SQLite has one at a time)."""
    return delete(broker)


def adopt_sessions() -> Update:
    """Take over the sessions of brokers that ran on this database before."""
    return update(worker_session).values(broker_id=_p("broker_id"))


def beat() -> Update:
    """Say that a broker is alive."""
    return update(broker).where(broker.c.id == _p("broker_id")).values(heartbeat=_p("timestamp"))


def mark_commit() -> Update:
    """Number a transaction, so that its outcome can be looked up."""
    return update(broker).where(broker.c.id == _p("broker_id")).values(commit_number=_p("number"))


def read_commit() -> Executable:
    """Return the number of a broker's last committed transaction."""
    return select(broker.c.commit_number).where(broker.c.id == _p("broker_id"))


# --- The async engine's --------------------------------------------------------------------------------------

_RANGES: Final = tuple(
    (priority, lane) for priority in range(MAX_PRIORITY, -1, -1) for lane in (RETRY_LANE, SCHEDULED_LANE)
)


def _in_range(priority: int, lane: int) -> ColumnElement[bool]:
    t = task_run.c
    scheduled = t.state_type == _const(StateType.SCHEDULED)
    level = literal_column(str(priority), Integer), literal_column(str(lane), Integer)
    return and_(t.task_key == _p("task_key"), t.priority == level[0], t.lane == level[1], scheduled)


def _first_due() -> Executable:
    t = task_run.c
    ranges = [
        select(t.id, t.priority, t.lane, t.due)
        .where(_in_range(priority, lane), t.due <= _p("now"))
        .order_by(t.due, t.id)
        .limit(_p("limit"))
        .subquery()
        for priority, lane in _RANGES
    ]
    everything = union_all(*(select(r) for r in ranges)).subquery()
    return select(everything).limit(_p("limit"))


def _next_due() -> Executable:
    t = task_run.c
    ranges = [
        select(func.coalesce(func.min(t.due), literal_column(str(NEVER), Integer)).label("due")).where(
            _in_range(priority, lane), t.due > _p("now")
        )
        for priority, lane in _RANGES
    ]
    everything = union_all(*ranges).subquery()
    return select(func.min(everything.c.due))


#: The first `limit` runs of `task_key` that are due at `now`, in order. One index range per priority and lane: a
#: single range would read every future run of a high priority before it finds a due one of a lower.
FIRST_DUE: Final = _first_due()

#: When the first run of `task_key` after `now` comes due, or `NEVER`.
NEXT_DUE: Final = _next_due()


def first_due() -> Executable:
    """Return `FIRST_DUE`, for who compiles it once."""
    return FIRST_DUE


def next_due() -> Executable:
    """Return `NEXT_DUE`, for who compiles it once."""
    return NEXT_DUE


def read_run(run_id: str) -> Executable:
    """Return a run with its current state and payloads."""
    return read_runs().where(task_run.c.id == run_id)


def read_runs() -> Select[Any]:
    """Return all runs with their current states and payloads."""
    state = task_run_state.alias("state")
    return (
        select(
            *task_run.c,
            state.c.message.label("state_message"),
            state.c.due.label("state_due"),
            task_run_payload.c.parameters,
            task_run_payload.c.result,
            task_run_payload.c.error,
        )
        .join(state, state.c.id == task_run.c.state_id)
        .join(task_run_payload, task_run_payload.c.task_run_id == task_run.c.id)
    )


def read_outcomes(ids: Sequence[str]) -> Executable:
    """Return state and, where final, outcome of these runs."""
    state = task_run_state.alias("state")
    return (
        select(
            task_run.c.id,
            task_run.c.task_key,
            task_run.c.state_type,
            task_run.c.state_name,
            state.c.message,
            task_run_payload.c.result,
            task_run_payload.c.error,
        )
        .join(state, state.c.id == task_run.c.state_id)
        .join(task_run_payload, task_run_payload.c.task_run_id == task_run.c.id)
        .where(task_run.c.id.in_(ids))
    )


def read_history(run_id: str) -> Executable:
    """Return a run's states, oldest first."""
    s = task_run_state.c
    return select(task_run_state).where(s.task_run_id == run_id).order_by(s.timestamp)


def read_sessions() -> Executable:
    """Return all sessions."""
    s = worker_session.c
    return select(s.id, s.epoch, s.client_id)


def count_queued() -> Executable:
    """Count the runs that wait."""
    queued = task_run.c.state_type == _const(StateType.SCHEDULED)
    return select(func.count()).select_from(task_run).where(queued)


def count_leased() -> Executable:
    """Count the runs that sessions hold."""
    return select(func.count()).select_from(task_run).where(task_run.c.session_id.is_not(None))
