"""Late runs and retention, on a broker."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runlane.config import ServicesSection
from runlane_broker.core.core import Core
from runlane_broker.services.audit import Auditor
from runlane_broker.services.expiry import Expire
from runlane_broker.services.late_runs import MarkLateRuns
from runlane_broker.services.retention import Retain
from runlane_broker.services.service import Service
from runlane_broker.services.sweep import Sweep
from runlane_broker.settings import Settings
from runlane_broker.storage.operations.expiry import BATCH
from runlane_broker.storage.operations.retention import STEP
from runlane_broker.storage.queries.expiry import expired_runs, next_expiry
from runlane_broker.storage.sqlite import Compiler

from ..storage.flow_runs import insert_flow_runs
from ..support import SECOND, START, Gate, make_run, new_database, run
from .harness import broker


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_database(tmp_path)


def services(**changes: Any) -> Settings:
    return replace(Settings(), services=replace(ServicesSection(), **changes))


def ask(path: Path, text: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(text).fetchall()


# --- Late runs ----------------------------------------------------------------------------------------------


def test_a_late_run_says_what_keeps_it_and_runs_when_it_can(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            producer = b.producer()
            worker = await b.worker(limit=1)
            await b.quiet()
            busy = await producer.queued()
            await worker.wait_for("run")
            worker.started(busy)
            full, lonely = await producer.queued(), await producer.queued("unserved")
            b.clock.advance(16)
            service = MarkLateRuns(b.core)
            assert await service.run_once() == {"task_runs": 2, "flow_runs": 0}
            assert await service.run_once() == {"task_runs": 0, "flow_runs": 0}
            assert "the worker of this task has no free slot" in str((await b.run(full)).state.message)
            assert "no worker serves this task" in str((await b.run(lonely)).state.message)
            worker.finished(busy)
            await worker.wait_for("run", 2)
            assert (await b.run(full)).state.name == "Pending"

    run(main())


def test_each_key_has_the_patience_that_it_was_given(path: Path) -> None:
    async def main() -> None:
        settings = services(late_after=15.0, late_after_of={"fast": 1.0, "slow": 60.0})
        async with broker(path, settings=settings) as b:
            for key in ("fast", "k", "slow"):
                await b.producer().queued(key)
            service = MarkLateRuns(b.core)
            for seconds, marked in ((2, 1), (14, 1), (30, 0), (15, 1)):
                b.clock.advance(seconds)
                assert (await service.run_once())["task_runs"] == marked

    run(main())


def test_a_pass_over_nothing_writes_nothing_and_says_when_a_run_can_be_late(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            late, expiry = MarkLateRuns(b.core), Expire(b.core)
            for service in (late, expiry):
                await service.run_once()
                assert service.pause() >= 4.5, "nobody waits"
            await b.producer().queued("k", expires=START + 3 * SECOND)
            await b.quiet()
            written = len(b.executor.groups)
            b.clock.advance(1)
            assert await late.run_once() == {"task_runs": 0, "flow_runs": 0}
            assert await expiry.run_once() == {"expired": 0}
            assert len(b.executor.groups) == written
            assert 2 <= expiry.pause() <= 2.2
            b.clock.advance(12)
            await late.run_once()
            assert 2 <= late.pause() <= 2.2

    run(main())


# --- Runs that come due -------------------------------------------------------------------------------------


def test_runs_that_come_due_are_shown_as_a_service(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            shown = {state.name: state for state in b.core.services}["due_runs"]
            assert (shown.running, shown.runs) == (True, 0)
            worker = await b.worker("k")
            await b.quiet()
            await b.producer().queued("k", due=START + SECOND)
            b.clock.advance(1)
            b.core.dispatching.time_changed()
            await worker.wait_for("run")
            assert (shown.runs, shown.counts, shown.last_run) == (1, {"keys": 1}, START + SECOND)
        assert not shown.running

    run(main())


def test_runs_that_come_due_wait_where_that_is_switched_off(path: Path) -> None:
    async def main() -> None:
        async with broker(path, settings=services(due=False)) as b:  # whose auditor finds nothing in the end
            (shown,) = [state for state in b.core.services if state.name == "due_runs"]
            assert (shown.enabled, shown.running) == (False, False)
            worker = await b.worker("k", limit=2)
            await b.quiet()
            await b.producer().queued("k", due=START + SECOND)
            b.clock.advance(1)
            b.core.dispatching.time_changed()
            await b.quiet()
            assert worker.pushed_ids == []

    run(main())


# --- What is switched off -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "off"),
    [
        (Sweep, {"lost": False}),
        (MarkLateRuns, {"late": False}),
        (Expire, {"expiry": False}),
        (Retain, {"keep_successes": 0.0, "keep_failures": 0.0}),
        (Auditor, {"audit": False}),
    ],
)
def test_what_is_switched_off_is_shown_so_and_does_not_start(
    path: Path, service: Callable[[Core], Service], off: dict[str, Any]
) -> None:
    async def main() -> None:
        for given, is_on in ((services(keep_successes=1.0), True), (services(**off), False)):
            async with broker(path, settings=given) as b:
                one = service(b.core)
                assert one.state.enabled is is_on
                one.start()
                assert one.state.running is is_on
                await one.stop()

    run(main())


# --- Expiry -------------------------------------------------------------------------------------------------


def test_what_has_expired_ends_also_if_nobody_asks_for_it(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            producer = b.producer()
            expired = await producer.queued("unserved", expires=START + SECOND)
            later = await producer.queued("unserved", expires=START + 9 * SECOND)
            lasting = await producer.queued("unserved")
            await producer.watch(expired, later, lasting)
            service = Expire(b.core)
            b.clock.advance(1)
            assert await service.run_once() == {"expired": 1}
            assert await service.run_once() == {"expired": 0}
            assert [event[1:3] for event in producer.of("finished")] == [(expired, "CANCELLED")]
            run_ = await b.run(expired)
            assert (run_.state.type, run_.state.name, run_.end_time) == (
                "CANCELLED",
                "Expired",
                run_.state.timestamp,
            )
            assert await b.names(expired) == ["Scheduled", "Expired"]
            for waiting in (later, lasting):
                assert await b.state(waiting) == ("SCHEDULED", "Scheduled")

    run(main())


def test_the_dispatcher_forgets_what_has_expired(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker(limit=0)
            await b.quiet()
            expired = await b.producer().queued(expires=START + SECOND)
            window = b.core.dispatcher.queue("k")
            assert window is not None
            assert expired in window
            b.clock.advance(1)
            assert await Expire(b.core).run_once() == {"expired": 1}
            assert expired not in window
            b.core.sessions.set_limit(worker.own, 1)
            await b.quiet()
            assert worker.pushed == []

    run(main())


def test_a_lease_that_is_under_way_comes_before_an_expiry_or_after_it(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            worker = await b.worker(limit=1)
            await b.quiet()
            gate = Gate()
            b.executor.before = gate
            producer = b.producer()
            producer.submit(make_run(expires=START + SECOND))
            await gate.reached()
            b.clock.advance(1)
            expiry = asyncio.create_task(b.core.expiry.end())
            gate.open()
            assert await expiry == 0, "it was leased in time, in the transaction that made it"
            await worker.wait_for("run")
            assert await b.core.expiry.end() == 0

    run(main())


def test_more_than_a_batch_expires_in_one_pass(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            runs = [make_run("unserved", expires=START + i % 7) for i in range(2 * BATCH + 1)]
            await b.producer().submitted(*runs)
            b.clock.advance(1)
            assert await Expire(b.core).run_once() == {"expired": len(runs)}
            assert ask(path, "SELECT DISTINCT state_name FROM task_run") == [("Expired",)]

    run(main())


def test_expired_runs_are_found_by_their_index(path: Path) -> None:
    compiler = Compiler()
    for query in (expired_runs, next_expiry):
        compiled = compiler(query)
        with closing(sqlite3.connect(path)) as connection:
            params = compiled.bind({"now": 1, "limit": 1})
            rows = connection.execute(f"EXPLAIN QUERY PLAN {compiled.text}", params).fetchall()
        (step,) = [row[3] for row in rows]
        assert step.startswith("SEARCH task_run USING INDEX ix_task_run_expires (state_type=? AND expires")


# --- Retention ----------------------------------------------------------------------------------------------


def test_nothing_is_deleted_unless_somebody_says_so(path: Path) -> None:
    async def main() -> None:
        async with broker(path) as b:
            assert not Retain(b.core).state.enabled
            insert_flow_runs(path, {"state_type": "COMPLETED", "end_time": 1})
            assert await Retain(b.core).run_once() == {"task_runs": 0, "flow_runs": 0, "left": 0}

    run(main())


def test_successes_and_failures_have_ages_of_their_own(path: Path) -> None:
    async def main() -> None:
        async with broker(path, settings=services(keep_successes=10.0, keep_failures=100.0)) as b:
            worker = await b.worker(limit=2)
            await b.quiet()
            producer = b.producer()
            good, bad = await producer.queued(), await producer.queued()
            await worker.wait_for("run", 2)
            worker.started(good)
            worker.started(bad)
            worker.finished(good)
            worker.finished(bad, type_="FAILED")
            await worker.wait_for("recorded", 2)
            waiting = await producer.queued("unserved")
            service = Retain(b.core)
            for seconds, deleted in ((10, 0), (1, 1), (80, 0), (20, 1), (1000, 0)):
                b.clock.advance(seconds)
                assert (await service.run_once())["task_runs"] == deleted
            assert ask(path, "SELECT id FROM task_run") == [(waiting,)]
            assert ask(path, "SELECT DISTINCT task_run_id FROM task_run_state") == [(waiting,)]
            assert ask(path, "SELECT task_run_id FROM task_run_payload") == [(waiting,)]

    run(main())


def _give_task_runs(path: Path, flow_run_id: str, *states: str) -> None:
    """Make copies of the one task run that is there: as task runs of a flow run."""
    with closing(sqlite3.connect(path, timeout=5)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(task_run)")]
        for i, state in enumerate(states):
            run_id = f"{flow_run_id}-{i}"[-36:]
            other = {
                "id": f"'{run_id}'",
                "dynamic_key": f"'{i}'",
                "flow_run_id": f"'{flow_run_id}'",
                "state_type": f"'{state}'",
                "state_name": f"'{state}'",
                "end_time": f"{START}" if state == "COMPLETED" else "NULL",
            }
            values = ", ".join(other.get(name, name) for name in columns)
            connection.execute(f"INSERT INTO task_run SELECT {values} FROM task_run WHERE flow_run_id IS NULL")


def test_a_flow_run_goes_after_its_task_runs_and_not_before_they_have_ended(path: Path) -> None:
    async def main() -> None:
        async with broker(path, settings=services(keep_successes=10.0), audited=False) as b:
            pattern = await b.producer().queued("pattern")
            ended = {"state_type": "COMPLETED", "end_time": START, "state_name": "Completed"}
            done, busy, live = insert_flow_runs(path, ended, ended, {"state_type": "RUNNING"})
            _give_task_runs(path, done, "COMPLETED", "COMPLETED")
            _give_task_runs(path, busy, "RUNNING")
            b.clock.advance(11)
            counts = await Retain(b.core).run_once()
            assert counts == {"task_runs": 2, "flow_runs": 1, "left": 1}
            assert sorted(ask(path, "SELECT id FROM flow_run")) == [(busy,), (live,)]
            assert len(ask(path, "SELECT id FROM flow_run_state")) == 2
            left = ask(path, "SELECT id, flow_run_id FROM task_run")
            assert sorted(flow_run for _, flow_run in left if flow_run) == [busy]
            assert pattern in [run_id for run_id, _ in left]

    run(main())


def test_a_flow_run_with_more_task_runs_than_a_batch_goes_in_one_pass(path: Path) -> None:
    async def main() -> None:
        async with broker(path, settings=services(keep_successes=10.0), audited=False) as b:
            await b.producer().queued("pattern")
            (flow_run,) = insert_flow_runs(
                path, {"state_type": "COMPLETED", "end_time": START, "state_name": "Completed"}
            )
            _give_task_runs(path, flow_run, *["COMPLETED"] * 60)
            b.clock.advance(11)
            assert await Retain(b.core).run_once() == {"task_runs": 60, "flow_runs": 1, "left": 0}

    run(main())


def test_a_pass_that_runs_out_of_time_is_soon_followed_by_another(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with broker(path, settings=services(keep_failures=1.0)) as b:
            insert_flow_runs(path, *({"state_type": "FAILED", "end_time": START} for _ in range(2 * STEP + 10)))
            b.clock.advance(2)
            b.executor.after = lambda _: b.clock.advance(3)
            service = Retain(b.core)
            assert (await service.run_once())["flow_runs"] == 2 * STEP, "two steps, three seconds each"
            assert service.pause() <= 1
            assert (await service.run_once())["flow_runs"] == 10
            assert service.pause() >= 54

    run(main())


def test_more_than_a_batch_goes_in_one_pass(path: Path) -> None:
    async def main() -> None:
        async with broker(path, settings=services(keep_failures=1.0)) as b:
            old = [{"state_type": "FAILED", "end_time": START - i * SECOND} for i in range(450)]
            insert_flow_runs(path, *old, {"state_type": "FAILED", "end_time": START + 9 * SECOND})
            b.clock.advance(2)
            assert await Retain(b.core).run_once() == {"task_runs": 0, "flow_runs": 450, "left": 0}
            assert ask(path, "SELECT count(*) FROM flow_run") == [(1,)]

    run(main())
