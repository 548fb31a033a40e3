"""Tasks of `pool="process"`: what their processes do, and what is done to them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from runlane import Task, task
from runlane.protocol import messages as m
from runlane.worker import ProcessFailed, Worker
from tests.sdk.fake_broker import Peer, fake_broker, pushed, run

from . import cpu
from .support import error_of, gone, is_alive, result_of, working

pytestmark = pytest.mark.process
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and fork")


def timed(seconds: float, key: str, /, **parameters: object) -> m.PushedRun:
    return msgspec.structs.replace(pushed(key, **parameters), timeout=seconds)


async def ends_well(peer: Peer, polite: m.PushedRun) -> None:
    """Let a run end that has been going on meanwhile."""
    await peer.send(m.CancelRun(id=polite.id, attempt=1, grace_seconds=5))
    report = await peer.expect(m.Finished)
    assert report.id == polite.id
    assert result_of(report) == "as you wish"


def test_runs_execute_in_another_process_which_is_kept() -> None:
    async def main() -> None:
        async with working(cpu.pid, cpu.size) as (_, peer):
            await peer.push(pushed("cpu.pid"))
            first = result_of(await peer.finished())
            await peer.push(pushed("cpu.pid"))
            second = result_of(await peer.finished())
            assert first == second
            assert is_alive(first)
            text = "äöü" + "x" * 500_000
            await peer.push(pushed("cpu.size", text=text))
            assert result_of(await peer.finished()) == text[::-1]
        await gone([first])

    run(main())


def test_as_many_at_once_as_slots_and_each_in_its_own() -> None:
    async def main() -> None:
        async with working(cpu.sleep, limit=3) as (_, peer):
            await peer.push(*(pushed("cpu.sleep", seconds=0.5) for _ in range(3)))
            reports = [frame for frame in [await peer.next() for _ in range(6)] if isinstance(frame, m.Finished)]
            pids = {result_of(report) for report in reports}
            assert len(pids) == 3
        await gone(pids)

    run(main())


@posix
@pytest.mark.parametrize(
    ("key", "parameters", "says"),
    [
        ("cpu.exit", {"code": 3}, "exited with code 3 before its task had ended"),
        ("cpu.die", {}, "was ended by SIGKILL before its task had ended"),
    ],
)
def test_a_process_that_dies_fails_its_run_and_no_other(key: str, parameters: dict[str, int], says: str) -> None:
    async def main() -> None:
        async with working(cpu.exit, cpu.die, cpu.polite, cpu.pid, limit=2) as (_, peer):
            neighbour, one = pushed("cpu.polite"), pushed(key, **parameters)
            await peer.push(neighbour, one)
            await peer.expect(m.Started)
            await peer.expect(m.Started)
            report = await peer.expect(m.Finished)
            assert (report.id, report.retriable) == (one.id, None)
            assert says in error_of(report)["message"]
            assert error_of(report)["type"].endswith("ProcessFailed")
            await peer.push(pushed("cpu.pid"))
            assert result_of(await peer.finished()) > 0  # the pool has recovered
            await ends_well(peer, neighbour)

    run(main())


def test_a_timeout_kills_the_process_and_no_other() -> None:
    async def main() -> None:
        async with working(cpu.sleep, cpu.polite, cpu.pid, limit=2) as (worker, peer):
            neighbour = pushed("cpu.polite")
            await peer.push(neighbour)
            await peer.expect(m.Started)
            await peer.push(timed(0.2, "cpu.sleep", seconds=60.0))
            report = await peer.finished()
            assert (report.state.type, report.state.name) == ("FAILED", "TimedOut")
            await peer.push(pushed("cpu.pid"))
            assert result_of(await peer.finished()) > 0
            await ends_well(peer, neighbour)
            assert worker.stuck == 0

    run(main())


def test_a_cancel_is_asked_first_and_then_enforced() -> None:
    async def main() -> None:
        async with working(cpu.polite, cpu.sleep, limit=2) as (_, peer):
            polite, deaf = pushed("cpu.polite"), pushed("cpu.sleep", seconds=60.0)
            for one, grace in ((polite, 5.0), (deaf, 0.1)):
                await peer.push(one)
                await peer.expect(m.Started)
                await peer.send(m.CancelRun(id=one.id, attempt=1, grace_seconds=grace))
                report = await peer.expect(m.Finished)
                assert report.id == one.id
                if one is polite:
                    assert result_of(report) == "as you wish"
                else:
                    assert report.state.type == "CANCELLED"

    run(main())


def test_progress_snooze_logs_and_what_the_run_knows(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with working(cpu.count, cpu.snooze, cpu.log, cpu.about, limit=1) as (_, peer):
            await peer.push(pushed("cpu.count"))
            await peer.expect(m.Started)
            progress = await peer.expect(m.Progress)
            assert (progress.current, progress.total, progress.message) == (999, 1000, "going")
            await peer.expect(m.Finished)

            await peer.push(pushed("cpu.snooze"))
            await peer.expect(m.Started)
            (released,) = (await peer.expect(m.Release)).runs
            assert (released.delay, released.reason) == (7.0, "The task snoozed.")

            await peer.push(one := pushed("cpu.log"))
            await peer.finished()
            first, second = (record for record in caplog.records if record.name == "runlane.run")
            assert first.getMessage() == f"[cpu.log {one.id}] hello you"
            assert (first.levelname, first.run_id) == ("WARNING", one.id)
            assert first.process != os.getpid()
            assert second.exc_text is not None
            assert "ValueError: bad" in second.exc_text

            headers = {"trace": "1"}
            about = msgspec.structs.replace(pushed("cpu.about", attempt=4), timeout=60.0, headers=headers)
            await peer.push(about)
            id_, attempt, key, known, deadline, resources = result_of(await peer.finished())
            assert (id_, attempt, key, known) == (about.id, 4, "cpu.about", headers)
            assert 50 < deadline - datetime.now(UTC).timestamp() < 60
            assert "has no resources" in resources

    run(main())


def test_what_fails_there_is_told_here() -> None:
    async def main() -> None:
        async with working(cpu.fail, cpu.large, cpu.size, limit=1) as (_, peer):
            await peer.push(pushed("cpu.fail"))
            report = await peer.finished()
            assert report.retriable is False
            error = error_of(report)
            assert (error["type"], error["message"]) == ("ValueError", "bad")
            assert "cpu.py" in error["traceback"]
            assert "calling.py" not in error["traceback"]
            await peer.push(pushed("cpu.large"))
            report = await peer.finished()
            assert (report.state.name, report.retriable) == ("ResultTooLarge", False)
            await peer.push(pushed("cpu.size", number=5))
            report = await peer.finished()
            assert report.retriable is False
            assert "unknown argument 'number'" in error_of(report)["message"]

    run(main())


@posix
def test_an_idle_process_that_has_died_is_replaced_unseen() -> None:
    async def main() -> None:
        async with working(cpu.pid) as (_, peer):
            await peer.push(pushed("cpu.pid"))
            pid = result_of(await peer.finished())
            os.kill(pid, signal.SIGKILL)
            await peer.push(pushed("cpu.pid"))
            assert result_of(await peer.finished()) != pid

    run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("how", ["crash", "timeout"])
def test_what_a_task_has_started_ends_with_it(how: str) -> None:
    async def main() -> None:
        async with working(cpu.family) as (_, peer):
            timeout, seconds = (0.5, 60.0) if how == "timeout" else (60.0, 0.3)
            await peer.push(timed(timeout, "cpu.family", seconds=seconds))
            await peer.expect(m.Started)
            child = int((await peer.expect(m.Progress)).current)
            report = await peer.expect(m.Finished)
            assert report.state.type == "FAILED"
            await gone([child])

    run(main())


def elsewhere() -> Task[..., None]:
    @task(key="inner", pool="process")
    def inner() -> None: ...

    return inner


def test_a_task_that_no_process_can_import_keeps_the_worker_from_starting() -> None:
    async def main() -> None:
        async with fake_broker() as broker:
            with pytest.raises(ProcessFailed, match="no task with the key inner"):
                await Worker([elsewhere()], settings=broker.settings).run()
            assert broker.connections == 0

    run(main())


BREAKS = """
import os
from runlane import task

@task(key="later.one", pool="process")
def one() -> int:
    return os.getpid()

if os.path.exists(__file__ + ".break"):
    raise RuntimeError("half of a deployment")
"""


def test_a_module_that_breaks_later_fails_its_runs_and_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "later_of_cpu.py").write_text(BREAKS)
    monkeypatch.syspath_prepend(tmp_path)
    import later_of_cpu  # type: ignore[import-not-found]

    async def main() -> None:
        async with working(later_of_cpu.one, cpu.exit, limit=2) as (_, peer):
            await peer.push(pushed("cpu.exit", code=0))
            await peer.finished()
            marker = tmp_path / "later_of_cpu.py.break"
            marker.touch()
            await peer.push(pushed("later.one"))
            report = await peer.finished()
            assert report.retriable is None
            assert "RuntimeError: half of a deployment" in error_of(report)["message"]
            marker.unlink()
            await peer.push(pushed("later.one"))
            assert result_of(await peer.finished()) > 0

    caplog.set_level(logging.CRITICAL, "runlane.worker")
    run(main())


def test_the_end_of_the_worker_is_the_end_of_its_processes() -> None:
    async def main() -> None:
        async with working(cpu.sleep, cpu.pid, limit=2, drain_seconds=0.1) as (worker, peer):
            await peer.push(pushed("cpu.pid"))
            idle = result_of(await peer.finished())
            await peer.push(one := pushed("cpu.sleep", seconds=60.0))
            await peer.expect(m.Started)
            await asyncio.sleep(0.3)
            worker.stop()
            await peer.expect(m.SetLimit)
            assert (await peer.expect(m.Release)).runs[0].id == one.id
        await gone([idle])

    run(main())


@posix
def test_a_task_that_forks_and_returns_twice_reports_once() -> None:
    async def main() -> None:
        async with working(cpu.fork, cpu.pid) as (_, peer):
            pids: set[int] = set()
            for key in ("cpu.fork", "cpu.pid", "cpu.fork", "cpu.pid"):
                await peer.push(pushed(key))
                pids.add(result_of(await peer.finished()))
            assert len(pids) == 1

    run(main())
