"""Work pools and work queues: what can be done with them, and which runs they hand out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

from runlane.protocol.states import StateType
from runlane_broker.errors import Conflict, Invalid, NotFound
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.schemas.filters import AnyOf, AnyOrStart, Filters, WorkPoolFilter, WorkQueueFilter
from runlane_broker.schemas.sorts import WorkQueueSort
from runlane_broker.storage.operations.base import Operation
from runlane_broker.storage.operations.creating_flow_runs import CreateFlowRun
from runlane_broker.storage.operations.handing_out import Asked, HandOutOfPool, HandOutOfQueue
from runlane_broker.storage.operations.leasing import FinishRun, LeaseRuns
from runlane_broker.storage.operations.queues import (
    CreatePool,
    CreateQueue,
    DeletePool,
    DeleteQueue,
    EnsureQueue,
    ForgetPolls,
    QueueKey,
    RecordPolls,
    UpdatePool,
    UpdateQueue,
    may_start,
    resolve_queue,
)
from runlane_broker.storage.queries import queues as q
from runlane_broker.storage.queries import transitions as qt
from runlane_broker.storage.queue_records import (
    DEFAULT_POOL,
    FullFilter,
    QueueFilter,
    QueueRecord,
    QueueStatus,
    first_not_held,
    queue_key,
)
from runlane_broker.storage.records import Creation, LeasedRun, NewFlowRun, Refusal, Verdict
from runlane_broker.storage.tables import FLOW_RUN

from ..support import SECOND, START, new_database, new_id
from .database import Database
from .flow_runs import FLOW_ID, insert_flow_runs, set_state
from .test_sqlite import open_database, steps_of

R, N, P = QueueStatus.READY, QueueStatus.NOT_READY, QueueStatus.PAUSED
#: A time with a poll before it that is recent, and one that is not.
MINUTE = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_database(tmp_path)


@pytest.fixture
def db(path: Path) -> Iterator[Database]:
    yield from open_database(path)


def queue(db: Database, name: str, pool: str = DEFAULT_POOL) -> QueueRecord:
    found = db.wait(db.store.queues.queue_by_name(pool, name))
    assert found is not None
    return found


def create(db: Database, name: str, pool: str | None = None, **values: Any) -> str:
    return db.do(CreateQueue(pool, name, values))


def update(
    db: Database, name: str, pool: str = DEFAULT_POOL, /, **changes: Any
) -> tuple[QueueStatus, QueueStatus]:
    change = db.do(UpdateQueue(QueueKey(pool=pool, name=name), changes))
    return change.before, change.after


def priorities(db: Database, pool: str = DEFAULT_POOL) -> dict[str, int]:
    """In the order of the list: the first in line first."""
    of_pool = Filters(work_pools=WorkPoolFilter(name=AnyOf(any_=(pool,))))
    queues = db.wait(db.store.lists.work_queues.list(of_pool, WorkQueueSort.PRIORITY_ASC))
    return {q.name: q.priority for q in queues}


def everything(db: Database) -> list[Any]:
    return [list(db.query(f"SELECT * FROM {table} ORDER BY id")) for table in ("work_pool", "work_queue")]


# --- Creating and deleting ----------------------------------------------------------------------------------


def test_a_queue_without_a_pool_goes_to_the_default_pool_which_is_made(db: Database) -> None:
    create(db, "mine", description="What it is for", concurrency_limit=3)
    pool = db.wait(db.store.queues.pool(DEFAULT_POOL))
    default = queue(db, "default")
    assert pool is not None
    assert (pool.type, pool.is_paused, pool.default_queue_id) == ("prefect-agent", False, default.id)
    assert (default.priority, default.is_default, default.description) == (
        1,
        True,
        "The work pool's default queue.",
    )
    mine = queue(db, "mine")
    assert (mine.priority, mine.is_default, mine.description, mine.concurrency_limit) == (
        2,
        False,
        "What it is for",
        3,
    )
    assert (mine.status, mine.last_polled, mine.pool_id) == (N, None, pool.id)
    assert (mine.created, mine.updated) == (START, START)


def test_the_default_queue_may_be_asked_for_before_there_is_a_pool_but_not_again(db: Database) -> None:
    create(db, "default")
    assert priorities(db) == {"default": 1}
    assert queue(db, "default").is_default
    with pytest.raises(Conflict, match=r"^A work queue with this name already exists\.$"):
        create(db, "default")


def test_a_queue_that_is_made_paused_is_not_ready(db: Database) -> None:
    create(db, "mine", is_paused=True)
    assert (queue(db, "mine").is_paused, queue(db, "mine").status) == (True, N)


def test_a_name_is_unique_in_its_pool_only(db: Database) -> None:
    db.do(CreatePool("one"))
    db.do(CreatePool("two"))
    create(db, "q", "one")
    create(db, "q", "two")
    before = everything(db)
    with pytest.raises(Conflict, match="already exists in work pool 'one'"):
        create(db, "q", "one")
    with pytest.raises(Conflict, match="already exists"):
        update(db, "q", "one", name="default")
    with pytest.raises(Conflict, match="A work pool with this name already exists"):
        db.do(CreatePool("one"))
    assert everything(db) == before


@pytest.mark.parametrize(
    "operation",
    [
        CreateQueue("nope", "q"),
        UpdateQueue(QueueKey("nope"), {"is_paused": True}),
        UpdateQueue(QueueKey(pool="nope", name="q"), {"priority": 2}),
        DeleteQueue(QueueKey("nope")),
        UpdatePool("nope", {}),
        DeletePool("nope"),
        HandOutOfQueue("nope", Asked(1)),
        HandOutOfPool("nope", None, Asked(1)),
        HandOutOfPool("there", ("nope",), Asked(1)),
    ],
)
def test_what_is_not_there_is_said_and_nothing_is_done(db: Database, operation: Operation[Any]) -> None:
    db.do(CreatePool("there"))
    before = everything(db)
    with pytest.raises(NotFound, match="nope"):
        db.do(operation)
    assert everything(db) == before


def test_a_queue_that_is_needed_is_made_before_all_others_once(db: Database) -> None:
    create(db, "mine")
    first = db.do(EnsureQueue("urgent"))
    assert priorities(db) == {"urgent": 1, "default": 2, "mine": 3}
    assert db.do(EnsureQueue("urgent")) == first


class Resolve(Operation[tuple[str, str]]):
    def __init__(self, pool: str | None, name: str | None) -> None:
        self.pool, self.name = pool, name

    def execute(self, tx: Any) -> tuple[str, str]:
        return resolve_queue(tx, self.pool, self.name)


def test_a_run_names_its_queue_in_four_ways(db: Database) -> None:
    db.do(CreatePool("pool"))
    assert db.do(Resolve("pool", None)) == (queue(db, "default", "pool").id, "default")
    assert db.do(Resolve("pool", "new")) == (queue(db, "new", "pool").id, "new")
    assert db.do(Resolve(None, None)) == (queue(db, "default").id, "default")
    assert db.do(Resolve(None, "new")) == (queue(db, "new").id, "new")
    assert queue(db, "new").id != queue(db, "new", "pool").id
    update(db, "default", "pool", name="renamed")
    create(db, "default", "pool")
    assert db.do(Resolve("pool", None)) == (queue(db, "renamed", "pool").id, "renamed")
    with pytest.raises(NotFound, match="nope"):
        db.do(Resolve("nope", None))


def test_a_default_queue_cannot_be_deleted_other_than_with_its_pool(db: Database) -> None:
    create(db, "mine")
    for key in (QueueKey(queue(db, "default").id), QueueKey(pool=DEFAULT_POOL, name="default")):
        with pytest.raises(Conflict, match="default queue"):
            db.do(DeleteQueue(key))
    db.do(DeletePool(DEFAULT_POOL))
    assert everything(db) == [[], []]


def test_the_runs_of_a_deleted_queue_keep_its_name(db: Database, path: Path) -> None:
    queue_id = create(db, "mine")
    (run_id,) = insert_flow_runs(path, {"work_queue_id": queue_id, "work_queue_name": "mine"})
    db.do(DeleteQueue(QueueKey(queue_id)))
    assert db.query("SELECT id, work_queue_id, work_queue_name FROM flow_run") == [(run_id, None, "mine")]


def test_deleting_a_queue_or_a_pool_looks_at_no_other_runs(db: Database, path: Path) -> None:
    db.do(CreatePool("pool"))
    elsewhere, mine = create(db, "busy"), create(db, "mine")
    insert_flow_runs(path, *({"work_queue_id": elsewhere, "state_type": "COMPLETED"} for _ in range(3000)))
    insert_flow_runs(path, {"work_queue_id": mine}, {"work_queue_id": queue(db, "default", "pool").id})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for statement in (f"work_queue WHERE id = '{mine}'", "work_pool WHERE name = 'pool'"):
            steps = steps_of(connection, lambda text=statement: connection.execute(f"DELETE FROM {text}"))
            assert steps < 5, "thousand instructions; looking at all runs would take twenty"
            assert connection.execute("SELECT count(*) FROM flow_run WHERE work_queue_id IS NULL").fetchone() != (
                0,
            )
        connection.rollback()


# --- Priorities ---------------------------------------------------------------------------------------------


def test_priorities_are_unique_whichever_way_they_are_changed(db: Database) -> None:
    for name in ("a", "b", "c"):
        create(db, name)
    assert priorities(db) == {"default": 1, "a": 2, "b": 3, "c": 4}
    create(db, "d", priority=2)
    assert priorities(db) == {"default": 1, "d": 2, "a": 3, "b": 4, "c": 5}
    db.do(
        UpdateQueue(QueueKey(queue(db, "c").id), {"priority": 1})
    )  # as by id, which the documents' server forgets
    assert priorities(db) == {"c": 1, "default": 2, "d": 3, "a": 4, "b": 5}
    update(db, "default", priority=4)
    assert priorities(db) == {"c": 1, "d": 3, "default": 4, "a": 5, "b": 6}
    db.do(DeleteQueue(QueueKey(queue(db, "a").id)))
    assert priorities(db) == {"c": 1, "d": 3, "default": 4, "b": 6}
    create(db, "e")
    assert priorities(db)["e"] == 2
    update(db, "b", priority=100)
    create(db, "f")
    assert priorities(db) == {"c": 1, "e": 2, "d": 3, "default": 4, "f": 5, "b": 100}


def test_pools_have_priorities_of_their_own(db: Database) -> None:
    db.do(CreatePool("pool"))
    create(db, "a", "pool", priority=1)
    assert priorities(db, "pool") == {"a": 1, "default": 2}
    create(db, "a")
    assert priorities(db) == {"default": 1, "a": 2}


# --- Pause, polls, status -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("polled_ago", "steps"),
    [
        (None, [(True, (N, P)), (True, (P, P)), (False, (P, N)), (False, (N, N))]),
        (1, [(True, (R, P)), (False, (P, R)), (False, (R, R)), (True, (R, P))]),
        (60, [(True, (R, P)), (False, (P, R))]),
        (61, [(True, (R, P)), (False, (P, N))]),
    ],
)
def test_pausing_and_resuming(
    db: Database, polled_ago: float | None, steps: list[tuple[bool, tuple[QueueStatus, QueueStatus]]]
) -> None:
    queue_id = create(db, "mine")
    if polled_ago is not None:
        assert db.do(RecordPolls((queue_id,)))[0].after is R
        db.clock.advance(polled_ago)
    for is_paused, change in steps:
        assert update(db, "mine", is_paused=is_paused) == change
        assert (queue(db, "mine").is_paused, queue(db, "mine").status) == (is_paused, change[1])


def test_resuming_looks_at_the_poll_that_is_told_with_it(db: Database) -> None:
    create(db, "mine")
    update(db, "mine", is_paused=True)
    assert update(db, "mine", is_paused=False, last_polled=db.clock.now()) == (P, R)


def test_nobody_has_polled_in_the_future(db: Database) -> None:
    create(db, "mine")
    update(db, "mine", is_paused=True)
    before = everything(db)
    with pytest.raises(Invalid, match="in the future") as refused:
        update(db, "mine", is_paused=False, last_polled=db.clock.now() + 1)
    assert (refused.value.field, everything(db)) == ("last_polled", before)


def test_a_poll_makes_ready_what_is_not_paused_and_says_so_once(db: Database) -> None:
    served, paused, made_paused = create(db, "a"), create(db, "b"), create(db, "c", is_paused=True)
    update(db, "b", is_paused=True)
    changes = db.do(RecordPolls((served, paused, made_paused, "gone")))
    assert [(change.queue_id, change.before, change.after) for change in changes] == [(served, N, R)]
    assert db.do(RecordPolls((served,))) == ()
    assert [queue(db, name).status for name in "abc"] == [R, P, N]
    assert {queue(db, name).last_polled for name in "abc"} == {START}


def test_what_nobody_polls_for_a_minute_is_not_ready(db: Database) -> None:
    served, _, paused = create(db, "a"), create(db, "b"), create(db, "c")
    db.do(RecordPolls((served, paused)))
    update(db, "c", is_paused=True)
    db.clock.advance(MINUTE)
    assert db.do(ForgetPolls()) == ()
    db.clock.advance(1)
    assert [(change.queue_id, change.after) for change in db.do(ForgetPolls())] == [(served, N)]
    assert db.do(ForgetPolls()) == ()
    assert [queue(db, name).status for name in "abc"] == [N, N, P]
    db.do(RecordPolls((served,)))
    update(db, "a", last_polled=None)
    assert [(change.queue_id, change.after) for change in db.do(ForgetPolls())] == [(served, N)]


def test_a_queues_health(db: Database, path: Path) -> None:
    queue_id = create(db, "mine")
    elsewhere = create(db, "other")
    insert_flow_runs(
        path,
        {"work_queue_id": queue_id, "state_name": "Late"},
        {"work_queue_id": queue_id},
        {"work_queue_id": elsewhere, "state_name": "Late"},
        {"work_queue_id": queue_id, "state_type": "RUNNING", "state_name": "Late"},
    )
    db.do(RecordPolls((queue_id,)))
    health = db.wait(db.store.queues.health(queue_id))
    assert health is not None
    assert (health.late_runs, health.last_polled) == (1, START)
    assert db.wait(db.store.queues.health("nope")) is None


# --- Handing out runs ---------------------------------------------------------------------------------------


@dataclass
class Hand:
    """What is handed out, by the names that runs were given."""

    db: Database
    path: Path

    def __post_init__(self) -> None:
        self.names: dict[str, str] = {}

    def run(self, name: str, queue_name: str, pool: str = DEFAULT_POOL, **values: Any) -> str:
        at = queue(self.db, queue_name, pool)
        (run_id,) = insert_flow_runs(self.path, {"work_queue_id": at.id, "work_queue_name": at.name, **values})
        self.names[run_id] = name
        return run_id

    def of_queue(self, name: str, limit: int = 100, pool: str = DEFAULT_POOL, **asked: Any) -> str:
        return self._names(HandOutOfQueue(queue(self.db, name, pool).id, Asked(limit, **asked)))

    def of_pool(self, limit: int = 100, *names: str, pool: str = DEFAULT_POOL, **asked: Any) -> str:
        return self._names(HandOutOfPool(pool, names or None, Asked(limit, **asked)))

    def _names(self, operation: Any) -> str:
        return " ".join(self.names[run.run_id] for run in self.db.do(operation).runs)


@pytest.fixture
def hand(db: Database, path: Path) -> Hand:
    for name in ("a", "b"):
        create(db, name)
    return Hand(db, path)


def test_runs_go_by_time_and_only_those_that_wait(hand: Hand) -> None:
    hand.run("later", "a", due=START + SECOND)
    hand.run("second", "a", due=START - 1)
    hand.run("first", "a", due=START - 2, state_name="Late")
    hand.run("retry", "a", due=START, state_name="AwaitingRetry")
    for state in ("PENDING", "RUNNING", "COMPLETED", "PAUSED", "CANCELLING"):
        hand.run(state, "a", state_type=state)
    assert hand.of_queue("a") == "first second retry later"
    assert hand.of_queue("a", before=START) == "first second retry"
    assert hand.of_queue("a", after=START) == "retry later"
    assert hand.of_queue("a", 2) == "first second"
    assert hand.of_queue("a", 0) == ""
    assert hand.of_queue("a") == "first second retry later", "a poll claims nothing"


def test_queues_of_one_name_in_two_pools_have_nothing_to_do_with_each_other(hand: Hand) -> None:
    hand.db.do(CreatePool("pool"))
    create(hand.db, "a", "pool", concurrency_limit=1)
    hand.run("mine", "a")
    hand.run("busy", "a", state_type="RUNNING")
    hand.run("theirs", "a", "pool")
    assert hand.of_queue("a") == "mine"
    assert hand.of_queue("a", pool="pool") == "theirs"


@pytest.mark.parametrize(
    ("limit", "held", "given"),
    [
        (None, "PENDING RUNNING", "1 2 3"),
        (0, "", ""),
        (2, "", "1 2"),
        (2, "PENDING", "1"),
        (2, "RUNNING PENDING", ""),
        (2, "RUNNING PENDING CANCELLING", ""),
        (3, "RUNNING CANCELLING", "1"),
        (2, "COMPLETED PAUSED", "1 2"),
    ],
)
def test_a_queue_gives_what_its_limit_leaves(hand: Hand, limit: int | None, held: str, given: str) -> None:
    update(hand.db, "a", concurrency_limit=limit)
    for name in "123":
        hand.run(name, "a")
    for state in held.split():
        hand.run(state, "a", state_type=state)
    assert hand.of_queue("a") == given


@pytest.mark.parametrize(
    "query", [q.count_started, q.count_started_or_stopping, q.read_start_limits, q.read_create_limits]
)
def test_slots_are_counted_by_an_index(path: Path, query: Any) -> None:
    compiled: Any = query().compile(dialect=sqlite_dialect(paramstyle="named"))
    with closing(sqlite3.connect(path)) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {compiled}", compiled.params).fetchall()
    ways = [row[3] for row in plan if "work_queue_id" in row[3] or "flow_run" in row[3]]
    assert len(ways) >= 3
    assert all("work_queue_id=? AND " in way or "PRIMARY KEY" in way for way in ways)


def test_a_run_that_waits_for_its_next_try_in_its_process_keeps_its_slot(hand: Hand) -> None:
    hand.run("retried", "a", state_name="AwaitingRetry", retry_type="in_process")
    for name in "12":
        hand.run(name, "a")
    hand.run("b1", "b")
    update(hand.db, "a", concurrency_limit=2)
    assert hand.of_queue("a") == "1"
    assert hand.of_pool() == "1 b1"
    hand.db.do(UpdatePool(DEFAULT_POOL, {"concurrency_limit": 2}))
    assert hand.of_pool() == "1"
    a = queue(hand.db, "a")
    assert hand.db.wait(hand.db.store.queues.active([a])) == {a.id: 1}


def test_a_pool_goes_by_priority_first(hand: Hand) -> None:
    hand.run("b1", "b", due=START - 9)
    hand.run("a2", "a", due=START - 1)
    hand.run("a1", "a", due=START - 2)
    hand.run("d1", "default", due=START)
    assert hand.of_pool() == "d1 a1 a2 b1"
    assert hand.of_pool(3) == "d1 a1 a2"
    assert hand.of_pool(100, "b", "a") == "a1 a2 b1"
    update(hand.db, "b", priority=1)
    assert hand.of_pool() == "b1 d1 a1 a2"


def test_a_pool_keeps_its_own_limit_and_those_of_its_queues(hand: Hand) -> None:
    for name in ("a1", "a2", "a3"):
        hand.run(name, "a")
    for name in ("b1", "b2"):
        hand.run(name, "b")
    update(hand.db, "a", concurrency_limit=2)
    assert hand.of_pool() == "a1 a2 b1 b2"
    hand.db.do(UpdatePool(DEFAULT_POOL, {"concurrency_limit": 3}))
    assert hand.of_pool() == "a1 a2 b1"
    hand.run("stopping", "b", state_type="CANCELLING")
    assert hand.of_pool() == "a1 a2 b1", "what is being cancelled counts for a queue that is asked by itself only"
    hand.run("busy", "b", state_type="RUNNING")
    assert hand.of_pool() == "a1 a2"
    assert hand.of_pool(100, "b") == "b1 b2"
    assert hand.of_queue("b") == "b1 b2"
    hand.db.do(UpdatePool(DEFAULT_POOL, {"concurrency_limit": 0}))
    assert (hand.of_pool(), hand.of_queue("a")) == ("", "")


def test_what_is_paused_gives_nothing_and_the_poll_counts(hand: Hand) -> None:
    hand.run("a1", "a")
    hand.run("b1", "b")
    update(hand.db, "a", is_paused=True)
    assert hand.of_queue("a") == ""
    assert hand.of_pool() == "b1"
    assert (queue(hand.db, "a").last_polled, queue(hand.db, "a").status) == (START, P)
    hand.db.do(UpdatePool(DEFAULT_POOL, {"is_paused": True}))
    assert (hand.of_pool(), hand.of_queue("b")) == ("", "")


def test_who_only_looks_does_not_poll(hand: Hand) -> None:
    hand.run("a1", "a")
    assert hand.of_queue("a", is_poll=False) == "a1"
    assert (queue(hand.db, "a").last_polled, queue(hand.db, "a").status) == (None, N)
    hand.of_pool(100, "a")
    assert (queue(hand.db, "a").status, queue(hand.db, "b").status) == (R, N)


def test_a_claim_keeps_runs_for_a_while_and_takes_slots(hand: Hand) -> None:
    update(hand.db, "a", concurrency_limit=3)
    runs = {name: hand.run(name, "a") for name in "1234"}
    assert hand.of_queue("a", 2, claim_seconds=30.0) == "1 2"
    assert hand.of_queue("a") == "3"
    set_state(hand.path, runs["1"], "PENDING")
    assert hand.of_queue("a") == "3", "who has it started uses one slot, not two"
    hand.db.clock.advance(30)
    assert hand.of_queue("a") == "2 3"


# --- The limits at the moment of starting -------------------------------------------------------------------


class MayStart(Operation[str | None]):
    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def execute(self, tx: Any) -> str | None:
        return may_start(tx, self.run_id)


@pytest.mark.parametrize(
    ("queue_limit", "pool_limit", "reason"),
    [
        (None, None, None),
        (3, 4, None),
        (2, None, "work queue 'a' has 2"),
        (None, 3, "work pool 'default-agent-pool' has 3"),
        (1, None, "work queue 'a' has 1"),
        (None, 2, "work pool 'default-agent-pool' has 2"),
        (0, 0, "work queue 'a' has 0"),
    ],
)
def test_a_run_starts_only_where_queue_and_pool_have_room(
    hand: Hand, queue_limit: int | None, pool_limit: int | None, reason: str | None
) -> None:
    run_id = hand.run("mine", "a")
    hand.run("busy", "a", state_type="RUNNING")
    hand.run("other", "b", state_type="PENDING")
    hand.run("stopping", "a", state_type="CANCELLING")
    update(hand.db, "a", concurrency_limit=queue_limit)
    hand.db.do(UpdatePool(DEFAULT_POOL, {"concurrency_limit": pool_limit}))
    why_not = hand.db.do(MayStart(run_id))
    assert why_not is None if reason is None else why_not is not None and reason in why_not


@pytest.mark.parametrize(("queue_limit", "pool_limit"), [(1, None), (None, 1)])
def test_a_run_that_is_retried_in_its_process_leaves_no_room_meanwhile(
    hand: Hand, queue_limit: int | None, pool_limit: int | None
) -> None:
    run_id = hand.run("mine", "a")
    hand.run("retried", "a", state_name="AwaitingRetry", retry_type="in_process")
    hand.run("handed out again", "a", state_name="AwaitingRetry", retry_type="reschedule")
    update(hand.db, "a", concurrency_limit=queue_limit)
    hand.db.do(UpdatePool(DEFAULT_POOL, {"concurrency_limit": pool_limit}))
    assert "has 1 slots" in (hand.db.do(MayStart(run_id)) or "")


def test_a_run_without_a_queue_starts(hand: Hand) -> None:
    (run_id,) = insert_flow_runs(hand.path, {})
    assert hand.db.do(MayStart(run_id)) is None


# --- Reading ------------------------------------------------------------------------------------------------


def test_queues_are_found_by_name_in_the_default_pool_first(db: Database) -> None:
    assert db.wait(db.store.queues.queue_named("q")) is None
    db.do(CreatePool("one"))
    in_one = create(db, "q", "one")
    found = db.wait(db.store.queues.queue_named("q"))
    assert found is not None
    assert found.id == in_one
    create(db, "other")
    assert db.wait(db.store.queues.queue_named("q")) is None, (
        "once there is a default pool only that one is looked in"
    )


def test_lists(db: Database) -> None:
    db.do(CreatePool("one"))
    for name in ("b", "a"):
        create(db, name, "one")
    lists = db.store.lists
    by_priority = db.wait(lists.work_queues.list(Filters(), WorkQueueSort.PRIORITY_ASC, 10, 0))
    assert [q.name for q in by_priority] == ["default", "b", "a"]
    assert [q.name for q in db.wait(lists.work_queues.list())] == ["a", "b", "default"]
    assert [q.name for q in db.wait(lists.work_queues.list(Filters(), None, 1, 1))] == ["b"]
    some = Filters(work_queues=WorkQueueFilter(name=AnyOrStart(any_=("a", "zz"))))
    assert [q.name for q in db.wait(lists.work_queues.list(some))] == ["a"]
    assert [p.name for p in db.wait(lists.work_pools.list())] == ["one"]
    assert db.wait(lists.work_pools.count()) == 1


# --- Filters ------------------------------------------------------------------------------------------------

#: Deployments, which only filters look at.
ONE, TWO = "0" * 36, "1" * 36


def insert_deployments(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO flow VALUES (?, 'flow', '[]', '{}', 0, 0)", [FLOW_ID])
        for deployment in (ONE, TWO):
            connection.execute(
                "INSERT INTO deployment (id, flow_id, name, tags, labels, parameters, parameter_openapi_schema, "
                "job_variables, enforce_parameter_schema, paused, created, updated) "
                "VALUES (?1, ?2, ?1, '[]', '{}', '{}', '{}', '{}', 0, 0, 0, 0)",
                [deployment, FLOW_ID],
            )


@pytest.mark.parametrize(
    ("tags", "deployments", "slots", "found"),
    [
        (None, None, None, "plain ab late"),
        (("a",), None, None, "ab late"),
        (("a", "b"), None, None, "ab"),
        (None, (ONE,), None, "plain late"),
        (("a",), (ONE,), None, "late"),
        (("c",), None, None, ""),
        ((), (), None, ""),
        (("a",), None, 2, "ab"),
        (("a",), None, 1, ""),
        (None, (TWO,), 1, "ab"),
    ],
)
def test_an_old_queue_finds_runs_by_tags_and_deployments(
    db: Database, path: Path, tags: Any, deployments: Any, slots: int | None, found: str
) -> None:
    insert_deployments(path)
    insert_flow_runs(
        path,
        {"name": "late", "deployment_id": ONE, "tags": '["a","x"]', "state_name": "Late"},
        {"name": "ab", "deployment_id": TWO, "tags": '["b","a"]', "due": START - 1},
        {"name": "plain", "deployment_id": ONE, "due": START - 2},
        {"name": "future", "deployment_id": ONE, "tags": '["a"]', "due": START + 2},
        {"name": "no deployment", "tags": '["a"]'},
        {"name": "running", "deployment_id": ONE, "tags": '["a"]', "state_type": "RUNNING"},
        {"name": "stopping", "deployment_id": ONE, "tags": '["a"]', "state_type": "CANCELLING"},
    )
    filter_ = QueueFilter(tags=tags, deployment_ids=deployments)
    ids = db.wait(db.store.queues.filtered(filter_, 100, START, slots))
    names = dict(db.query("SELECT id, name FROM flow_run"))
    assert " ".join(names[run_id] for run_id in ids) == found


@pytest.mark.parametrize(
    ("state", "taken"),
    [
        ({"state_type": "RUNNING"}, 1),
        ({"state_type": "PENDING"}, 1),
        ({"state_name": "AwaitingRetry", "retry_type": "in_process"}, 1),
        ({"state_type": "CANCELLING"}, 0),
        ({"state_type": "RUNNING", "tags": '["b"]'}, 0),
        ({"state_type": "RUNNING", "deployment_id": None}, 0),
        ({}, 0),
    ],
)
def test_the_slots_of_a_filter_are_counted_by_what_it_finds_and_hold_when_a_run_starts(
    db: Database, path: Path, state: dict[str, Any], taken: int
) -> None:
    insert_deployments(path)
    create(db, "f", filter='{"tags":["a"]}', concurrency_limit=1)
    elsewhere = create(db, "elsewhere")
    mine, another, _ = insert_flow_runs(
        path,
        {"deployment_id": ONE, "tags": '["a"]'},
        {"deployment_id": ONE, "tags": '["b"]'},
        {"deployment_id": TWO, "tags": '["a","x"]', "work_queue_id": elsewhere, **state},
    )
    found = queue(db, "f")
    assert db.wait(db.store.queues.active([found])) == {found.id: taken}
    refused = "the work queue 'f', by its filter, has 1 slots" in (db.do(MayStart(mine)) or "")
    assert refused is (taken == 1)
    assert db.do(MayStart(another)) is None
    given = db.wait(db.store.queues.filtered(QueueFilter(tags=("a",)), 100, START, found.concurrency_limit))
    assert (mine in given) is not refused


@pytest.mark.parametrize("type_", [StateType.PENDING, StateType.RUNNING])
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"q": 1}, "work queue 'q' has 1"),
        ({"pool": 1}, "work pool 'default-agent-pool' has 1"),
        ({"f": 1}, "work queue 'f', by its filter, has 1"),
        ({"q": 2, "pool": 2, "f": 2}, None),
    ],
)
def test_a_run_that_is_not_created_for_want_of_a_slot_costs_its_group_nothing(
    db: Database, path: Path, limits: dict[str, int], reason: str | None, type_: StateType
) -> None:
    """It is refused before anything is written."""
    insert_deployments(path)
    create(db, "f", filter='{"tags":["a"]}', concurrency_limit=limits.get("f"))
    queue_id = create(db, "q", concurrency_limit=limits.get("q"))
    db.do(UpdatePool(DEFAULT_POOL, {"concurrency_limit": limits.get("pool")}))
    (held,) = insert_flow_runs(
        path, {"deployment_id": ONE, "tags": '["a"]', "work_queue_id": queue_id, "state_type": "RUNNING"}
    )
    new = NewFlowRun(
        new_id(), FLOW_ID, "new", Proposed(type_), tags=("a",), deployment_id=ONE, work_queue_name="q"
    )
    beside = Counted(held)
    _, outcome = db.execute(beside, CreateFlowRun(new))
    if reason is None:
        assert outcome.how is Creation.CREATED
    else:
        assert isinstance(outcome, Conflict)
        assert reason in str(outcome)
        assert db.query("SELECT id FROM flow_run") == [(held,)]
    assert beside.times == 1


class Counted(MayStart):
    """One that writes, and counts how often it is done."""

    times = 0

    def execute(self, tx: Any) -> str | None:
        self.times += 1
        tx.run(
            qt.OF_FLOW_RUNS.change, dict.fromkeys(qt.OF_FLOW_RUNS.changeable) | {"id": self.run_id, "updated": 1}
        )
        return None


def test_a_push_is_held_to_the_limit_of_a_filter(db: Database, path: Path) -> None:
    insert_deployments(path)
    create(db, "f", filter='{"tags":["a"]}', concurrency_limit=1)
    queue_id = create(db, "q")
    mine = {"deployment_id": ONE, "work_queue_id": queue_id, "tags": '["a"]'}
    one, two, other, three = insert_flow_runs(
        path,
        *({**mine, **changes, "due": START - 9 + i} for i, changes in enumerate(({}, {}, {"tags": "[]"}, {}))),
    )
    key = queue_key(queue(db, "q").pool_id, queue_id)

    def refill(limit: int) -> tuple[list[str], bool]:
        found = db.wait(db.store.refill(key, START, limit))
        return [run.id for run in found.queued], found.holds_back

    assert refill(9) == ([one, two, other, three], False)
    holder, elsewhere = db.session(), db.session()
    outcomes = db.do(LeaseRuns(holder, (one, two, other), FLOW_RUN))
    assert [getattr(outcome, "id", outcome) for outcome in outcomes] == [one, Refusal.HELD_BACK, Refusal.LATER]
    assert db.do(LeaseRuns(elsewhere, (three, two), FLOW_RUN)) == (Refusal.HELD_BACK, Refusal.LATER)
    assert refill(9) == ([other], True)
    assert isinstance(db.do(LeaseRuns(holder, (other,), FLOW_RUN))[0], LeasedRun)
    assert db.query("SELECT id FROM flow_run WHERE state_type = 'SCHEDULED' ORDER BY due") == [(two,), (three,)]
    assert refill(9) == ([], True)
    last, *_ = insert_flow_runs(path, {**mine, "tags": '["b"]'}, {**mine, "deployment_id": None})
    assert refill(1) == ([last], True)
    done = FinishRun(holder.session_id, one, 1, START, Proposed(StateType.COMPLETED))
    assert db.do(done).verdict is Verdict.RECORDED
    assert refill(2) == ([two, three], False)
    outcomes = db.do(LeaseRuns(elsewhere, (three, two), FLOW_RUN))
    assert [getattr(outcome, "id", outcome) for outcome in outcomes] == [three, Refusal.HELD_BACK]


def test_who_passes_a_filter_is_read_no_further_than_need_be() -> None:
    full = [FullFilter("f", QueueFilter(tags=("a",)), 1)]
    rows = iter(
        [("1", '["a"]', ONE), ("2", "[]", ONE), ("3", '["a"]', None), ("4", '["a"]', ONE), ("5", "[]", ONE)]
    )
    assert first_not_held(rows, full, 2) == ([("2", "[]", ONE), ("3", '["a"]', None)], True)
    assert next(rows)[0] == "4"
    assert first_not_held(rows, full, 2) == ([("5", "[]", ONE)], False)


def test_runs_are_not_put_into_a_queue_that_has_a_filter(db: Database, path: Path) -> None:
    filtering = create(db, "f", filter='{"tags":["a"]}')
    before = everything(db)
    with pytest.raises(Invalid, match="by a filter") as refused:
        db.do(Resolve(None, "f"))
    assert refused.value.field == "work_queue_name"
    assert db.do(EnsureQueue("f")) == filtering, "it is there"
    assert everything(db) == before


def test_a_queue_with_runs_of_its_own_gets_no_filter(db: Database, path: Path) -> None:
    own = create(db, "own")
    (run_id,) = insert_flow_runs(path, {"work_queue_id": own})
    before = everything(db)
    with pytest.raises(Invalid, match="runs of its own"):
        update(db, "own", filter='{"tags":["a"]}')
    assert everything(db) == before
    set_state(path, run_id, "COMPLETED")
    update(db, "own", filter='{"tags":["a"]}')
    assert queue(db, "own").filter == QueueFilter(tags=("a",))
