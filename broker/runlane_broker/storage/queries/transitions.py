"""The writer's statements on runs of either kind: decide, change, delete; concurrency slots, cached results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Delete,
    Insert,
    Update,
    case,
    delete,
    exists,
    func,
    insert,
    null,
    select,
    update,
)
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import StateType

from ..tables import (
    FLOW_RUN,
    TASK_RUN,
    RunKind,
    concurrency_limit,
    concurrency_slot,
    deployment,
    flow,
    flow_run,
    flow_run_payload,
    flow_run_state,
    task_run,
    task_run_cache,
    task_run_state,
    worker_session,
)
from .base import ONE, const, param

#: What a decision on a run needs of its row. A column that a kind of runs does not have is null.
DECISION_COLUMNS: Final = (
    "id", "task_key", "priority", "lane", "due", "state_id", "state_type", "state_name", "state_timestamp",
    "session_id", "attempt", "failures", "run_count", "flow_run_run_count", "retries", "retry_delay",
    "retry_jitter", "tags", "expected_start_time", "start_time", "end_time", "total_run_time", "flow_run_id",
    "deployment_id", "infrastructure_pid", "withheld", "retry_type", "work_queue_id",
)  # fmt: skip

#: What a decision writes into it, beside the state.
_WRITTEN: Final = (
    "state_id", "state_type", "state_name", "session_id", "lane", "due", "failures", "run_count",
    "flow_run_run_count", "expected_start_time", "start_time", "end_time", "total_run_time", "withheld",
    "retry_type",
)  # fmt: skip

#: What may be changed of a run's row and payload, by kind of runs.
_CHANGEABLE: Final = {
    TASK_RUN.name: ("name",),
    FLOW_RUN.name: (
        "name", "tags", "flow_version", "infrastructure_pid", "retries", "retry_delay", "retry_jitter",
        "parameters", "job_variables",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class RunStatements:
    """The statements on one kind of runs."""

    kind: RunKind

    def read(self) -> Executable:
        """Return a run as a decision needs it, with its current state and whether an outcome is stored."""
        run, state, payload = self.kind.run.c, self.kind.state, self.kind.payload
        own = [run[name] if name in run else null().label(name) for name in DECISION_COLUMNS]
        outcome = [payload.c[n].is_not(None) if n in payload.c else null().label(n) for n in ("result", "error")]
        return (
            select(*own, self._dialect(), state.c.message, state.c.due, state.c.details, state.c.data, *outcome)
            .join_from(self.kind.run, state, state.c.id == run.state_id)
            .join(payload, self.kind.run_of_payload == run.id)
            .where(run.id == param("id"))
        )

    def _dialect(self) -> ColumnElement[Any]:
        """How the session talks that holds the run."""
        if "session_id" not in self.kind.run.c:
            return null()
        session = worker_session.c
        held_by = session.id == self.kind.run.c.session_id
        return select(session.dialect).where(held_by).scalar_subquery()

    def write(self) -> Update:
        """Write a decision, if the run is in the state it was decided on. One that starts is claimed no more."""
        run = self.kind.run.c
        values: dict[str, Any] = {name: param(name) for name in _WRITTEN if name in run}
        if self.kind is FLOW_RUN:
            waits = param("state_type") == const(StateType.SCHEDULED)
            values["claimed_until"] = case((waits, flow_run.c.claimed_until), else_=null())
        return (
            update(self.kind.run)
            .where(run.id == param("id"), run.state_id == param("old_state_id"))
            .values(state_timestamp=param("timestamp"), updated=param("timestamp"), **values)
        )

    def insert_state(self) -> Insert:
        """Append to the state history."""
        names = {c.name: "run_id" if c is self.kind.run_of_state else c.name for c in self.kind.state.c}
        return insert(self.kind.state).values({column: param(name) for column, name in names.items()})

    @property
    def changeable(self) -> tuple[str, ...]:
        """The names of what may be changed."""
        return _CHANGEABLE[self.kind.name]

    def change(self) -> Update:
        """Write what is given into a run's row; what is null stays."""
        run = self.kind.run.c
        values = {name: func.coalesce(param(name), run[name]) for name in self.changeable if name in run}
        return update(self.kind.run).where(run.id == param("id")).values(updated=param("updated"), **values)

    def change_payload(self) -> Update:
        """Write what is given into a run's payload, in the same way."""
        payload = self.kind.payload.c
        values = {name: func.coalesce(param(name), payload[name]) for name in self.changeable if name in payload}
        return update(self.kind.payload).where(self.kind.run_of_payload == param("id")).values(values)

    def delete(self) -> Executable:
        """Delete a run, and with it all that refers to it."""
        run = self.kind.run
        return delete(run).where(run.c.id == param("id")).returning(run.c.id)


OF_TASK_RUNS: Final = RunStatements(TASK_RUN)
OF_FLOW_RUNS: Final = RunStatements(FLOW_RUN)


def _deleted() -> tuple[Column[Any], ...]:
    t = task_run.c
    return t.id, t.task_key, t.state_type, t.withheld, t.session_id, t.attempt


def delete_task_run() -> Executable:
    """Delete a task run, and with it all that refers to it; return who has to hear of that."""
    return delete(task_run).where(task_run.c.id == param("id")).returning(*_deleted())


def delete_task_runs_of_flow_run() -> Executable:
    """Delete the task runs of a flow run in the same way."""
    return delete(task_run).where(task_run.c.flow_run_id == param("id")).returning(*_deleted())


def delete_task_runs_of_flow() -> Executable:
    """Delete the task runs of all runs of a flow in the same way: no constraint ties them to it."""
    runs = select(flow_run.c.id).where(flow_run.c.flow_id == param("id"))
    return delete(task_run).where(task_run.c.flow_run_id.in_(runs)).returning(*_deleted())


# --- What runs belong to ------------------------------------------------------------------------------------


def read_enclosing_flow() -> Executable:
    """Return a flow run as the rules on its task runs need it, and its labels."""
    r, s = flow_run.c, flow_run_state.c
    return (
        select(r.state_type, r.run_count, s.due, s.details, r.labels)
        .join_from(flow_run, flow_run_state, s.id == r.state_id)
        .where(r.id == param("id"))
    )


def has_flow() -> Executable:
    """Return a row if there is such a flow."""
    return select(ONE).where(flow.c.id == param("id"))


def has_deployment() -> Executable:
    """Return a row if there is such a deployment."""
    return select(ONE).where(deployment.c.id == param("id"))


def read_natural_of_flow_run() -> Executable:
    """Return the id of a flow run's task run that has a client's own name."""
    t = task_run.c
    return select(t.id).where(
        t.flow_run_id == param("flow_run_id"),
        t.task_key == param("task_key"),
        t.dynamic_key == param("dynamic_key"),
    )


def read_idempotent_flow_run() -> Executable:
    """Return the id of the run of a flow that has an idempotency key."""
    r = flow_run.c
    return select(r.id).where(
        r.flow_id == param("flow_id"),
        r.idempotency_key == param("idempotency_key"),
        r.idempotency_key.is_not(None),
    )


def insert_flow_run() -> Insert:
    """Insert a flow run unless its id is there; the caller looks at the row count."""
    columns = list(flow_run.c)
    values = select(*(param(c.name) for c in columns)).where(~exists().where(flow_run.c.id == param("id")))
    return insert(flow_run).from_select(columns, values)


def insert_flow_run_payload() -> Insert:
    """Insert what a new flow run is given."""
    return insert(flow_run_payload).values({c.name: param(c.name) for c in flow_run_payload.c})


# --- Cached results -----------------------------------------------------------------------------------------


def read_cached() -> Executable:
    """Return the newest state under a cache key that has not expired."""
    c, s = task_run_cache.c, task_run_state.c
    return (
        select(s.name, s.message, s.due, s.details, s.data)
        .join_from(task_run_cache, task_run_state, s.id == c.task_run_state_id)
        .where(
            c.cache_key == param("cache_key"), c.cache_expiration.is_(None) | (c.cache_expiration > param("now"))
        )
        .order_by(c.id.desc())
        .limit(1)
    )


def insert_cached() -> Insert:
    """Have a state found under a cache key."""
    return insert(task_run_cache).values({c.name: param(c.name) for c in task_run_cache.c})


# --- Concurrency slots --------------------------------------------------------------------------------------


def read_limit() -> Executable:
    """Return the limit on a tag, and how many slots other runs have taken of it."""
    c, s = concurrency_limit.c, concurrency_slot.c
    taken = (
        select(func.count())
        .select_from(concurrency_slot)
        .where(s.concurrency_limit_id == c.id, s.task_run_id != param("task_run_id"))
        .scalar_subquery()
    )
    return select(c.concurrency_limit, taken).where(c.tag == param("tag"))


def take_slot() -> Insert:
    """Take a slot of a tag's limit, unless the run has it."""
    c, s = concurrency_limit.c, concurrency_slot.c
    has_it = exists().where(s.concurrency_limit_id == c.id, s.task_run_id == param("task_run_id"))
    slot = select(c.id, param("task_run_id")).where(c.tag == param("tag"), ~has_it)
    return insert(concurrency_slot).from_select([s.concurrency_limit_id, s.task_run_id], slot)


def free_slots() -> Delete:
    """Give all slots of a run back."""
    return delete(concurrency_slot).where(concurrency_slot.c.task_run_id == param("task_run_id"))


def find_limit() -> Executable:
    """Return the id of the limit on a tag."""
    return select(concurrency_limit.c.id).where(concurrency_limit.c.tag == param("tag"))


def insert_limit() -> Insert:
    """Limit a tag."""
    return insert(concurrency_limit).values({c.name: param(c.name) for c in concurrency_limit.c})


def update_limit() -> Update:
    """Change the limit on a tag."""
    c = concurrency_limit.c
    return (
        update(concurrency_limit)
        .where(c.tag == param("tag"))
        .values(concurrency_limit=param("concurrency_limit"), updated=param("updated"))
    )


def empty_limit() -> Delete:
    """Give all slots of a limit back, whoever holds them."""
    return delete(concurrency_slot).where(concurrency_slot.c.concurrency_limit_id == param("id"))


def delete_limit() -> Delete:
    """Delete a tag's limit, and who holds its slots."""
    return delete(concurrency_limit).where(concurrency_limit.c.tag == param("tag"))


def has_state() -> Executable:
    """Return a row if a state of a task run has this id."""
    return select(ONE).where(task_run_state.c.id == param("id"))


def has_task_run() -> Executable:
    """Return a row if there is such a task run."""
    return select(ONE).where(task_run.c.id == param("id"))
