"""A database under test: typed operations in, records out, and an audit of what stands in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeVar

from runlane.protocol.states import StateType
from runlane_broker.orchestration.common_rules import LATE
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.orchestration.states import may_follow
from runlane_broker.storage.operations.base import Operation
from runlane_broker.storage.operations.creating import CreateRuns
from runlane_broker.storage.operations.creating_flow_runs import CreateFlowRun
from runlane_broker.storage.operations.flows import CreateFlow
from runlane_broker.storage.operations.leasing import FinishRun, LeaseRuns, StartRun
from runlane_broker.storage.operations.limits import SetLimit
from runlane_broker.storage.operations.sessions import OpenSession, StartBroker, hash_token
from runlane_broker.storage.operations.transitions import SetState
from runlane_broker.storage.records import (
    Created,
    Creation,
    Holder,
    LeasedRun,
    NewFlowRun,
    NewRunRecord,
    Refill,
    Reported,
    TransitionOutcome,
    Verdict,
)
from runlane_broker.storage.run_records import RunRecord, StateRecord
from runlane_broker.storage.store import Store
from runlane_broker.storage.tables import TASK_RUN, RunKind, metadata
from runlane_broker.storage.writer import Executor

from ..support import PATIENCE, FakeClock, make_run, new_id

T = TypeVar("T")
Row = tuple[Any, ...]

COMPLETED = Proposed(StateType.COMPLETED)
FAILED = Proposed(StateType.FAILED)

#: What a Prefect client reports too late is of the history only: it lacks what the run's own states have.
OWN: Final = "(details IS NULL OR details LIKE '%\"task_run_id\"%')"

#: Questions that must have no answer, whatever has happened. All of them run on any SQL database.
AUDIT = {
    "leased exactly while PENDING, RUNNING or CANCELLING, unless somebody asked for that state": """
        SELECT id FROM task_run
        WHERE (session_id IS NOT NULL) <> (state_type IN ('PENDING', 'RUNNING', 'CANCELLING'))
        AND (session_id IS NOT NULL
             OR (SELECT details FROM task_run_state WHERE id = task_run.state_id) IS NULL)""",
    "withheld and not SCHEDULED": """
        SELECT id FROM task_run WHERE withheld IS NOT NULL AND state_type <> 'SCHEDULED'""",
    "a slot of a run that neither runs nor is being stopped": """
        SELECT task_run_id FROM concurrency_slot
        WHERE task_run_id NOT IN (SELECT id FROM task_run WHERE state_type IN ('RUNNING', 'CANCELLING'))""",
    "more slots taken than there are": """
        SELECT c.tag FROM concurrency_limit c JOIN concurrency_slot s ON s.concurrency_limit_id = c.id
        GROUP BY c.tag, c.concurrency_limit HAVING count(*) > c.concurrency_limit""",
    "a task run of a flow run that is gone": """
        SELECT id FROM task_run
        WHERE flow_run_id IS NOT NULL AND flow_run_id NOT IN (SELECT id FROM flow_run)""",
    "held by a session that is not there": """
        SELECT id FROM task_run WHERE session_id IS NOT NULL
        AND session_id NOT IN (SELECT id FROM worker_session)""",
    "the newest state of the history is the current one": f"""
        SELECT r.id FROM task_run r LEFT JOIN task_run_state s ON s.id = r.state_id
        WHERE s.id IS NULL OR s.task_run_id <> r.id OR s.type <> r.state_type OR s.name <> r.state_name
        OR s.timestamp <> r.state_timestamp
        OR s.timestamp < (SELECT max(timestamp) FROM task_run_state WHERE task_run_id = r.id AND {OWN})""",
    "two states of a run at the same time": f"""
        SELECT task_run_id FROM task_run_state WHERE {OWN} GROUP BY task_run_id, timestamp HAVING count(*) > 1""",
    "one lease in the history for each attempt": """
        SELECT r.id FROM task_run r
        WHERE r.attempt <> (SELECT count(*) FROM task_run_state
                            WHERE task_run_id = r.id AND type = 'PENDING' AND details IS NULL)
        OR r.attempt <> (SELECT count(DISTINCT attempt) FROM task_run_state
                         WHERE task_run_id = r.id AND type = 'PENDING' AND details IS NULL)
        OR r.attempt <> (SELECT max(attempt) FROM task_run_state WHERE task_run_id = r.id)""",
    "two ends of one lease": """
        SELECT task_run_id FROM task_run_state
        WHERE (type IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED') OR (type = 'SCHEDULED' AND attempt > 0))
        AND details IS NULL
        GROUP BY task_run_id, attempt HAVING count(*) > 1""",
    "ended without an end time, or with one and not ended": """
        SELECT id FROM task_run
        WHERE (end_time IS NOT NULL) <> (state_type IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'))""",
    "a run without parameters": """
        SELECT id FROM task_run WHERE id NOT IN (SELECT task_run_id FROM task_run_payload)""",
    "an idempotency key twice": """
        SELECT task_key, idempotency_key FROM task_run WHERE idempotency_key IS NOT NULL
        GROUP BY task_key, idempotency_key HAVING count(*) > 1""",
}


def audit(query: Callable[[str], Sequence[Row]]) -> None:
    """Fail if anything stands in the database that must not."""
    for what, text in AUDIT.items():
        assert list(query(text)) == [], what
    states: dict[str, list[_State]] = {}
    rows = query(
        "SELECT task_run_id, type, name, due, attempt, session_id, details FROM task_run_state "
        "ORDER BY task_run_id, timestamp"
    )
    for run_id, *state in rows:
        states.setdefault(run_id, []).append(_State(*state))
    for run_id, history in states.items():
        for one, next_ in pairwise([None, *history]):
            assert next_ is not None
            assert _may_follow(one, next_), (run_id, next_, history)


class _State(NamedTuple):
    """A state of a history. `details`: of one that somebody asked for."""

    type: str
    name: str
    due: int | None
    attempt: int
    session_id: str | None
    details: str | None


def _may_follow(one: _State | None, next_: _State) -> bool:
    """Say whether a state may come after another. Late says something of the one before it, and no more."""
    if next_.details is not None:
        return True
    if next_.name == LATE:
        return one is not None and one._replace(name=LATE) == next_ and one.name == "Scheduled"
    return may_follow(None if one is None else StateType(one.type), StateType(next_.type))


class Database:
    """A store over a database. `execute` is the way of the writer's thread, the rest reads."""

    def __init__(
        self,
        clock: FakeClock,
        broker_id: str,
        executor: Executor,
        open_store: Callable[[], Store],
        query: Callable[[str], Sequence[Row]],
    ) -> None:
        self.clock = clock
        self.broker_id = broker_id
        self.executor = executor
        self.query = query
        self._runner = asyncio.Runner()
        self.store = self.wait(_call(open_store))

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something on the store's event loop."""
        return self._runner.run(asyncio.wait_for(coroutine, PATIENCE))

    def close(self) -> None:
        self.wait(self.store.close())
        self._runner.close()

    def audit(self) -> None:
        audit(self.query)

    # Writing

    def execute(self, *operations: Operation[Any]) -> list[Any]:
        """Commit as one group; the outcome of each, or its exception."""
        return self.executor.execute(operations)

    def do(self, operation: Operation[T]) -> T:
        """Commit; the outcome, or raise what it met."""
        (outcome,) = self.execute(operation)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def create(self, *runs: NewRunRecord) -> tuple[Created, ...]:
        return self.do(CreateRuns(runs))

    def queued(self, key: str = "k", **changes: Any) -> str:
        """Create a run and return its id."""
        run = make_run(key, **changes)
        self.create(run)
        return run.id

    def session(self, token: str = "token", *, broker_id: str | None = None) -> Holder:
        """Open a session."""
        session_id = new_id()
        broker = broker_id or self.broker_id
        self.do(OpenSession(session_id, broker, "worker", hash_token(token)))
        return Holder(session_id, broker, 1)

    def lease(self, holder: Holder, *run_ids: str) -> list[LeasedRun]:
        """Lease runs that can be leased."""
        outcomes = self.do(LeaseRuns(holder, run_ids))
        assert all(isinstance(outcome, LeasedRun) for outcome in outcomes), outcomes
        return [outcome for outcome in outcomes if isinstance(outcome, LeasedRun)]

    def leased(self, holder: Holder, **changes: Any) -> str:
        """Create a run and lease it."""
        run_id = self.queued(**changes)
        self.lease(holder, run_id)
        return run_id

    def running(self, holder: Holder, **changes: Any) -> str:
        """Create a run, lease it and start it."""
        run_id = self.leased(holder, **changes)
        self.start(holder, run_id)
        return run_id

    def start(self, holder: Holder, run_id: str, attempt: int = 1) -> None:
        assert self.do(StartRun(holder.session_id, run_id, attempt, self.clock.now())) is Verdict.RECORDED

    def finish(
        self, holder: Holder, run_id: str, attempt: int = 1, proposed: Proposed = COMPLETED, **rest: Any
    ) -> Reported:
        return self.do(FinishRun(holder.session_id, run_id, attempt, self.clock.now(), proposed, **rest))

    def cancelling(self, holder: Holder, **changes: Any) -> str:
        """Create a run, start it and ask for its end."""
        run_id = self.running(holder, **changes)
        self.set_state(run_id, StateType.CANCELLING)
        return run_id

    def set_state(
        self, run_id: str, type_: StateType, *, kind: RunKind = TASK_RUN, force: bool = False, **rest: Any
    ) -> TransitionOutcome:
        """Ask for a state; the answer."""
        outcome = self.do(SetState(kind, run_id, Proposed(type_, **rest), force))
        assert outcome is not None, "there is no such run"
        return outcome

    def limit(self, tag: str, slots: int) -> None:
        """Limit a tag."""
        self.do(SetLimit(new_id(), tag, slots))

    def flow(self, name: str = "flow") -> str:
        """Create a flow, or find it; its id."""
        return self.do(CreateFlow(new_id(), name, (), {})).id

    def new_flow_run(self, **changes: Any) -> NewFlowRun:
        """A flow run that could be created."""
        values: dict[str, Any] = {"name": "run", "initial": Proposed(StateType.PENDING), **changes}
        flow_id = values.pop("flow_id", None) or self.flow()
        return NewFlowRun(new_id(), flow_id, **values)

    def flow_run(self, **changes: Any) -> str:
        """Create a flow run; its id."""
        run = self.new_flow_run(**changes)
        assert self.do(CreateFlowRun(run)).how is Creation.CREATED
        return run.id

    def running_flow_run(self) -> str:
        """Create a flow run that is RUNNING; its id."""
        return self.flow_run(initial=Proposed(StateType.RUNNING))

    def start_broker(self) -> None:
        self.do(StartBroker(self.broker_id, "1.0"))

    # Reading

    def run(self, run_id: str) -> RunRecord:
        record = self.wait(self.store.run_by_id(run_id))
        assert record is not None
        return record

    def history(self, run_id: str, kind: RunKind = TASK_RUN) -> list[StateRecord]:
        return self.wait(self.store.runs(kind).states(run_id))

    def row(self, table: str, run_id: str) -> dict[str, Any]:
        """What stands in a table by an id."""
        columns = [column.name for column in metadata.tables[table].c]
        (row,) = self.query(f"SELECT {', '.join(columns)} FROM {table} WHERE id = '{run_id}'")
        return dict(zip(columns, row, strict=True))

    def slots(self) -> set[tuple[str, str]]:
        """The slots that are taken: tag and run."""
        limits = self.wait(self.store.tag_limits.list(100, 0))
        return {(limit.tag, run_id) for limit in limits for run_id in limit.holders}

    def names(self, run_id: str) -> list[str]:
        """The names of a run's states, oldest first."""
        return [state.name for state in self.history(run_id)]

    def refill(self, key: str = "k", limit: int = 100) -> Refill:
        return self.wait(self.store.refill(key, self.clock.now(), limit))

    def refilled(self, key: str = "k", limit: int = 100) -> list[str]:
        """The ids of a refill, in order."""
        return [run.id for run in self.refill(key, limit).queued]

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Fail if the block changes anything of the runs."""
        before = self.snapshot()
        yield
        assert self.snapshot() == before

    def snapshot(self) -> list[list[Row]]:
        """All that stands there of task runs."""
        tables = {
            "task_run": "id",
            "task_run_payload": "task_run_id",
            "task_run_state": "id",
            "task_run_cache": "id",
            "concurrency_slot": "task_run_id, concurrency_limit_id",
        }
        return [list(self.query(f"SELECT * FROM {table} ORDER BY {key}")) for table, key in tables.items()]


async def _call(function: Callable[[], T]) -> T:
    return function()
