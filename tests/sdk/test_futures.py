"""Waiting for runs, in sync code and in event loops, alone and together."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
import time
import traceback
import uuid
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

import runlane
from runlane import (
    ArgumentError,
    Client,
    ConnectionFailed,
    JsonSerializer,
    ResultError,
    RunCancelled,
    RunFailed,
    RunFuture,
    RunlaneError,
    RunNotFound,
    SomeRefused,
    SubmitRefused,
    WouldBlock,
    agather,
    gather,
    task,
)
from runlane.endings import error_of
from runlane.protocol import messages as m
from runlane.protocol.ids import uuid7
from runlane.protocol.messages import RunFinished, RunState
from runlane.protocol.states import StateType

from .auto_broker import accept, auto_broker, finish
from .fake_broker import completed, fake_broker, run


@task(key="add")
def add(a: int, b: int) -> int:
    return a + b


@task(key="name")
def name() -> str:
    return ""


def ended(run_id: str, type_: str, name: str, **fields: Any) -> RunFinished:
    state = RunState(type=StateType(type_), name=name, message="why")
    return RunFinished(id=run_id, state=state, **fields)


def failed(run_id: str) -> RunFinished:
    error = m.Raw(b'{"type":"app.Broken","message":"bad","traceback":"Traceback:\\n  in the app\\n"}')
    return ended(run_id, "FAILED", "Failed", error=error)


def not_found(run_id: str) -> m.Error:
    return m.Error(code="not_found", message="no", frame="watch", ref=run_id)


# --- How runs end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "name", "error"),
    [
        ("FAILED", "Failed", runlane.RunFailed),
        ("FAILED", "TimedOut", runlane.RunTimedOut),
        ("CANCELLED", "Cancelled", runlane.RunCancelled),
        ("CANCELLED", "Expired", runlane.RunExpired),
        ("CRASHED", "Crashed", runlane.RunCrashed),
        ("CRASHED", "Parked", runlane.RunParked),
        ("SCHEDULED", "Odd", runlane.RunError),
    ],
)
def test_every_end_has_its_error(type_: str, name: str, error: type[runlane.RunError]) -> None:
    caught = error_of(ended("1", type_, name))
    assert type(caught) is error
    assert "why" in str(caught)
    assert caught.run_id == "1"


def test_an_error_shows_what_happened_on_the_worker() -> None:
    caught = error_of(failed("1"))
    assert isinstance(caught, RunFailed)
    assert (caught.type, caught.message, caught.traceback) == ("app.Broken", "bad", "Traceback:\n  in the app\n")
    assert str(caught) == "run 1 is Failed: app.Broken: bad"
    printed = "".join(traceback.format_exception(caught))
    assert printed.endswith("app.Broken: bad\nOn the worker:\nTraceback:\n  in the app\n")


def test_an_error_without_a_message_is_its_type() -> None:
    error = m.Raw(b'{"type":"KeyboardInterrupt","message":"","traceback":""}')
    assert str(error_of(ended("1", "FAILED", "Failed", error=error))) == "run 1 is Failed: KeyboardInterrupt"


@pytest.mark.parametrize(
    "error",
    [
        error_of(failed("1")),
        error_of(ended("1", "CRASHED", "Parked")),
        RunNotFound("1"),
        ConnectionFailed(1008, "no"),
        SubmitRefused("internal", "no", "runs[0]"),
        SomeRefused(["f"], [0], SubmitRefused("a", "b")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_the_way_to_another_process(error: RunlaneError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert str(vars(again)) == str(vars(error))


# --- In sync code ---------------------------------------------------------------------------------------------


def test_delay_and_result() -> None:
    with auto_broker() as broker, Client(broker.settings):
        future = add.delay(2, b=3)
        assert [bytes(new.parameters) for new in broker.runs] == [b'{"a":2,"b":3}']
        assert (future.id, future.created, future.refused) == (broker.runs[0].id, True, None)
        assert future.result() == 5
        assert future.result(timeout=0) == 5
        assert future.wait() is StateType.COMPLETED
        assert repr(future) == f"<RunFuture {future.id} COMPLETED>"
        assert broker.watched == [future.id]  # once it is known, nothing is asked


def test_the_client_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with auto_broker() as broker:
        monkeypatch.setenv("RUNLANE_URL", broker.settings.url)
        assert add.delay(2, 3).result(5) == 5
        assert add.delay(2, 3).result(5) == 5
        assert broker.connections == 1


def test_a_wait_ends_when_its_time_is_up() -> None:
    with auto_broker(accept) as broker, Client(broker.settings):
        future = add.delay(2, 3)
        for wait in (future.result, future.wait):
            with pytest.raises(TimeoutError, match=f"run {future.id} has not ended within 0.01 s"):
                wait(timeout=0.01)
        with pytest.raises(TimeoutError, match=r"not all of 2 runs have ended within 0\.01 s"):
            gather(future, add.delay(1, 1), timeout=0.01)
        with pytest.raises(TimeoutError):
            future.result(timeout=-1)
        broker.send(completed(future.id))  # nobody waits any more
        broker.answer = finish
        assert future.result() == 5


def test_many_threads_wait_for_many_runs() -> None:
    with auto_broker() as broker, Client(broker.settings):
        results: list[int] = []

        def work() -> None:
            futures = [add.delay(2, 3) for _ in range(10)]
            results.extend(future.result(10) for future in futures)
            results.extend(gather(*futures))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [5] * 160
        assert broker.connections == 1


def test_one_future_in_many_threads() -> None:
    with auto_broker(accept) as broker, Client(broker.settings):
        future = add.delay(2, 3)
        results: list[int] = []
        threads = [threading.Thread(target=lambda: results.append(future.result(10))) for _ in range(20)]
        for thread in threads:
            thread.start()
        while not broker.watched:
            time.sleep(0.001)
        broker.send(completed(future.id))
        for thread in threads:
            thread.join()
        assert results == [5] * 20
        assert broker.watched.count(future.id) == 1


def test_a_broker_that_goes_away_is_waited_for() -> None:
    with auto_broker(accept) as broker, Client(broker.settings):
        future = add.delay(2, 3)
        waiting = threading.Thread(target=future.wait)
        waiting.start()
        while not broker.watched:
            time.sleep(0.001)
        broker.answer = finish
        broker.drop()
        waiting.join(10)
        assert future.done()
        assert broker.connections == 2


# --- States and progress --------------------------------------------------------------------------------------


def until(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.002)


def test_whoever_looks_is_kept_up_to_date() -> None:
    with auto_broker(accept) as broker, Client(broker.settings):
        future = add.delay(2, 3)
        assert broker.watched == []
        assert (future.state, future.progress, future.done()) == (StateType.SCHEDULED, None, False)
        until(lambda: broker.watched == [future.id])
        broker.send(m.RunProgress(id=future.id, current=1, total=2, message="half"))
        until(lambda: future.state is StateType.RUNNING)
        assert future.progress is not None
        assert (future.progress.current, future.progress.total, future.progress.message) == (1, 2, "half")
        broker.send(completed(future.id))
        until(future.done)
        assert future.state is StateType.COMPLETED
        assert future.progress.current == 1
        assert broker.watched == [future.id]


def test_so_is_who_looks_in_an_event_loop() -> None:
    async def main() -> None:
        with auto_broker(accept) as broker:
            async with Client(broker.settings):
                future = await add.adelay(2, 3)
                assert future.state is StateType.SCHEDULED
                while not broker.watched:
                    await asyncio.sleep(0.002)
                broker.send(completed(future.id))
                while not future.done():
                    await asyncio.sleep(0.002)
                assert future.result() == 5  # known, and so nothing is blocked
                assert future.wait() is StateType.COMPLETED

    run(main())


def test_nothing_is_said_of_a_run_that_nobody_has_heard_of() -> None:
    with auto_broker(accept) as broker, Client(broker.settings):
        future = RunFuture.from_id(uuid7())
        assert future.state is None
        assert repr(future) == f"<RunFuture {future.id} not heard of>"
        until(lambda: broker.watched)
        broker.send(not_found(future.id))

        def raises() -> bool:
            try:
                return bool(future.state)
            except RunNotFound:
                return True

        until(raises)


# --- By id ----------------------------------------------------------------------------------------------------


def test_any_run_has_a_future() -> None:
    def answer(frame: Any) -> Iterable[m.Frame]:
        return [completed(run_id, b'"5"') for run_id in getattr(frame, "ids", ())]

    with auto_broker(answer) as broker, Client(broker.settings):
        run_id = uuid.uuid4()
        assert RunFuture.from_id(run_id).result() == "5"
        assert RunFuture.from_id(str(run_id).upper()).id == str(run_id)
        assert add.future(run_id).result() == 5  # typed by the task
        with pytest.raises(ArgumentError, match="'nonsense' is no id of a run"):
            add.future("nonsense")


def test_an_unknown_run_is_told() -> None:
    def answer(frame: Any) -> Iterable[m.Frame]:
        return [not_found(run_id) for run_id in getattr(frame, "ids", ())]

    with auto_broker(answer) as broker, Client(broker.settings):
        future = RunFuture.from_id(uuid7())
        for _ in range(2):
            with pytest.raises(RunNotFound, match=future.id):
                future.result()
        with pytest.raises(RunNotFound):
            gather(future)
        (error,) = gather(future, return_exceptions=True)
        assert isinstance(error, RunNotFound)


# --- Many -----------------------------------------------------------------------------------------------------


def outcomes(*kinds: str) -> Any:
    """Answer watches: the nth id gets the nth outcome."""
    ids: list[str] = []

    def answer(frame: Any) -> Iterable[m.Frame]:
        yield from accept(frame)
        for run_id in getattr(frame, "ids", ()):
            ids.append(run_id)
            match kinds[len(ids) - 1]:
                case "good":
                    yield completed(run_id)
                case "bad":
                    yield failed(run_id)
                case "cancelled":
                    yield ended(run_id, "CANCELLED", "Cancelled")
                case "odd":
                    yield completed(run_id, b'"x"')
                case "unknown":
                    yield not_found(run_id)

    return answer


def test_gathered_results_are_in_order() -> None:
    with auto_broker() as broker, Client(broker.settings):
        futures = [add.delay(1, 1) for _ in range(3)]
        broker.answer = lambda frame: [
            completed(run_id, b"%d" % futures_ids.index(run_id)) for run_id in frame.ids
        ]
        futures_ids = [future.id for future in futures]
        assert gather(*futures) == [0, 1, 2]
        assert gather() == []


def test_gather_raises_the_first_failure_without_waiting_for_the_rest() -> None:
    with auto_broker(outcomes("good", "cancelled", "never")) as broker, Client(broker.settings):
        with pytest.raises(RunCancelled):
            gather(*[add.delay(1, 1) for _ in range(3)])
        until(lambda: any(isinstance(frame, m.Unwatch) for frame in broker.heard))


def test_gather_returns_exceptions_where_they_are_wanted() -> None:
    with auto_broker(outcomes("good", "bad", "unknown", "odd", "good")) as broker, Client(broker.settings):
        results = gather(*[add.delay(1, 1) for _ in range(5)], return_exceptions=True)
        assert [type(result) for result in results] == [int, RunFailed, RunNotFound, ResultError, int]


def test_gather_raises_what_is_wrong_with_a_result() -> None:
    with auto_broker(outcomes("good", "odd")) as broker, Client(broker.settings), pytest.raises(ResultError):
        gather(add.delay(1, 1), add.delay(1, 1))


def test_agather_is_the_same() -> None:
    async def main() -> None:
        with auto_broker(outcomes("good", "bad", "good", "good", "bad")) as broker:
            async with Client(broker.settings):
                futures = [await add.adelay(1, 1) for _ in range(2)]
                results = await agather(*futures, return_exceptions=True)
                assert [type(result) for result in results] == [int, RunFailed]
                assert await agather(await add.adelay(1, 1), await add.adelay(1, 1)) == [5, 5]
                with pytest.raises(RunFailed):
                    await agather(await add.adelay(1, 1))
                broker.answer = accept
                with pytest.raises(TimeoutError, match="not all of 1 runs"):
                    await agather(await add.adelay(1, 1), timeout=0.01)

    run(main())


def test_a_thousand_are_each_told_once_and_never_ask() -> None:
    """All that goes up is one `watch` of all: the ends are pushed, here in another order."""

    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            futures = [RunFuture[int](uuid7(), client) for _ in range(1000)]
            waiting = asyncio.gather(*futures)
            peer = await broker.peer()
            watched = (await peer.expect(m.Watch)).ids
            assert sorted(watched) == sorted(future.id for future in futures)
            numbers = {future.id: number for number, future in enumerate(futures)}
            await peer.send(*(completed(run_id, b"%d" % numbers[run_id]) for run_id in reversed(watched)))
            assert await waiting == list(range(1000))
            with pytest.raises(TimeoutError):
                await peer.next(0.05)

    run(main())


# --- Sync and async together ----------------------------------------------------------------------------------


def test_futures_go_from_sync_code_to_event_loops_and_back() -> None:
    with auto_broker() as broker, Client(broker.settings):
        from_sync = add.delay(1, 1)

        async def main() -> RunFuture[int]:
            async with Client(broker.settings):
                assert await from_sync == 5
                return await add.adelay(1, 1)

        from_loop = run(main())
        assert from_loop.result() == 5

        async def another() -> int:
            async with Client(broker.settings):
                return await from_loop + await add.future(from_loop.id).aresult(5)

        assert run(another()) == 10

        async def in_a_thread() -> RunFuture[int]:
            return await asyncio.to_thread(add.delay, 1, 1)

        assert run(in_a_thread()).result() == 5


def test_a_closed_loops_future_finds_its_broker_again() -> None:
    """By its client's settings, whatever the environment says."""
    with auto_broker() as broker:

        async def submit() -> RunFuture[int]:
            async with Client(broker.settings):
                return await add.adelay(1, 1)

        async def wait(future: RunFuture[int]) -> int:
            return await future

        assert run(submit()).result() == 5
        assert run(wait(run(submit()))) == 5


CALLS: dict[str, Any] = {
    "result": lambda future: future.result(5),
    "wait": lambda future: future.wait(),
    "gather": lambda future: gather(future),
    "submit_many": lambda _: runlane.submit_many([add.bind(1, 2)]),
    "map": lambda _: add.map([1], [2]),
    "with": lambda _: Client().__enter__(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_event_loop_is_never_stopped_by_waiting(call: Any) -> None:
    async def main() -> None:
        with auto_broker(accept) as broker:
            async with Client(broker.settings):
                future = await add.adelay(2, 3)
                with pytest.raises(WouldBlock, match="would stop the event loop that runs here: use `a"):
                    call(future)

    run(main())


def test_a_result_of_another_type_is_told() -> None:
    def answer(frame: Any) -> Iterable[m.Frame]:
        yield from accept(frame)
        for run_id in getattr(frame, "ids", ()):
            yield ended(run_id, "COMPLETED", "Completed", result=msgspec.Raw(b'"x"'))

    with auto_broker(answer) as broker, Client(broker.settings):
        assert name.delay().result() == "x"
        with pytest.raises(ResultError, match="the result: Expected `int`"):
            add.delay(1, 1).result()


def test_a_run_may_end_without_a_result() -> None:
    def answer(frame: Any) -> Iterable[m.Frame]:
        yield from accept(frame)
        for run_id in getattr(frame, "ids", ()):
            yield ended(run_id, "COMPLETED", "Completed")

    with auto_broker(answer) as broker, Client(broker.settings):
        assert add.delay(1, 1).result() is None


class Backwards(JsonSerializer):
    """What an encrypting serializer looks like."""

    content_type = "application/x-backwards"

    def dumps(self, value: Any) -> bytes:
        return super().dumps(value)[::-1]

    def loads(self, data: bytes) -> Any:
        return super().loads(data[::-1])


@task(key="secret", serializer=Backwards(), headers={"trace": "1"})
def secret(amount: Decimal) -> Decimal:
    return amount * 2


def test_a_tasks_own_form_goes_both_ways() -> None:
    """All that a worker does with a run is done here by hand."""
    runs: dict[str, m.NewRun] = {}

    def answer(frame: Any) -> Iterable[m.Frame]:
        for run_id in getattr(frame, "ids", ()):
            args, kwargs = secret.arguments.unpack(runs[run_id].parameters, runs[run_id].headers)
            yield completed(run_id, bytes(secret.results.pack(secret(*args, **kwargs))))
        for raw in getattr(frame, "runs", ()):
            new = msgspec.json.decode(raw, type=m.NewRun)
            runs[new.id] = new
        yield from accept(frame)

    with auto_broker(answer) as broker, Client(broker.settings):
        future = secret.options(headers={"trace": "2"}).delay(Decimal("1.50"))
        assert runs[future.id].headers == {"trace": "2", "content-type": "application/x-backwards"}
        assert b"1.50" not in bytes(runs[future.id].parameters)
        assert future.result() == Decimal("3.00")
        assert secret.future(future.id).result() == Decimal("3.00")
        assert isinstance(RunFuture.from_id(future.id).result(), str)  # who has no serializer has no more
        broker.answer = finish  # with a plain 5
        with pytest.raises(ResultError, match="not in the form application/x-backwards"):
            secret.delay(Decimal(1)).result()
