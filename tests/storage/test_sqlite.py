from __future__ import annotations

import asyncio
import random
import re
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

from runlane.protocol.states import StateType
from runlane_broker.errors import Conflict, StoreUnavailable
from runlane_broker.storage import queries as q
from runlane_broker.storage.operations.base import Operation
from runlane_broker.storage.operations.creating import CreateRuns
from runlane_broker.storage.operations.leasing import FinishRun
from runlane_broker.storage.operations.sessions import BeatBroker, StartBroker
from runlane_broker.storage.queries import batches as qb
from runlane_broker.storage.queries.queues import all_scheduled, first_scheduled
from runlane_broker.storage.records import SCHEDULED_LANE, Created, Creation, QueuedRecord, Refill, Verdict
from runlane_broker.storage.sqlite import BUSY_AGAIN_SECONDS, BUSY_SECONDS, Compiler, SqliteExecutor, connect
from runlane_broker.storage.store import Store

from ..support import SECOND, START, Broken, ControlledExecutor, FakeClock, Gate, make_run, new_database, run
from .conformance import StoreConformance
from .database import COMPLETED, Database, Row
from .surface_conformance import SurfaceConformance


class Keep:
    """Lends an executor to a store that closes it."""

    def __init__(self, executor: SqliteExecutor) -> None:
        self.executor = executor

    def execute(self, operations: Sequence[Any], *, sync: bool = True) -> list[Any]:
        return self.executor.execute(operations, sync=sync)

    def close(self) -> None:
        pass


def open_database(
    path: Path,
    *,
    broker_id: str = "broker",
    clock: FakeClock | None = None,
    connect: Callable[[Path], sqlite3.Connection] = connect,
) -> Iterator[Database]:
    clock = clock or FakeClock()
    executor = SqliteExecutor(path, clock, broker_id, source=random.Random(7), connect=connect)
    other = sqlite3.connect(path, isolation_level=None, timeout=5)

    def query(text: str) -> Sequence[Row]:
        return other.execute(text).fetchall()

    db = Database(clock, broker_id, executor, lambda: Store.sqlite(path, clock, broker_id, Keep(executor)), query)
    db.start_broker()
    try:
        yield db
    finally:
        db.close()
        executor.close()
        other.close()


class TestSqlite(StoreConformance, SurfaceConformance):
    @pytest.fixture
    def db(self, tmp_path: Path) -> Iterator[Database]:
        yield from open_database(new_database(tmp_path))


# --- Commits of unknown outcome -----------------------------------------------------------------------------


class Cursor(sqlite3.Cursor):
    """Counts transactions, and breaks commits as it is told to."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        connection = self.connection
        assert isinstance(connection, Breakable)
        if sql == "BEGIN IMMEDIATE":
            connection.transactions += 1
        if sql == "COMMIT" and connection.breaks:
            return connection.breaks.pop(0)(self)
        return super().execute(sql, *parameters)

    def really_commit(self) -> sqlite3.Cursor:
        return super().execute("COMMIT")


class Breakable(sqlite3.Connection):
    transactions = 0

    def __init__(self, *args: Any, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.breaks: list[Callable[[Cursor], Any]] = []

    def cursor(self, factory: Any = Cursor) -> Any:
        return super().cursor(factory)


def connect_breakable(path: Path) -> Breakable:
    connection = sqlite3.connect(
        path, timeout=0.01, isolation_level=None, check_same_thread=False, factory=Breakable
    )
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def committed_but_raises(cursor: Cursor) -> None:
    cursor.really_commit()
    raise sqlite3.OperationalError("disk I/O error")


def raises_before_commit(cursor: Cursor) -> None:
    raise sqlite3.OperationalError("disk I/O error")


def rolls_back(cursor: Cursor) -> None:
    cursor.connection.execute("ROLLBACK")
    raise sqlite3.OperationalError("disk I/O error")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    for database in open_database(new_database(tmp_path), connect=connect_breakable):
        yield database
        database.audit()


def breakable(db: Database) -> Breakable:
    connection = db.executor._connection  # type: ignore[attr-defined]
    assert isinstance(connection, Breakable)
    return connection


def test_a_commit_that_raises_after_it_happened_has_happened(db: Database) -> None:
    holder = db.session()
    run, held = make_run(), db.leased(holder)
    breakable(db).breaks = [committed_but_raises]
    created, reported = db.execute(
        CreateRuns((run,)), FinishRun(holder.session_id, held, 1, db.clock.now(), COMPLETED)
    )
    assert created == (Created(run.id, Creation.CREATED),)
    assert reported.verdict is Verdict.RECORDED
    assert db.names(run.id) == ["Scheduled"]
    assert db.names(held) == ["Scheduled", "Pending", "Completed"]


@pytest.mark.parametrize("fault", [raises_before_commit, rolls_back])
def test_a_commit_that_raises_before_it_happened_has_done_nothing(
    db: Database, fault: Callable[[Cursor], Any]
) -> None:
    runs = make_run(), make_run()
    breakable(db).breaks = [fault]
    with db.unchanged():
        outcomes = db.execute(*(CreateRuns((run,)) for run in runs))
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 2
    assert [created.how for created in db.create(*runs)] == [Creation.CREATED] * 2


@pytest.mark.parametrize("commits", [True, False])
def test_no_outcome_is_told_before_the_commit_can_be_looked_up(tmp_path: Path, commits: bool) -> None:
    waits: list[float] = []
    connections: list[Breakable] = []

    def connect(path: Path) -> Breakable:
        connections.append(connect_breakable(path))
        return connections[-1]

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            connections[-1].set_authorizer(None)

    path = new_database(tmp_path)
    executor = SqliteExecutor(path, FakeClock(), "broker", connect=connect, wait=wait)
    executor.execute([StartBroker("broker", "test")])

    def unreadable(cursor: Cursor) -> None:
        if commits:
            cursor.really_commit()
        else:
            cursor.connection.execute("ROLLBACK")
        connections[-1].set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
        raise sqlite3.OperationalError("disk I/O error")

    run = make_run()
    connections[-1].breaks = [unreadable]
    (outcome,) = executor.execute([CreateRuns((run,))])
    assert len(waits) == 3
    assert isinstance(outcome, StoreUnavailable) is not commits
    again = executor.execute([CreateRuns((run,))])
    assert again == [(Created(run.id, Creation.EXISTED if commits else Creation.CREATED),)]
    executor.close()


def test_operations_of_a_group_that_failed_are_redone_one_by_one_and_written_once(db: Database) -> None:
    runs = [make_run() for _ in range(3)]
    connection = breakable(db)
    before = connection.transactions
    outcomes = db.execute(CreateRuns((runs[0],)), CreateRuns((runs[1],)), Broken(), CreateRuns((runs[2],)))
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, False, True, False]
    assert connection.transactions - before == 5
    assert db.refilled() == [run.id for run in runs]


def test_who_is_refused_before_anything_is_written_costs_the_others_nothing(db: Database) -> None:
    class Counted(CreateRuns):
        times = 0

        def execute(self, tx: Any) -> Any:
            Counted.times += 1
            return super().execute(tx)

    refusal = Broken(Conflict("it is there already"))
    run = make_run()
    created, refused = db.execute(Counted((run,)), refusal)
    assert refused is refusal.error
    assert [one.id for one in created] == [run.id]
    assert Counted.times == 1, "the group has been committed as it is"
    assert db.run(run.id) is not None


def test_what_was_written_before_a_refusal_is_taken_back(db: Database) -> None:
    written, kept = make_run(), make_run()
    refusal = Broken(Conflict("it is there already"), CreateRuns((written,)))
    refused, _ = db.execute(refusal, CreateRuns((kept,)))
    assert refused is refusal.error
    assert db.query("SELECT id FROM task_run") == [(kept.id,)]


def test_a_redone_operation_whose_commit_fails_fails_alone(db: Database) -> None:
    one, two = make_run(), make_run()
    breakable(db).breaks = [raises_before_commit]
    outcomes = db.execute(CreateRuns((one,)), Broken(), CreateRuns((two,)))
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable, ValueError, tuple]
    assert db.refilled() == [two.id]


# --- A database that cannot be written ----------------------------------------------------------------------


@pytest.fixture
def other(db: Database, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody else who has the file open."""
    connection = sqlite3.connect(tmp_path / "runlane.db", isolation_level=None, timeout=0)
    yield connection
    connection.close()


def test_a_locked_database_is_unavailable_at_once_and_back_when_it_is_not(
    db: Database, other: sqlite3.Connection
) -> None:
    run = make_run()
    other.execute("BEGIN IMMEDIATE")
    outcomes = db.execute(CreateRuns((run,)), BeatBroker(db.broker_id))
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 2
    assert db.refill() == Refill((), None), "reading goes on"
    other.execute("ROLLBACK")
    assert db.create(run) == (Created(run.id, Creation.CREATED),)


def test_a_group_that_meets_a_lock_is_not_tried_again_one_by_one(db: Database, other: sqlite3.Connection) -> None:
    """Each would wait for the lock again, and hold up everybody behind it."""
    connection = breakable(db)
    other.execute("BEGIN IMMEDIATE")
    before = connection.transactions
    db.execute(*(BeatBroker(db.broker_id) for _ in range(50)))
    assert connection.transactions - before == 1
    other.execute("ROLLBACK")


def test_who_has_waited_in_vain_for_a_lock_does_not_wait_as_long_again(
    db: Database, other: sqlite3.Connection
) -> None:
    """Or everybody who writes meanwhile would be refused only after the whole wait, one group after the other."""

    def patience() -> float:
        return breakable(db).execute("PRAGMA busy_timeout").fetchone()[0] / 1000

    other.execute("BEGIN IMMEDIATE")
    for _ in range(2):
        assert [type(outcome) for outcome in db.execute(BeatBroker(db.broker_id))] == [StoreUnavailable]
        assert patience() == BUSY_AGAIN_SECONDS
    other.execute("ROLLBACK")
    db.execute(BeatBroker(db.broker_id))
    assert patience() == BUSY_SECONDS


def test_a_full_disk_is_unavailable_writes_nothing_by_halves_and_recovers(
    db: Database, other: sqlite3.Connection
) -> None:
    holder = db.session()
    running = db.running(holder)
    connection = breakable(db)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    large = CreateRuns(tuple(make_run(parameters=b'"' + b"x" * 5000 + b'"') for _ in range(20)))
    report = FinishRun(holder.session_id, running, 1, db.clock.now(), COMPLETED, b'"' + b"y" * 50_000 + b'"')
    with db.unchanged():
        outcomes = [*db.execute(large, report), *db.execute(report)]
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
    db.audit()
    connection.execute("PRAGMA max_page_count = 1000000")
    created, reported = db.execute(large, report)
    assert {outcome.how for outcome in created} == {Creation.CREATED}
    assert reported.verdict is Verdict.RECORDED


def test_two_executors_on_one_file_take_turns(db: Database, tmp_path: Path) -> None:
    """There is a lock against it; what gets past it must still not break anything."""
    second = SqliteExecutor(tmp_path / "runlane.db", db.clock, "broker")
    runs = [make_run() for _ in range(10)]
    try:
        for i, run in enumerate(runs):
            (outcome,) = (db.executor if i % 2 else second).execute((CreateRuns((run,)),))
            assert outcome == (Created(run.id, Creation.CREATED),)
    finally:
        second.close()
    assert db.refilled() == [run.id for run in runs]


def test_a_new_executor_goes_on_after_the_last_state_although_the_clock_went_back(tmp_path: Path) -> None:
    path = new_database(tmp_path)
    clock = FakeClock()
    for first in open_database(path, clock=clock):
        holder = first.session("t")
        run_id = first.running(holder)
    clock.set_wall(-3600)
    for second in open_database(path, clock=clock, broker_id="next"):
        assert second.finish(holder, run_id).verdict is Verdict.RECORDED
        assert second.names(run_id) == ["Scheduled", "Pending", "Running", "Completed"]
        second.audit()


def test_what_is_committed_survives_without_a_close(db: Database, tmp_path: Path) -> None:
    """As after a kill: the file and its log are copied while both are in use."""
    run_id = db.running(db.session())
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tmp_path.glob("runlane.db*"):
        (copy / file.name).write_bytes(file.read_bytes())
    for later in open_database(copy / "runlane.db", broker_id="next"):
        assert later.run(run_id).state.type is StateType.RUNNING
        later.audit()
        assert later.query("PRAGMA integrity_check") == [("ok",)]
        assert later.query("PRAGMA foreign_key_check") == []


# --- How it is opened, and what its plans are ---------------------------------------------------------------


def test_every_connection_of_the_writer_is_safe(tmp_path: Path) -> None:
    connection = connect(new_database(tmp_path))
    try:
        found = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in
                 ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")}  # fmt: skip
    finally:
        connection.close()
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 2000}


def test_a_commit_waits_for_the_disk_unless_it_is_told_not_to(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class HowSafe(Operation[int]):
        """Tells what the commit to come will wait for: 2 is FULL, 1 is NORMAL."""

        def execute(self, tx: Any) -> int:
            return tx._cursor.execute("PRAGMA synchronous").fetchone()[0]

    executor = SqliteExecutor(new_database(tmp_path), FakeClock(), "broker")
    try:
        found = [executor.execute([HowSafe()], sync=sync) for sync in (True, False, False, True)]
    finally:
        executor.close()
    assert found == [[2], [1], [1], [2]]


def test_a_reading_connection_writes_nothing(db: Database) -> None:
    async def write() -> None:
        async with db.store._reading() as connection:
            await connection.exec_driver_sql("DELETE FROM task_run")

    db.queued()
    with db.unchanged(), pytest.raises(StoreUnavailable, match="readonly"):
        db.wait(write())


def plan(connection: sqlite3.Connection, statement: Any) -> list[str]:
    """The steps with which SQLite would run a statement."""
    text = str(statement.compile(dialect=sqlite_dialect(), compile_kwargs={"literal_binds": False}))
    values = statement.compile(dialect=sqlite_dialect())
    given = {"task_key_": "k", "now_": START, "limit_": 256}
    rows = connection.execute(
        f"EXPLAIN QUERY PLAN {text}", [given.get(name, values.params[name]) for name in values.positiontup]
    )
    return [row[3] for row in rows]


@pytest.mark.parametrize(
    ("statement", "searches"), [(q.FIRST_DUE, 20), (q.NEXT_DUE, 20)], ids=["FIRST_DUE", "NEXT_DUE"]
)
def test_refills_search_the_dispatch_index_and_neither_scan_nor_sort_the_table(
    db: Database, other: sqlite3.Connection, statement: Any, searches: int
) -> None:
    steps = plan(other, statement)
    on_table = [step for step in steps if "task_run" in step]
    assert len(on_table) == searches
    for step in on_table:
        assert re.match("SEARCH task_run USING (COVERING )?INDEX ix_task_run_dispatch ", step), step
        assert "task_key=? AND priority=? AND lane=?" in step
    assert [step for step in steps if "TEMP B-TREE" in step] == []


@pytest.mark.parametrize(
    "statement", [qb.read_shown_runs, qb.read_all_parameters, qb.lease_runs, qb.insert_leased_states]
)
def test_what_is_leased_together_is_found_by_its_ids(other: sqlite3.Connection, statement: q.Query) -> None:
    compiled = Compiler()(statement)
    values = compiled.bind({"ids": "[]", "leases": "[]", "now": START, "session_id": "s"})
    steps = [row[3] for row in other.execute(f"EXPLAIN QUERY PLAN {compiled.text}", values)]
    on_tables = [step for step in steps if "task_run" in step or "state" in step]
    assert on_tables
    assert all(re.match(r"SEARCH \w+ USING PRIMARY KEY ", step) for step in on_tables), steps


def steps_of(connection: sqlite3.Connection, task: Callable[[], Any]) -> int:
    """How many thousand instructions of SQLite's machine a task takes, at least."""
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1

    connection.set_progress_handler(tick, 1000)
    task()
    connection.set_progress_handler(None, 0)
    return count


def test_a_refill_behind_many_future_runs_of_higher_priorities_reads_none_of_them(
    db: Database, other: sqlite3.Connection
) -> None:
    later = START + 3600 * SECOND
    db.create(*(make_run(priority=9, due=later + i) for i in range(10_000)))
    db.create(*(make_run(priority=5, due=later - i) for i in range(10_000)))
    due = [db.queued(priority=priority) for priority in (7, 5, 0)]
    assert db.refill() == Refill(
        tuple(QueuedRecord(id_, "k", p, SCHEDULED_LANE, START) for id_, p in zip(due, (7, 5, 0), strict=True)),
        later - 9_999,
    )
    dialect = sqlite_dialect()
    given = {"task_key_": "k", "now_": START, "limit_": 256}
    for statement in (q.FIRST_DUE, q.NEXT_DUE):
        compiled: Any = statement.compile(dialect=dialect)
        values = [given.get(name, compiled.params[name]) for name in compiled.positiontup]
        task = lambda text=str(compiled), values=values: other.execute(text, values).fetchall()  # noqa: E731
        assert steps_of(other, task) < 5, "thousand instructions; reading them would take a hundred"


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (q.TASK_LEASES.read_of_session, "ix_task_run_session"),
        (q.read_idempotent, "uq_task_run_idempotency"),
        (q.TASK_LEASES.find_report, "ix_task_run_state_run"),
        (q.TASK_LEASES.read, "PRIMARY KEY"),
        (q.TASK_LEASES.lease, "PRIMARY KEY"),
        (q.expire_run, "PRIMARY KEY"),
        (q.TASK_LEASES.start, "PRIMARY KEY"),
        (q.TASK_LEASES.end, "PRIMARY KEY"),
        (q.FLOW_LEASES.find_report, "ix_flow_run_state_run"),
        (q.FLOW_LEASES.lease, "PRIMARY KEY"),
        (q.FLOW_LEASES.start, "PRIMARY KEY"),
        (q.FLOW_LEASES.end, "PRIMARY KEY"),
        (first_scheduled, "ix_flow_run_queued"),
        (all_scheduled, "ix_flow_run_queued"),
        (q.write_outcome, "PRIMARY KEY"),
        (q.holds_session, "PRIMARY KEY"),
    ],
)
def test_every_statement_of_the_hot_path_is_an_index_search(
    db: Database, other: sqlite3.Connection, query: q.Query, index: str
) -> None:
    statement: Any = query()
    compiled = statement.compile(dialect=sqlite_dialect())
    values = [compiled.params.get(name) for name in compiled.positiontup]
    (step,) = [row[3] for row in other.execute(f"EXPLAIN QUERY PLAN {compiled}", values)]
    assert step.startswith("SEARCH ")
    assert index in step


# --- The store: one writer, groups, callers that go away ----------------------------------------------------


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[tuple[Store, ControlledExecutor, Breakable]]:
    clock = FakeClock()
    inner = SqliteExecutor(path, clock, "broker", source=random.Random(7), connect=connect_breakable)  # type: ignore[arg-type]
    executor = ControlledExecutor(inner)
    store = Store.sqlite(path, clock, "broker", executor)
    await store.run(StartBroker("broker", "1.0"))
    try:
        yield store, executor, inner._connection  # type: ignore[misc]
    finally:
        executor.before = lambda _: None
        await store.close()


def test_what_waits_while_one_is_held_up_is_one_transaction(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as (store, executor, connection):
            gate = executor.before = Gate()
            first = asyncio.ensure_future(store.run(BeatBroker("broker")))
            await gate.reached()
            before = connection.transactions
            runs = [make_run() for _ in range(100)]
            waiting = [asyncio.ensure_future(store.run(CreateRuns((run,)))) for run in runs]
            await asyncio.sleep(0)
            assert store.waiting == 101
            assert store.waiting_bytes == sum(len(run.parameters) for run in runs)
            gate.open()
            await first
            outcomes = await asyncio.gather(*waiting)
            assert [created.id for (created,) in outcomes] == [run.id for run in runs]
            assert connection.transactions - before == 2
            assert [len(group) for group in executor.groups[-2:]] == [1, 100]
            assert (store.waiting, store.waiting_bytes) == (0, 0)

    run(main())


def test_a_group_is_bounded_by_its_rows(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as (store, executor, _):
            gate = executor.before = Gate()
            first = asyncio.ensure_future(store.run(BeatBroker("broker")))
            await gate.reached()
            batches = [tuple(make_run() for _ in range(400)) for _ in range(5)]
            waiting = [asyncio.ensure_future(store.run(CreateRuns(batch))) for batch in batches]
            await asyncio.sleep(0)
            gate.open()
            await asyncio.gather(first, *waiting)
            assert [len(group) for group in executor.groups[-3:]] == [1, 3, 2]

    run(main())


def test_what_nobody_waits_for_goes_with_the_next_group_in_its_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as (store, executor, _):
            outcomes: list[Any] = []
            store.submit(Lazy(), outcomes.append)
            store.submit(Lazy(), outcomes.append)
            await asyncio.sleep(0)
            assert executor.executed(Lazy) == []
            await store.run(BeatBroker("broker"))
            assert len(outcomes) == 2
            assert [type(operation) for group in executor.groups[1:] for operation in group] == [
                Lazy, Lazy, BeatBroker,
            ]  # fmt: skip
            assert store.waiting == 0

    run(main())


def test_what_nobody_waits_for_is_committed_soon_all_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as (store, _, _):
            await store.run(Lazy())

    run(main())


def test_closing_commits_also_what_nobody_waits_for(tmp_path: Path) -> None:
    async def main() -> None:
        outcomes: list[Any] = []
        async with opened(new_database(tmp_path)) as (store, _, _):
            store.submit(Lazy(), outcomes.append)
        assert outcomes == [None]

    run(main())


def test_a_caller_that_is_cancelled_does_not_cancel_its_transaction(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as (store, executor, _):
            gate = executor.before = Gate()
            new, other = make_run(), make_run()
            caller = asyncio.ensure_future(store.run(CreateRuns((new,))))
            await gate.reached()
            queued = asyncio.ensure_future(store.run(CreateRuns((other,))))
            await asyncio.sleep(0)
            caller.cancel()
            queued.cancel()
            await asyncio.gather(caller, queued, return_exceptions=True)
            gate.open()
            await store.run(BeatBroker("broker"))
            assert (await store.outcomes([new.id, other.id])) == {new.id: None, other.id: None}
            assert store.waiting == 0

    run(main())


def test_closing_commits_and_delivers_what_waits(tmp_path: Path) -> None:
    path = new_database(tmp_path)
    runs = [make_run() for _ in range(20)]

    async def main() -> None:
        async with opened(path) as (store, executor, _):
            gate = executor.before = Gate()
            outcomes: list[Any] = []
            for new in runs:
                store.submit(CreateRuns((new,)), outcomes.append)
            await gate.reached()
            closing = asyncio.ensure_future(store.close())
            await asyncio.sleep(0)
            store.submit(CreateRuns((make_run(),)), outcomes.append)
            gate.open()
            await closing
            assert len(outcomes) == 21
            refused = [outcome for outcome in outcomes if isinstance(outcome, StoreUnavailable)]
            assert len(refused) == 1, "what comes after the close is refused"
            assert str(refused[0]) == "the broker is shutting down"
            await store.close()  # again is harmless

    run(main())
    for later in open_database(path):
        assert later.refilled() == [new.id for new in runs]


def test_one_callback_that_fails_costs_the_others_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as (store, executor, _):
            reported: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
            gate = executor.before = Gate()
            outcomes: list[Any] = []

            def fail(_: Any) -> None:
                raise ZeroDivisionError

            store.submit(BeatBroker("broker"), outcomes.append)
            await gate.reached()
            store.submit(BeatBroker("broker"), fail)
            store.submit(BeatBroker("broker"), outcomes.append)
            gate.open()
            await store.run(BeatBroker("broker"))
            assert len(outcomes) == 2
            assert [type(context["exception"]) for context in reported] == [ZeroDivisionError]

    run(main())


def test_a_failed_operation_raises_at_its_caller(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(new_database(tmp_path)) as (store, executor, _):
            with pytest.raises(ValueError, match="broken"):
                await store.run(Broken())
            executor.fails = lambda _: True
            with pytest.raises(StoreUnavailable):
                await store.run(BeatBroker("broker"))

    run(main())


def test_reading_a_database_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "nothing" / "runlane.db"
        clock = FakeClock()
        store = Store.sqlite(path, clock, "broker", Idle())
        try:
            for read in (store.refill("k", 0, 1), store.run_by_id("x"), store.outcomes(["x"]), store.backlog()):
                with pytest.raises(StoreUnavailable):
                    await read
        finally:
            await store.close()

    run(main())


class Lazy(Operation[None]):
    @property
    def urgent(self) -> bool:
        return False

    def execute(self, tx: Any) -> None:
        BeatBroker("broker").execute(tx)


class Idle:
    def execute(self, operations: Sequence[Any]) -> list[Any]:
        return [None] * len(operations)

    def close(self) -> None:
        pass
