"""Marking runs late: which, why, and never one that has started."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runlane.protocol.ids import is_id
from runlane.protocol.states import StateType
from runlane_broker.orchestration.common_rules import propose_late
from runlane_broker.orchestration.decide import decide
from runlane_broker.orchestration.decisions import Accept
from runlane_broker.orchestration.facts import Facts
from runlane_broker.orchestration.policies import MARK_LATE
from runlane_broker.orchestration.runs import Bookkeeping, CurrentState, Retries, Run, RunKind
from runlane_broker.storage.operations.handing_out import Asked, HandOutOfQueue
from runlane_broker.storage.operations.late import (
    FILTER_FULL,
    NO_QUEUE,
    NO_WORKER,
    NOT_POLLED,
    NOT_TAKEN,
    POOL_FULL,
    POOL_PAUSED,
    QUEUE_FULL,
    QUEUE_PAUSED,
    STEP,
    MarkFlowRunsLate,
    MarkTaskRunsLate,
)
from runlane_broker.storage.operations.leasing import Release, ReleaseRuns
from runlane_broker.storage.operations.queues import (
    CreatePool,
    CreateQueue,
    QueueKey,
    RecordPolls,
    UpdatePool,
    UpdateQueue,
)
from runlane_broker.storage.queries.late import overdue_flow_runs, overdue_task_runs
from runlane_broker.storage.sqlite import Compiler
from runlane_broker.storage.tables import FLOW_RUN

from ..support import SECOND, START, make_run, new_database, new_id
from .database import FAILED, Database
from .flow_runs import insert_flow_runs, set_state
from .surface_conformance import task_run
from .test_queues import ONE, insert_deployments
from .test_sqlite import open_database

PATIENCE = 15 * SECOND


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_database(tmp_path)


@pytest.fixture
def db(path: Path) -> Iterator[Database]:
    for db in open_database(path):
        yield db
        db.audit()


def mark_all(db: Database, operation: MarkTaskRunsLate | MarkFlowRunsLate) -> int:
    """Batch after batch."""
    marked = 0
    while True:
        batch = db.do(operation)
        marked += batch.marked
        if batch.next is None:
            return marked
        operation = replace(operation, after=batch.next)


def test_a_run_is_late_when_its_time_is_up(db: Database) -> None:
    run_id = db.queued(due=START)
    future = db.queued(due=START + SECOND)
    db.clock.advance(15 - 1e-6)
    assert mark_all(db, MarkTaskRunsLate(PATIENCE)) == 0
    db.clock.advance(1e-6)
    assert mark_all(db, MarkTaskRunsLate(PATIENCE)) == 1
    late = db.run(run_id)
    assert (late.state.type, late.state.name) == (StateType.SCHEDULED, "Late")
    assert late.state.message == f"The run has not started in time: {NO_WORKER}."
    assert (late.state.due, late.due, late.expected_start_time, late.state.attempt) == (START, START, START, 0)
    assert db.names(run_id) == ["Scheduled", "Late"]
    assert db.names(future) == ["Scheduled"]


def test_marking_twice_changes_nothing(db: Database) -> None:
    db.queued()
    db.clock.advance(20)
    assert mark_all(db, MarkTaskRunsLate(PATIENCE)) == 1
    with db.unchanged():
        assert mark_all(db, MarkTaskRunsLate(PATIENCE)) == 0


def test_what_is_written_is_what_the_policy_for_late_runs_says(db: Database) -> None:
    run_id = db.queued()
    before = db.run(run_id)
    db.clock.advance(20)
    mark_all(db, MarkTaskRunsLate(PATIENCE))
    after = db.run(run_id)
    run = Run(
        run_id,
        RunKind.TASK,
        CurrentState(before.state.type, before.state.name, before.state.timestamp),
        books=Bookkeeping(expected_start_time=before.expected_start_time, next_scheduled_start_time=before.due),
        retries=Retries(0, (0.0,), 0.0),
    )
    decision = decide(run, propose_late(run), Facts(), MARK_LATE, after.state.timestamp)
    assert isinstance(decision, Accept)
    written = decision.write
    assert (written.state.type, written.state.label) == (after.state.type, after.state.name)
    assert written.state.details.scheduled_time == after.state.due == after.due
    assert written.books.expected_start_time == after.expected_start_time
    assert written.effects == (), "nobody has to be told: it is dispatched as before"


def test_each_late_state_has_an_id_and_a_time_of_its_own_and_what_follows_is_later(db: Database) -> None:
    runs = [db.queued(due=START + i) for i in range(3)]
    db.clock.advance(20)
    mark_all(db, MarkTaskRunsLate(PATIENCE))
    late = db.query("SELECT id, task_run_id, timestamp FROM task_run_state WHERE name = 'Late' ORDER BY id")
    first = late[0][2]
    assert [(run_id, timestamp) for _, run_id, timestamp in late] == [
        (one, first + i) for i, one in enumerate(runs)
    ]
    assert all(is_id(state_id) for state_id, _, _ in late)
    db.lease(db.session(), runs[0])
    assert db.run(runs[0]).state.timestamp > first + 2


def test_a_late_state_knows_what_the_one_before_knew_but_for_the_clients_word(db: Database, path: Path) -> None:
    run_id = db.queued()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO task_run_state (id, task_run_id, type, name, timestamp, attempt, details) "
            "SELECT ?, id, state_type, state_name, state_timestamp + 1, attempt, ? FROM task_run",
            [state_id := new_id(), '{"transition_id":"once","retry_type":"reschedule"}'],
        )
        connection.execute("UPDATE task_run SET state_id = ?", [state_id])
    db.clock.advance(20)
    mark_all(db, MarkTaskRunsLate(PATIENCE))
    assert db.query("SELECT details FROM task_run_state WHERE name = 'Late'") == [('{"retry_type":"reschedule"}',)]
    assert db.names(run_id)[-1] == "Late"


@pytest.mark.parametrize("state", ["leased", "running", "finished", "AwaitingRetry", "Requeued"])
def test_only_what_is_named_scheduled_is_late(db: Database, state: str) -> None:
    holder = db.session()
    run_id = db.queued(retries=1)
    db.lease(holder, run_id)
    if state != "leased":
        db.start(holder, run_id)
    if state == "finished":
        db.finish(holder, run_id)
    elif state == "AwaitingRetry":
        db.finish(holder, run_id, proposed=FAILED)
    elif state == "Requeued":
        db.do(ReleaseRuns(holder.session_id, (Release(run_id, 1, "bye"),)))
    db.clock.advance(100)
    with db.unchanged():
        assert mark_all(db, MarkTaskRunsLate(PATIENCE)) == 0


def test_a_late_run_is_handed_out_in_its_turn(db: Database) -> None:
    first, second = db.queued(due=START), db.queued(due=START + 1)
    db.clock.advance(20)
    assert mark_all(db, MarkTaskRunsLate(PATIENCE)) == 2
    assert db.refilled() == [first, second]
    holder = db.session()
    assert [run.id for run in db.lease(holder, first)] == [first]
    assert db.names(first) == ["Scheduled", "Late", "Pending"]


def test_limits_of_tags_keep_nothing_from_workers_and_are_no_reason(db: Database) -> None:
    db.limit("gpu", 1)
    running = task_run(db, flow_run_id=db.running_flow_run(), tags=("gpu",))
    db.set_state(running, StateType.RUNNING)
    assert db.slots() == {("gpu", running)}
    run_id = db.queued(tags=("gpu",))
    db.clock.advance(20)
    assert mark_all(db, MarkTaskRunsLate(PATIENCE, reasons={"k": "all is full"})) == 1
    assert db.run(run_id).state.message == "The run has not started in time: all is full."
    assert [run.id for run in db.lease(db.session(), run_id)] == [run_id]


def test_a_key_may_have_more_patience_and_less(db: Database) -> None:
    runs = {key: db.queued(key) for key in ("slow", "k", "fast")}
    patience = {"slow": 100 * SECOND, "fast": SECOND}
    db.clock.advance(2)
    assert mark_all(db, MarkTaskRunsLate(PATIENCE, patience_of=patience, reasons={"fast": "all is full"})) == 1
    assert db.run(runs["fast"]).state.message == "The run has not started in time: all is full."
    db.clock.advance(20)
    assert mark_all(db, MarkTaskRunsLate(PATIENCE, patience_of=patience)) == 1
    db.clock.advance(100)
    assert mark_all(db, MarkTaskRunsLate(PATIENCE, patience_of=patience)) == 1


def test_batches_go_on_where_they_ended_also_past_what_is_not_to_be_marked(db: Database) -> None:
    patient = [make_run("slow") for _ in range(STEP + 10)]
    runs = [make_run("k", due=START + i // 7) for i in range(STEP + 50)]
    db.create(*patient)
    db.create(*runs)
    db.clock.advance(20)
    operation = MarkTaskRunsLate(PATIENCE, patience_of={"slow": 100 * SECOND})
    first = db.do(operation)
    assert first.next is not None
    assert first.marked < len(runs)
    assert mark_all(db, replace(operation, after=first.next)) + first.marked == len(runs)


def test_the_index_for_what_is_overdue_is_used(tmp_path: Path) -> None:
    path = new_database(tmp_path)
    params = {"before": 5, "after_due": 1, "after_id": "x", "limit": 400}
    compiler = Compiler()
    for table, query in (("task_run", overdue_task_runs), ("flow_run", overdue_flow_runs)):
        compiled = compiler(query)
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute(f"EXPLAIN QUERY PLAN {compiled.text}", compiled.bind(params)).fetchall()
        plan = " ".join(str(row) for row in rows)
        assert f"SEARCH {table} USING INDEX ix_{table}_overdue" in plan
        assert "TEMP B-TREE" not in plan


# --- Flow runs ----------------------------------------------------------------------------------------------


def message(db: Database, run_id: str) -> str:
    (row,) = db.query(f"SELECT message FROM flow_run_state WHERE flow_run_id = '{run_id}' AND name = 'Late'")
    return str(row[0])


@pytest.mark.parametrize(
    ("reason", "of_queue", "of_pool", "polled", "busy"),
    [
        (NOT_POLLED, {}, {}, False, 0),
        (NOT_TAKEN, {}, {}, True, 0),
        (QUEUE_PAUSED, {"is_paused": True}, {"is_paused": True}, True, 0),
        (POOL_PAUSED, {}, {"is_paused": True}, True, 0),
        (QUEUE_FULL, {"concurrency_limit": 1}, {"concurrency_limit": 1}, True, 1),
        (POOL_FULL, {"concurrency_limit": 9}, {"concurrency_limit": 1}, True, 1),
        (NOT_TAKEN, {"concurrency_limit": 2}, {"concurrency_limit": 2}, True, 1),
    ],
)
def test_a_late_flow_run_says_why(
    db: Database,
    path: Path,
    reason: str,
    of_queue: dict[str, Any],
    of_pool: dict[str, Any],
    polled: bool,
    busy: int,
) -> None:
    db.do(CreatePool("pool"))
    queue_id = db.do(CreateQueue("pool", "q"))
    db.do(UpdateQueue(QueueKey(queue_id), of_queue))
    db.do(UpdatePool("pool", of_pool))
    (run_id,) = insert_flow_runs(path, {"work_queue_id": queue_id})
    insert_flow_runs(path, *({"work_queue_id": queue_id, "state_type": "RUNNING"} for _ in range(busy)))
    db.clock.advance(20)
    if polled:
        db.do(RecordPolls((queue_id,)))
    assert mark_all(db, MarkFlowRunsLate(PATIENCE, shortest=PATIENCE)) == 1
    assert message(db, run_id) == f"The run has not started in time: {reason}."
    assert db.query("SELECT state_name, due, expected_start_time FROM flow_run WHERE state_name = 'Late'") == [
        ("Late", START, START)
    ]


@pytest.mark.parametrize(
    ("state", "waits_for_slot"),
    [
        ({"state_type": "PENDING"}, True),
        ({"state_type": "CANCELLING"}, True),
        ({"state_name": "AwaitingRetry", "retry_type": "in_process"}, True),
        ({"state_name": "AwaitingRetry", "retry_type": "reschedule"}, False),
        ({"state_type": "PAUSED"}, False),
    ],
)
@pytest.mark.parametrize(("limited", "reason"), [("queue", QUEUE_FULL), ("pool", POOL_FULL)])
def test_what_keeps_a_flow_run_from_starting_is_why_it_is_late(
    db: Database, path: Path, state: dict[str, str], waits_for_slot: bool, limited: str, reason: str
) -> None:
    db.do(CreatePool("pool", concurrency_limit=1 if limited == "pool" else None))
    queue_id = db.do(CreateQueue("pool", "q", {"concurrency_limit": 1} if limited == "queue" else {}))
    db.do(RecordPolls((queue_id,)))
    (run_id, _) = insert_flow_runs(path, {"work_queue_id": queue_id}, {"work_queue_id": queue_id, **state})
    assert db.set_state(run_id, StateType.PENDING, kind=FLOW_RUN).wrote is not waits_for_slot
    (run_id,) = insert_flow_runs(path, {"work_queue_id": queue_id})
    db.clock.advance(20)
    mark_all(db, MarkFlowRunsLate(PATIENCE, shortest=PATIENCE))
    assert reason in message(db, run_id), "by whoever has the slot now"


def test_a_claim_is_no_slot_and_no_reason(db: Database, path: Path) -> None:
    queue_id = db.do(CreateQueue(None, "q", {"concurrency_limit": 1}))
    (run_id,) = insert_flow_runs(path, {"work_queue_id": queue_id})
    db.clock.advance(20)
    assert len(db.do(HandOutOfQueue(queue_id, Asked(5, claim_seconds=60))).runs) == 1
    assert mark_all(db, MarkFlowRunsLate(PATIENCE, shortest=PATIENCE)) == 1
    assert NOT_TAKEN in message(db, run_id)


@pytest.mark.parametrize(("limit", "held"), [(1, True), (2, False)])
@pytest.mark.parametrize("of_queue", [{}, {"concurrency_limit": 0}])
def test_a_run_that_a_full_filter_holds_back_says_so(
    db: Database, path: Path, limit: int, held: bool, of_queue: dict[str, Any]
) -> None:
    own = db.do(CreateQueue(None, "own", of_queue))
    db.do(CreateQueue(None, "f", {"filter": '{"tags":["a"]}', "concurrency_limit": limit}))
    insert_deployments(path)
    mine = {"deployment_id": ONE, "work_queue_id": own}
    tagged, plain, _ = insert_flow_runs(
        path,
        {**mine, "tags": '["a"]'},
        mine,
        {**mine, "tags": '["a"]', "state_type": "RUNNING", "work_queue_id": None},
    )
    db.clock.advance(20)
    assert mark_all(db, MarkFlowRunsLate(PATIENCE, shortest=PATIENCE)) == 2
    usual = QUEUE_FULL if of_queue else NOT_POLLED
    assert (FILTER_FULL.format("f") if held and not of_queue else usual) in message(db, tagged)
    assert usual in message(db, plain)


def test_a_flow_run_without_a_queue_waits_for_nobody(db: Database, path: Path) -> None:
    (run_id,) = insert_flow_runs(path, {})
    db.clock.advance(20)
    assert mark_all(db, MarkFlowRunsLate(PATIENCE, shortest=PATIENCE)) == 1
    assert NO_QUEUE in message(db, run_id)


def test_a_queue_may_have_its_own_patience(db: Database, path: Path) -> None:
    slow = db.do(CreateQueue(None, "slow", {"late_after": 100 * SECOND}))
    fast = db.do(CreateQueue(None, "fast", {"late_after": SECOND}))
    insert_flow_runs(path, {"work_queue_id": slow}, {"work_queue_id": fast}, {})
    shortest = db.wait(db.store.queues.shortest_late_after())
    assert shortest == SECOND
    for seconds, marked in ((2, 1), (15, 1), (100, 1), (100, 0)):
        db.clock.advance(seconds)
        assert mark_all(db, MarkFlowRunsLate(PATIENCE, shortest=shortest)) == marked


def test_a_pass_looks_at_a_queue_once_a_second_and_not_in_each_step(db: Database, path: Path) -> None:
    queue_id = db.do(CreateQueue(None, "q"))
    insert_flow_runs(path, *({"work_queue_id": queue_id} for _ in range(3 * STEP)))
    db.clock.advance(20)
    mark: MarkFlowRunsLate | None = MarkFlowRunsLate(PATIENCE, shortest=PATIENCE)
    for seconds in (0.9, 0.1, 0):
        assert mark is not None
        mark = mark.then(db.do(mark))
        db.do(UpdateQueue(QueueKey(queue_id), {"is_paused": True}))
        db.clock.advance(seconds)
    said = dict(db.query("SELECT message, count(*) FROM flow_run_state WHERE name = 'Late' GROUP BY message"))
    assert said == {
        f"The run has not started in time: {NOT_POLLED}.": 2 * STEP,
        f"The run has not started in time: {QUEUE_PAUSED}.": STEP,
    }


def test_a_flow_run_that_has_started_is_not_touched(db: Database, path: Path) -> None:
    ids = insert_flow_runs(path, {}, {}, {"state_name": "AwaitingRetry"})
    set_state(path, ids[0], "PENDING")
    db.clock.advance(20)
    assert mark_all(db, MarkFlowRunsLate(PATIENCE, shortest=PATIENCE)) == 1
    assert db.query("SELECT id FROM flow_run WHERE state_name = 'Late'") == [(ids[1],)]
