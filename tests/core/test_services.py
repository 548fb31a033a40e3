"""Late runs and retention, on a broker."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runlane.config import ServicesSection
from runlane_broker.services.late_runs import MarkLateRuns
from runlane_broker.services.retention import Retain
from runlane_broker.settings import Settings

from ..storage.flow_runs import insert_flow_runs
from ..support import SECOND, START, new_database, run
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


def test_more_than_a_batch_goes_in_one_pass(path: Path) -> None:
    async def main() -> None:
        async with broker(path, settings=services(keep_failures=1.0)) as b:
            old = [{"state_type": "FAILED", "end_time": START - i * SECOND} for i in range(450)]
            insert_flow_runs(path, *old, {"state_type": "FAILED", "end_time": START + 9 * SECOND})
            b.clock.advance(2)
            assert await Retain(b.core).run_once() == {"task_runs": 0, "flow_runs": 450, "left": 0}
            assert ask(path, "SELECT count(*) FROM flow_run") == [(1,)]

    run(main())
