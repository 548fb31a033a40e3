"""The worker against a broker that is spoken by hand."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from runlane import (
    ArgumentError,
    ConnectionFailed,
    RunlaneError,
    Task,
    Worker,
    WouldBlock,
    current_run,
    serve,
    task,
)
from runlane.protocol import messages as m
from runlane.protocol.messages import HeldRun

from .fake_broker import FakeBroker, Peer, fake_broker, pushed, run


class Stage:
    """What the tasks of a test are told, and tell."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.calls: list[Any] = []
        self.cancelled = asyncio.Event()
        self.thread_go = threading.Event()

    @property
    def tasks(self) -> list[Task[..., Any]]:
        @task(key="add")
        async def add(a: int, b: int = 1) -> int:
            self.calls.append((a, b))
            return a + b

        @task(key="wait")
        async def wait() -> str:
            self.calls.append(current_run().id)
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            return "done"

        @task(key="thread")
        def thread(x: int) -> str:
            current_run().progress(1, 2, "half")
            return f"{threading.current_thread().name.partition('_')[0]} {x} {current_run().attempt}"

        @task(key="stuck")
        def stuck() -> None:
            self.thread_go.wait(5)

        @task(key="fail")
        async def fail(how: str) -> Any:
            match how:
                case "raise":
                    raise ValueError("bad \ud800")
                case "exit":
                    raise SystemExit(3)
                case "interrupt":
                    raise KeyboardInterrupt
                case "cancelled":
                    raise asyncio.CancelledError
                case "large":
                    return "x" * 600_000
                case _:
                    return object()

        return [add, wait, thread, stuck, fail]


@asynccontextmanager
async def working(
    broker: FakeBroker, stage: Stage, *, limit: int = 10, drain_seconds: float = 5
) -> AsyncIterator[tuple[Worker, Peer]]:
    """Run a worker that is subscribed; end it at the end, whatever state it is in."""
    worker = Worker(stage.tasks, limit=limit, settings=broker.settings, drain_seconds=drain_seconds)
    running = asyncio.create_task(worker.run())
    try:
        peer = await broker.peer()
        subscribe = await peer.subscribed()
        assert (subscribe.limit, subscribe.session, len(subscribe.keys)) == (limit, None, 5)
        yield worker, peer
    finally:
        stage.thread_go.set()
        await broker.end(running)


def error_of(report: m.Finished) -> dict[str, str]:
    return msgspec.json.decode(report.error)


def test_runs_are_executed_and_reported() -> None:
    async def main() -> None:
        stage = Stage()
        async with fake_broker() as broker, working(broker, stage) as (_, peer):
            await peer.push(pushed("add", a=2), pushed("add", a=2, b=3))
            frames = [await peer.next() for _ in range(4)]
            started = [frame.id for frame in frames if isinstance(frame, m.Started)]
            reports = [frame for frame in frames if isinstance(frame, m.Finished)]
            assert sorted(started) == sorted(report.id for report in reports)
            assert {report.state.type for report in reports} == {"COMPLETED"}
            assert sorted(bytes(report.result) for report in reports) == [b"3", b"5"]

    run(main())


def test_plain_functions_run_in_a_thread() -> None:
    async def main() -> None:
        async with fake_broker() as broker, working(broker, Stage()) as (_, peer):
            await peer.push(pushed("thread", attempt=7, x=1))
            report = await peer.finished()
            assert bytes(report.result) == b'"runlane 1 7"'

    run(main())


def test_progress_is_reported_while_the_task_runs() -> None:
    @task(key="count")
    async def count() -> None:
        for n in range(1, 100):
            current_run().progress(n, 100, "going")
        await asyncio.sleep(1)

    async def main() -> None:
        async with fake_broker() as broker:
            running = asyncio.create_task(Worker([count], settings=broker.settings).run())
            peer = await broker.peer()
            await peer.subscribed()
            await peer.push(pushed("count"))
            await peer.expect(m.Started)
            progress = await peer.expect(m.Progress)
            assert (progress.current, progress.total, progress.message) == (99, 100, "going")
            await broker.end(running)

    run(main())


@pytest.mark.parametrize(
    ("how", "type_", "name", "retriable"),
    [
        ("raise", "ValueError", None, None),
        ("exit", "SystemExit", None, None),
        ("interrupt", "KeyboardInterrupt", None, None),
        ("cancelled", "asyncio.exceptions.CancelledError", None, None),
        ("large", "runlane.errors.PayloadTooLarge", "ResultTooLarge", False),
        ("odd", "runlane.errors.PayloadError", None, False),
    ],
)
def test_a_task_that_fails(
    how: str, type_: str, name: str | None, retriable: bool | None, caplog: pytest.LogCaptureFixture
) -> None:
    # The message has half a surrogate pair, which a log may show but a test report cannot carry.
    caplog.set_level(logging.CRITICAL, "runlane.worker")

    async def main() -> None:
        async with fake_broker() as broker, working(broker, Stage()) as (_, peer):
            await peer.push(pushed("fail", how=how))
            report = await peer.finished()
            assert (report.state.type, report.state.name, report.retriable) == ("FAILED", name, retriable)
            error = error_of(report)
            assert error["type"] == type_
            if how == "raise":
                assert error["message"] == "bad ?"
                assert error["traceback"].startswith("Traceback")
                assert "test_worker.py" in error["traceback"]
                assert "pipeline.py" not in error["traceback"]

    run(main())


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("large", "runlane.errors.PayloadTooLarge: the result: "),
        ("odd", "runlane.errors.PayloadError: the result: "),
    ],
)
def test_a_result_that_cannot_be_sent_is_in_the_log(how: str, why: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with fake_broker() as broker, working(broker, Stage()) as (_, peer):
            sent = pushed("fail", how=how)
            await peer.push(sent)
            await peer.finished()
            (said,) = (record for record in caplog.records if record.levelname == "WARNING")
            assert said.getMessage().startswith(f"run {sent.id} of fail failed: {why}")

    run(main())


@pytest.mark.parametrize("parameters", [{}, {"a": "x"}, {"a": 1, "c": 1}])
def test_bad_parameters_fail_for_good(parameters: dict[str, Any]) -> None:
    async def main() -> None:
        stage = Stage()
        async with fake_broker() as broker, working(broker, stage) as (_, peer):
            await peer.push(pushed("add", **parameters))
            report = await peer.expect(m.Finished)  # never started
            assert (report.state.type, report.retriable) == ("FAILED", False)
            assert error_of(report)["type"] == "runlane.errors.ArgumentError"
            assert stage.calls == []

    run(main())


def test_unknown_tasks_are_given_back() -> None:
    async def main() -> None:
        async with fake_broker() as broker, working(broker, Stage()) as (_, peer):
            await peer.push(pushed("other"))
            (released,) = (await peer.expect(m.Release)).runs
            assert (released.delay, released.reason) == (5.0, "no task other here")

    run(main())


@pytest.mark.parametrize("key", ["wait", "stuck"])
def test_a_timeout_ends_the_run(key: str) -> None:
    async def main() -> None:
        stage = Stage()
        async with fake_broker() as broker, working(broker, stage, limit=2) as (_, peer):
            await peer.push(msgspec.structs.replace(pushed(key), timeout=0.03))
            await peer.expect(m.Started)
            frame = await peer.next()
            if key == "stuck":  # its thread goes on: one slot less, until it is done
                assert frame == m.SetLimit(limit=1)
                frame = await peer.next()
            assert (frame.state.type, frame.state.name) == ("FAILED", "TimedOut")
            if key == "stuck":
                stage.thread_go.set()
                assert await peer.next() == m.SetLimit(limit=2)

    run(main())


def test_a_cancelled_run_says_so() -> None:
    async def main() -> None:
        stage = Stage()
        async with fake_broker() as broker, working(broker, stage) as (_, peer):
            one = pushed("wait")
            await peer.push(one)
            await peer.expect(m.Started)
            await peer.send(m.CancelRun(id=one.id, attempt=1, grace_seconds=1))
            report = await peer.expect(m.Finished)
            assert report.state.type == "CANCELLED"
            assert stage.cancelled.is_set()

    run(main())


def test_a_plain_function_may_see_that_it_is_cancelled() -> None:
    @task(key="polite")
    def polite() -> str:
        while not current_run().cancelled:
            threading.Event().wait(0.005)
        return "as you wish"

    async def main() -> None:
        async with fake_broker() as broker:
            running = asyncio.create_task(Worker([polite], settings=broker.settings).run())
            peer = await broker.peer()
            await peer.subscribed()
            one = pushed("polite")
            await peer.push(one)
            await peer.expect(m.Started)
            await peer.send(m.CancelRun(id=one.id, attempt=1, grace_seconds=5))
            report = await peer.expect(m.Finished)
            assert (report.state.type, bytes(report.result)) == ("COMPLETED", b'"as you wish"')
            await broker.end(running)

    run(main())


def test_a_run_pushed_twice_is_executed_once() -> None:
    async def main() -> None:
        stage = Stage()
        async with fake_broker() as broker, working(broker, stage) as (_, peer):
            one = pushed("add", a=1)
            await peer.push(one, one)
            await peer.finished()
            await peer.push(one, pushed("add", a=2))  # after its verdict, too
            await peer.finished()
            assert stage.calls == [(1, 1), (2, 1)]

    run(main())


def test_a_lost_lease_cancels_the_task_silently() -> None:
    async def main() -> None:
        stage = Stage()
        async with fake_broker() as broker, working(broker, stage) as (_, peer):
            one = pushed("wait")
            await peer.push(one)
            await peer.expect(m.Started)
            await peer.send(m.LeaseLost(id=one.id, attempt=1))
            async with asyncio.timeout(5):
                await stage.cancelled.wait()
            await peer.push(pushed("add", a=1))
            await peer.finished()  # nothing of the lost one before it

    run(main())


def test_a_session_is_resumed_with_all_it_holds() -> None:
    async def main() -> None:
        stage = Stage()
        async with fake_broker() as broker, working(broker, stage) as (_, peer):
            running, lost, done = pushed("wait"), pushed("wait", attempt=2), pushed("add", a=4)
            await peer.push(running, lost, done)
            frames = [await peer.next() for _ in range(4)]
            report = next(frame for frame in frames if isinstance(frame, m.Finished))
            peer.drop()
            peer = await broker.peer()
            subscribe = await peer.subscribed(
                resumed=(running.id, done.id), lost=(HeldRun(id=lost.id, attempt=2),)
            )
            assert (subscribe.session, subscribe.resume_token) == (
                "00000000-0000-7000-8000-00000000aaaa",
                "token",
            )
            assert {(held.id, held.attempt) for held in subscribe.running} == {
                (running.id, 1),
                (lost.id, 2),
                (done.id, 1),
            }
            again = [await peer.next() for _ in range(3)]
            assert {type(frame) for frame in again} == {m.Started, m.Finished}
            assert report in again  # kept, and the very same
            assert lost.id not in {frame.id for frame in again}
            await peer.record(report)
            async with asyncio.timeout(5):
                await stage.cancelled.wait()
            stage.go.set()
            finished = await peer.expect(m.Finished)
            assert (finished.id, bytes(finished.result)) == (running.id, b'"done"')

    run(main())


def test_what_finishes_without_a_connection_is_reported_on_the_next() -> None:
    async def main() -> None:
        stage = Stage()
        async with fake_broker() as broker, working(broker, stage) as (_, peer):
            one = pushed("wait")
            await peer.push(one)
            await peer.expect(m.Started)
            peer.drop()
            await peer.closed()
            stage.go.set()
            peer = await broker.peer()
            assert len((await peer.subscribed(resumed=(one.id,))).running) == 1
            assert (await peer.finished()).id == one.id
            peer.drop()  # recorded: nothing is held any more
            peer = await broker.peer()
            await peer.expect(m.Subscribe)

    run(main())


def test_a_report_without_a_verdict_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runlane.worker.session.REMIND_SECONDS", 0.02)

    async def main() -> None:
        async with fake_broker() as broker, working(broker, Stage()) as (_, peer):
            await peer.push(pushed("add", a=1))
            report = await peer.finished(record=False)
            assert await peer.expect(m.Finished) == report
            await peer.record(report)

    run(main())


def test_beats_and_a_silent_broker() -> None:
    async def main() -> None:
        stage = Stage()
        async with fake_broker() as broker:
            broker.welcome = msgspec.structs.replace(broker.welcome, beat_seconds=0.02, idle_beat_seconds=0.05)
            async with working(broker, stage) as (_, peer):
                beats = [msgspec.json.decode(await peer.socket.recv()) for _ in range(3)]
                assert [beat["n"] for beat in beats] == [1, 2, 3]
                await peer.closed()  # no echo: given up
                await (await broker.peer()).subscribed()

    run(main())


def test_draining_finishes_what_runs() -> None:
    async def main() -> None:
        stage = Stage()
        async with fake_broker() as broker, working(broker, stage, limit=1) as (worker, peer):
            running, waiting = pushed("wait"), pushed("add", a=1)
            await peer.push(running, waiting)
            await peer.expect(m.Started)
            worker.stop()
            assert await peer.expect(m.SetLimit) == m.SetLimit(limit=0)
            assert (await peer.expect(m.Release)).runs[0].id == waiting.id
            late = pushed("add", a=1)
            await peer.push(late)
            assert (await peer.expect(m.Release)).runs[0].id == late.id
            stage.go.set()
            report = await peer.expect(m.Finished)
            assert report.state.type == "COMPLETED"
            await peer.record(report)
            await peer.goodbye()

    run(main())


def test_a_worker_that_ends_while_it_has_no_connection_says_goodbye_on_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runlane.worker.control.GOODBYE_SECONDS", 30.0)

    async def main() -> None:
        async with fake_broker() as broker, working(broker, Stage()) as (worker, peer):
            peer.drop()
            peer = await broker.peer()
            worker.stop()  # before the broker has answered `subscribe`
            await peer.subscribed()
            while isinstance(frame := await peer.next(), m.SetLimit):
                assert frame.limit == 0
            assert isinstance(frame, m.Quit)

    run(main())


def test_what_does_not_finish_in_time_is_given_back() -> None:
    async def main() -> None:
        stage = Stage()
        async with fake_broker() as broker, working(broker, stage, drain_seconds=0.02) as (worker, peer):
            one = pushed("wait")
            await peer.push(one)
            await peer.expect(m.Started)
            worker.stop()
            await peer.expect(m.SetLimit)
            assert (await peer.expect(m.Release)).runs[0].id == one.id
            assert stage.cancelled.is_set()
            await peer.goodbye()

    run(main())


def test_a_second_stop_ends_it_at_once() -> None:
    async def main() -> None:
        stage = Stage()
        async with fake_broker() as broker, working(broker, stage) as (worker, peer):
            await peer.push(pushed("wait"))
            await peer.expect(m.Started)
            worker.stop()
            await peer.expect(m.SetLimit)
            worker.stop()
            await peer.expect(m.Release)
            await peer.goodbye()

    run(main())


@pytest.mark.parametrize("code", [1008, 4001, 4403])
def test_a_fatal_close_ends_the_worker(code: int) -> None:
    async def main() -> None:
        async with fake_broker() as broker:
            running = asyncio.create_task(Worker(Stage().tasks, settings=broker.settings).run())
            peer = await broker.peer()
            await peer.subscribed()
            await peer.socket.close(code, "because")
            with pytest.raises(ConnectionFailed, match="because"):
                await running

    run(main())


def test_a_refused_subscription_ends_the_worker_unless_it_passes() -> None:
    async def main() -> None:
        async with fake_broker() as broker:
            running = asyncio.create_task(Worker(Stage().tasks, settings=broker.settings).run())
            for code in ("draining", "invalid_field"):
                peer = await broker.peer()
                await peer.expect(m.Subscribe)
                await peer.send(m.Error(code=code, message="no", frame="subscribe"))
            with pytest.raises(ConnectionFailed, match="invalid_field"):
                await running

    run(main())


def test_a_worker_needs_tasks_it_can_tell_apart() -> None:
    tasks = Stage().tasks
    for wrong, limit in (([], 1), ([tasks[0], Stage().tasks[0]], 1), (tasks, 0), (tasks, 1001)):
        with pytest.raises(ArgumentError):
            Worker(wrong, limit=limit)


@pytest.mark.parametrize(
    ("tasks", "options", "says"),
    [
        ([print], {}, "<built-in function print> is no task: decorate the function with @task"),
        ([[]], {}, r"\[\] is no task"),
        (None, {"limit": 0}, "limit must be between 1 and 1000, not 0"),
        (None, {"limit": "3"}, "limit must be between 1 and 1000, not '3'"),
        (None, {"drain_seconds": -1}, "a drain timeout is 0 seconds or more, not -1"),
        (None, {"drain_seconds": "25"}, "a drain timeout is 0 seconds or more, not '25'"),
        (None, {"drain_seconds": float("nan")}, "a drain timeout is 0 seconds or more, not nan"),
    ],
)
def test_what_a_worker_cannot_be_made_of_is_told_at_once(tasks: Any, options: Any, says: str) -> None:
    @task(key="some")
    async def some() -> None: ...

    with pytest.raises(ArgumentError, match=says):
        Worker([some] if tasks is None else tasks, **options)


def test_a_submitter_is_no_task() -> None:
    @task(key="some")
    async def some() -> None: ...

    submitter: Any = some.options(priority=9)
    with pytest.raises(ArgumentError, match="<Submitter of some> is no task"):
        Worker([submitter])


def test_a_worker_runs_once() -> None:
    @task(key="some")
    async def some() -> None: ...

    async def main() -> None:
        async with fake_broker() as broker:
            worker = Worker([some], settings=broker.settings)
            running = asyncio.create_task(worker.run())
            await (await broker.peer()).subscribed()
            await broker.end(running)
            with pytest.raises(RunlaneError, match="a worker runs once"):
                await worker.run()

    run(main())


def test_serving_would_stop_an_event_loop() -> None:
    @task(key="some")
    async def some() -> None: ...

    async def main() -> None:
        with pytest.raises(WouldBlock, match=r"use `await Worker\(…\)\.run\(\)`"):
            serve(some)

    run(main())


def test_there_is_no_current_run_outside_of_one() -> None:
    with pytest.raises(RunlaneError):
        current_run()


def test_a_task_logs_its_run(caplog: pytest.LogCaptureFixture) -> None:
    @task(key="log")
    async def log() -> None:
        current_run().logger.info("hello %s", "you")

    async def main() -> None:
        async with fake_broker() as broker:
            running = asyncio.create_task(Worker([log], settings=broker.settings).run())
            peer = await broker.peer()
            await peer.subscribed()
            await peer.push(pushed("log"))
            report = await peer.finished()
            await broker.end(running)
            (record,) = (record for record in caplog.records if record.name == "runlane.run")
            assert record.getMessage() == f"[log {report.id}] hello you"
            assert record.run_id == report.id

    with caplog.at_level(logging.INFO, "runlane.run"):
        run(main())
