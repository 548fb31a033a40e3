"""Submitting, one and many: what is sent, what is kept, and what is said of refusals."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from runlane import (
    ArgumentError,
    Client,
    ConnectionFailed,
    RunFuture,
    SomeRefused,
    SubmitRefused,
    SubmitTimedOut,
    agather,
    asubmit_many,
    bulk,
    gather,
    submit_many,
    task,
)
from runlane.protocol import messages as m
from runlane.protocol.ids import uuid7
from runlane.settings import Settings

from .auto_broker import accept, auto_broker, finish
from .fake_broker import fake_broker, run, submitted


@task(key="add")
def add(a: int, b: int = 0) -> int:
    return a + b


@task(key="echo")
def echo(text: str) -> str:
    return text


def refuse(*indexes: int) -> Any:
    """Answer a submit: these of its runs are refused."""

    def answer(frame: Any) -> Iterable[m.Frame]:
        if not isinstance(frame, m.Submit):
            return finish(frame)
        error = m.ItemError(code="invalid_field", message="no", field="runs[0].priority")
        runs = [
            m.SubmittedRun(id=one.id, created=False, error=error) if index in indexes else one
            for index, one in enumerate(submitted(frame).runs)
        ]
        return [m.Submitted(ref=frame.ref, runs=tuple(runs))]

    return answer


# --- One ------------------------------------------------------------------------------------------------------


def test_a_refusal_is_raised() -> None:
    with auto_broker(refuse(0)) as broker, Client(broker.settings):
        with pytest.raises(SubmitRefused, match="invalid_field: no") as caught:
            add.delay(1)
        assert (caught.value.code, caught.value.field) == ("invalid_field", "runs[0].priority")


def test_of_two_runs_with_one_idempotency_key_there_is_one() -> None:
    first = uuid7()

    def answer(frame: Any) -> Iterable[m.Frame]:
        if not isinstance(frame, m.Submit):
            return finish(frame)
        return [m.Submitted(ref=frame.ref, runs=(m.SubmittedRun(id=first, created=False),))]

    with auto_broker(answer) as broker, Client(broker.settings):
        future = add.options(idempotency_key="k").delay(1)
        assert (future.id, future.created) == (first, False)
        assert future.result() == 5
        assert broker.runs[0].idempotency_key == "k"
        assert broker.watched == [first]


def test_a_run_that_was_submitted_twice_by_the_client_itself_is_new() -> None:
    def answer(frame: Any) -> Iterable[m.Frame]:
        runs = tuple(m.SubmittedRun(id=one.id, created=False) for one in submitted(frame).runs)
        return [m.Submitted(ref=frame.ref, runs=runs)]

    with auto_broker(answer) as broker, Client(broker.settings):
        assert add.delay(1).created is True


def test_sync_code_does_not_wait_for_ever() -> None:
    with auto_broker(lambda _: ()) as broker, Client(broker.settings, submit_timeout=0.05):
        with pytest.raises(SubmitTimedOut, match=r"has confirmed nothing within 0\.05 s$") as caught:
            add.delay(1)
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(SubmitTimedOut):
            add.map(range(3))


def test_a_run_that_was_given_up_before_it_was_sent_is_not_sent() -> None:
    with auto_broker() as broker:
        url = broker.settings.url
    told = rf"{url} has confirmed nothing within 0\.5 s \(last try: .*(refused|failed)"
    with Client(Settings(url=url), submit_timeout=0.5), pytest.raises(SubmitTimedOut, match=told):
        add.delay(1)  # nobody is there any more


def test_what_a_broker_will_not_have_is_told() -> None:
    async def refuse_all(socket: Any) -> bool:
        await socket.recv()
        await socket.close(1008, "who are you?")
        return False

    async def main() -> None:
        async with fake_broker() as broker:
            broker.before_auth = refuse_all

            def work() -> None:
                with Client(broker.settings):
                    for submit in (
                        lambda: add.delay(1),
                        lambda: add.map([1]),
                        lambda: RunFuture.from_id(uuid7()).result(),
                    ):
                        with pytest.raises(ConnectionFailed, match="who are you"):
                            submit()

            await asyncio.to_thread(work)

    run(main())


def test_a_lost_cause_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Not again by asyncio, for each batch that nobody waits for any more."""

    async def refuse_all(socket: Any) -> bool:
        await socket.recv()
        await socket.close(1008, "who are you?")
        return False

    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings):
            broker.before_auth = refuse_all
            with pytest.raises(ConnectionFailed):
                await add.amap(range(4 * bulk.BATCH_RUNS))

    with caplog.at_level(logging.ERROR):
        run(main())
        gc.collect()
    assert caplog.records == []


def test_delay_works_where_an_event_loop_runs() -> None:
    """Through the portal, with the settings of the loop's client."""

    async def main() -> None:
        with auto_broker() as broker:
            async with Client(broker.settings):
                future = add.delay(2, 3)
                assert len(broker.runs) == 1
                assert await future == 5

    run(main())


def test_delay_does_not_stop_an_event_loop_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the broker itself is in the loop that waits for it."""
    monkeypatch.setattr(bulk, "IN_LOOP_SECONDS", 0.05)

    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings):
            with pytest.raises(SubmitTimedOut, match="in an event loop, use `await "):
                add.delay(1)

    run(main())


# --- Many -----------------------------------------------------------------------------------------------------


def test_map_takes_arguments_as_the_built_in_does() -> None:
    with auto_broker() as broker, Client(broker.settings):
        futures = add.map([1, 2, 3], range(10))
        assert [bytes(new.parameters) for new in broker.runs] == [
            b'{"a":1,"b":0}',
            b'{"a":2,"b":1}',
            b'{"a":3,"b":2}',
        ]
        assert gather(*futures) == [5, 5, 5]
        assert [future.id for future in futures] == [new.id for new in broker.runs]
        assert add.map([]) == []
        assert [bytes(new.parameters) for new in broker.runs[3:]] == []
        add.options(priority=3).map([7])
        assert broker.runs[3].priority == 3
        with pytest.raises(ArgumentError, match="each needs its own"):
            add.options(idempotency_key="k").map([1])


def test_what_is_no_future_is_not_waited_for() -> None:
    with auto_broker() as broker, Client(broker.settings):
        futures: Any = add.map([1, 2], [3, 4])
        with pytest.raises(
            ArgumentError, match=r"^list is no future of a run; those of a list are gather\(\*futures\)$"
        ):
            gather(futures)

    async def main() -> None:
        with pytest.raises(ArgumentError, match="list is no future"):
            await agather(futures)

    run(main())


def test_amap_is_the_same() -> None:
    async def main() -> None:
        with auto_broker() as broker:
            async with Client(broker.settings):
                assert await agather(*await add.amap(range(3200))) == [5] * 3200
                assert len(broker.runs) == 3200
                assert await add.options(tags=["x"]).amap([]) == []

    run(main())


def test_many_runs_of_different_tasks_go_together() -> None:
    with auto_broker() as broker, Client(broker.settings):
        runs = [
            add.bind(1),
            echo.options(priority=9).bind(text="x"),
            add.options(idempotency_key="k").bind(1, b=2),
        ]
        futures = submit_many(runs)
        assert [new.task_key for new in broker.runs] == ["add", "echo", "add"]
        assert [new.priority for new in broker.runs] == [0, 9, 0]
        assert [future.id for future in futures] == [bound.run.id for bound in runs]
        assert len([frame for frame in broker.heard if isinstance(frame, m.Submit)]) == 1


@pytest.mark.parametrize("how", ["sync", "async"])
def test_each_run_has_its_own_outcome(how: str) -> None:
    def many(**options: Any) -> list[RunFuture[int]]:
        runs = (add.bind(n) for n in range(5))
        return submit_many(runs, **options) if how == "sync" else run(amany(runs, **options))

    async def amany(runs: Any, **options: Any) -> list[RunFuture[int]]:
        async with Client(broker.settings):
            return await asubmit_many(runs, **options)

    with auto_broker(refuse(1, 3)) as broker, Client(broker.settings):
        with pytest.raises(
            SomeRefused, match=r"2 of 5 runs were refused; the first \(index 1\): invalid_field: no"
        ) as caught:
            many()
        assert caught.value.refused == [1, 3]
        for futures in (caught.value.futures, many(return_exceptions=True)):
            assert [future.refused is None for future in futures] == [True, False, True, False, True]
            with pytest.raises(SubmitRefused, match="invalid_field"):
                futures[1].result()
            with pytest.raises(SubmitRefused, match="invalid_field"):
                _ = futures[1].state
            assert repr(futures[1]).endswith("refused>")
            results = gather(*futures, return_exceptions=True)
            assert [type(result) for result in results] == [int, SubmitRefused, int, SubmitRefused, int]


def test_batches_are_read_no_faster_than_they_are_confirmed() -> None:
    """So that an iterable of any length needs no more memory than some batches."""
    gate = threading.Event()
    read = 0

    def numbers() -> Iterator[int]:
        nonlocal read
        for number in range(20 * bulk.BATCH_RUNS):
            read = number + 1
            yield number

    def answer(frame: Any) -> Iterable[m.Frame]:
        assert gate.wait(5)
        return accept(frame)

    with auto_broker(answer) as broker, Client(broker.settings):
        futures: list[Any] = []
        submitting = threading.Thread(target=lambda: futures.extend(add.map(numbers())))
        submitting.start()
        submitting.join(0.3)
        assert read <= (bulk.BATCHES_UNDER_WAY + 1) * bulk.BATCH_RUNS
        gate.set()
        submitting.join()
        assert len({future.id for future in futures}) == 20 * bulk.BATCH_RUNS == len(broker.runs)


def test_large_arguments_make_small_batches() -> None:
    runs = [echo.bind("x" * 300_000) for _ in range(5)]
    assert [len(batch) for batch in bulk._batches(runs)] == [2, 2, 1]


def test_what_the_iterable_raises_ends_it() -> None:
    def numbers() -> Iterator[Any]:
        yield from range(bulk.BATCH_RUNS)
        yield object()

    with auto_broker() as broker, Client(broker.settings), pytest.raises(ArgumentError, match="argument 'a'"):
        add.map(numbers())

    async def main() -> None:
        async with Client(broker.settings):
            await add.amap(numbers())

    with auto_broker() as broker, pytest.raises(ArgumentError, match="argument 'a'"):
        run(main())


@pytest.mark.parametrize("wrong", [5, (2, 3)])
def test_what_is_no_bound_run_is_refused(wrong: Any) -> None:
    with pytest.raises(ArgumentError, match=r"is no run to be submitted: `task\.bind\(…\)` returns one"):
        submit_many([wrong])


def test_arguments_are_not_kept() -> None:
    class Text(str):
        """A text that can be referred to weakly."""

    with auto_broker() as broker, Client(broker.settings):
        text = Text("x")
        reference = weakref.ref(text)
        future = echo.delay(text)
        del text
        gc.collect()
        assert reference() is None
        assert future.created
