"""Submitting and watching, against connections that break."""

from __future__ import annotations

import asyncio
import gc
import logging

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection

from runlane import (
    Client,
    ClientClosed,
    ConnectionFailed,
    RunFailed,
    RunFuture,
    RunNotFound,
    SubmitRefused,
    task,
)
from runlane.client import current
from runlane.protocol import messages as m
from runlane.protocol.ids import uuid7

from .fake_broker import completed, fake_broker, run, submitted


@task(key="add")
def add(a: int, b: int) -> int:
    return a + b


def new_run(n: int = 0) -> m.NewRun:
    return m.NewRun(id=uuid7(), task_key=f"key{n}")


def test_submit_and_await() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings):
            submitting = asyncio.create_task(add.adelay(2, 3))
            peer = await broker.peer()
            frame = await peer.expect(m.Submit)
            await peer.send(submitted(frame))
            future = await submitting
            waiting = asyncio.create_task(future.aresult(timeout=5))
            watch = await peer.expect(m.Watch)
            assert watch.ids == (future.id,)
            await peer.send(m.RunProgress(id=future.id, current=1, total=2))
            await peer.send(completed(future.id))
            assert await waiting == 5
            assert await future == 5  # known by now: nothing is asked again
            assert future.progress is not None
            assert future.state == "COMPLETED"

    run(main())


def test_calls_that_wait_together_share_a_frame() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            calls = asyncio.gather(*(client.submit([new_run(n)]) for n in range(50)), client.submit([]))
            peer = await broker.peer()
            frame = await peer.expect(m.Submit)
            assert len(frame.runs) == 50
            await peer.send(submitted(frame))
            answers = await calls
            assert [len(answer) for answer in answers] == [1] * 50 + [0]

    run(main())


def test_unanswered_submits_are_sent_again_with_the_same_ids() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            first, second = new_run(1), new_run(2)
            calls = [asyncio.create_task(client.submit([first]))]
            peer = await broker.peer()
            lost = await peer.expect(m.Submit)
            calls.append(asyncio.create_task(client.submit([second])))
            lost_too = await peer.expect(m.Submit)
            peer.drop()
            peer = await broker.peer()
            frame = await peer.expect(m.Submit)
            assert [bytes(raw) for raw in frame.runs] == [bytes(raw) for raw in (*lost.runs, *lost_too.runs)]
            await peer.send(submitted(frame))
            assert [(await call)[0].id for call in calls] == [first.id, second.id]

    run(main())


def test_busy_is_asked_again_later() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            call = asyncio.create_task(client.submit([new_run()]))
            peer = await broker.peer()
            frame = await peer.expect(m.Submit)
            before = asyncio.get_running_loop().time()
            await peer.send(m.Busy(ref=frame.ref, retry_after_seconds=0.05))
            again = await peer.expect(m.Submit)
            assert asyncio.get_running_loop().time() - before >= 0.04
            assert again.ref != frame.ref
            await peer.send(submitted(again))
            await call

    run(main())


def test_one_refused_run_does_not_hurt_its_neighbours() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            calls = [asyncio.create_task(client.submit([new_run(n)])) for n in range(2)]
            peer = await broker.peer()
            frame = await peer.expect(m.Submit)
            answer = submitted(frame)
            error = m.ItemError(code="id_conflict", message="another payload", field="runs[0].id")
            refused = m.SubmittedRun(id=answer.runs[0].id, created=False, error=error)
            await peer.send(m.Submitted(ref=frame.ref, runs=(refused, answer.runs[1])))
            with pytest.raises(SubmitRefused, match="another payload") as caught:
                await calls[0]
            assert (caught.value.code, caught.value.field) == ("id_conflict", "runs[0].id")
            await calls[1]

    run(main())


def test_a_refused_frame_fails_its_calls() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            call = asyncio.create_task(client.submit([new_run()]))
            peer = await broker.peer()
            frame = await peer.expect(m.Submit)
            await peer.send(m.Error(code="internal", message="no", ref=frame.ref))
            with pytest.raises(SubmitRefused, match="internal"):
                await call

    run(main())


def test_a_run_that_no_frame_can_hold_is_refused_alone() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            broker.welcome = msgspec.structs.replace(broker.welcome, max_message_bytes=1000)
            large = m.NewRun(id=uuid7(), task_key="k", parameters=m.Raw(b'{"x":"' + b"x" * 1000 + b'"}'))
            runs = [new_run(1), large, new_run(2)]
            call = asyncio.create_task(client.submit_each(runs))
            peer = await broker.peer()
            for _ in range(2):
                await peer.send(submitted(await peer.expect(m.Submit)))
            answers = await call
            assert [answer.id for answer in answers] == [one.id for one in runs]
            assert [answer.error and answer.error.code for answer in answers] == [None, "payload_too_large", None]

    run(main())


def test_a_short_answer_refuses_the_rest() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            call = asyncio.create_task(client.submit_each([new_run(1), new_run(2)]))
            peer = await broker.peer()
            answer = submitted(await peer.expect(m.Submit))
            await peer.send(m.Submitted(ref=999, runs=()))  # to a question that was never asked
            await peer.send(m.Submitted(ref=answer.ref, runs=answer.runs[:1]))
            first, second = await call
            assert first.error is None
            assert second.error is not None
            assert second.error.code == "internal"

    run(main())


def test_who_gave_up_is_left_out() -> None:
    """What has not been sent is not, and what has is not waited for."""

    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            calls = [asyncio.create_task(client.submit([new_run(n)])) for n in range(3)]
            await asyncio.sleep(0)
            calls[1].cancel()
            peer = await broker.peer()
            frame = await peer.expect(m.Submit)
            assert len(frame.runs) == 2
            calls[0].cancel()
            await asyncio.sleep(0)
            await peer.send(submitted(frame))
            assert len(await calls[2]) == 1
            assert repr(client).endswith("<Submissions 0 waiting, 0 frames in flight>, <Watches 0 runs>>")

    run(main())


def test_an_unwatched_run_may_still_be_told_of() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            first, second = client.watch(uuid7()), client.watch(uuid7())
            second.cancel()  # before it was said to the broker
            peer = await broker.peer()
            (run_id,) = (await peer.expect(m.Watch)).ids
            await peer.send(m.Draining(retry_after_seconds=0), m.Beat(n=1))
            await peer.send(completed(uuid7()), completed(run_id), completed(run_id))
            assert (await first).id == run_id

    run(main())


def test_no_more_than_so_much_is_in_flight() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            big = m.Raw(b'{"x":"' + b"x" * 500_000 + b'"}')
            runs = [m.NewRun(id=uuid7(), task_key="k", parameters=big) for _ in range(6)]
            call = asyncio.create_task(client.submit(runs))
            peer = await broker.peer()
            frames = [await peer.expect(m.Submit) for _ in range(2)]
            with pytest.raises(TimeoutError):  # four runs of half a megabyte are under way, and the rest waits
                async with asyncio.timeout(0.05):
                    await peer.next()
            for frame in frames:
                await peer.send(submitted(frame))
            await peer.send(submitted(await peer.expect(m.Submit)))
            assert [answer.id for answer in await call] == [one.id for one in runs]

    run(main())


def test_watches_survive_a_reconnect() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            ids = [uuid7(), uuid7()]
            heard: list[m.RunProgress] = []
            futures = [client.watch(run_id, heard.append) for run_id in ids]
            peer = await broker.peer()
            assert (await peer.expect(m.Watch)).ids == tuple(ids)
            await peer.send(completed(ids[0]))
            await futures[0]
            peer.drop()
            peer = await broker.peer()
            assert (await peer.expect(m.Watch)).ids == (ids[1],)
            await peer.send(m.RunProgress(id=ids[1], current=3), completed(ids[1]))
            assert (await futures[1]).id == ids[1]
            assert [progress.current for progress in heard] == [3]

    run(main())


def test_an_unknown_run_is_told() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            future = client.watch(uuid7())
            peer = await broker.peer()
            (run_id,) = (await peer.expect(m.Watch)).ids
            await peer.send(m.Error(code="not_found", message="no", frame="watch", ref=run_id))
            with pytest.raises(RunNotFound, match=run_id):
                await future

    run(main())


def test_who_gives_up_waiting_ends_the_watch() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            future = RunFuture[int](uuid7(), client)
            waiting = asyncio.create_task(future.aresult())
            peer = await broker.peer()
            await peer.expect(m.Watch)
            waiting.cancel()
            assert (await peer.expect(m.Unwatch)).ids == (future.id,)
            with pytest.raises(TimeoutError):
                await future.aresult(timeout=0.01)

    run(main())


def test_a_failed_run_raises_what_the_worker_saw() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            future = RunFuture[int](uuid7(), client)
            waiting = asyncio.create_task(future.aresult())
            peer = await broker.peer()
            await peer.expect(m.Watch)
            state = m.RunState(type=m.StateType.FAILED, name="Failed", message="ValueError: bad")
            error = m.Raw(b'{"type":"ValueError","message":"bad","traceback":"Traceback..."}')
            await peer.send(m.RunFinished(id=future.id, state=state, error=error))
            with pytest.raises(RunFailed, match="ValueError: bad") as caught:
                await waiting
            assert (caught.value.type, caught.value.traceback) == ("ValueError", "Traceback...")

    run(main())


@pytest.mark.parametrize("code", [1008, 4001, 4403])
def test_a_fatal_close_ends_the_waiting(code: int) -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            call = asyncio.create_task(client.submit([new_run()]))
            peer = await broker.peer()
            await peer.expect(m.Submit)
            await peer.socket.close(code, "because")
            with pytest.raises(ConnectionFailed, match="because") as caught:
                await call
            assert caught.value.code == code
            assert broker.connections == 1

    run(main())


def test_refused_at_the_door_ends_the_waiting() -> None:
    async def refuse(socket: ServerConnection) -> bool:
        await socket.recv()
        await socket.close(1008, "who are you?")
        return False

    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            broker.before_auth = refuse
            with pytest.raises(ConnectionFailed, match="who are you"):
                await client.submit([new_run()])
            broker.before_auth = None  # the client is none the worse for it
            call = asyncio.create_task(client.submit([new_run()]))
            peer = await broker.peer()
            await peer.send(submitted(await peer.expect(m.Submit)))
            await call

    run(main())


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 4408, 4429])
def test_any_other_close_is_followed_by_a_reconnect(code: int) -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            call = asyncio.create_task(client.submit([new_run()]))
            peer = await broker.peer()
            await peer.expect(m.Submit)
            await peer.socket.close(code)
            peer = await broker.peer()
            await peer.send(submitted(await peer.expect(m.Submit)))
            await call

    run(main())


def test_a_draining_broker_is_asked_again_after_the_reconnect() -> None:
    async def main() -> None:
        async with fake_broker() as broker, Client(broker.settings) as client:
            call = asyncio.create_task(client.submit([new_run()]))
            peer = await broker.peer()
            frame = await peer.expect(m.Submit)
            await peer.send(m.Error(code="draining", message="bye", ref=frame.ref))
            await peer.socket.close(1012)
            peer = await broker.peer()
            await peer.send(submitted(await peer.expect(m.Submit)))
            await call

    run(main())


def test_closing_ends_the_waiting() -> None:
    async def main() -> None:
        async with fake_broker() as broker:
            async with Client(broker.settings) as client:
                call = asyncio.create_task(client.submit([new_run()]))
                watch = client.watch(uuid7())
                peer = await broker.peer()
                await peer.expect(m.Submit)
            for waiting in (call, watch):
                with pytest.raises(ClientClosed):
                    await waiting
            with pytest.raises(ClientClosed):
                await client.submit([])

    run(main())


def test_the_implicit_client_needs_no_closing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with fake_broker() as broker:
            monkeypatch.setenv("RUNLANE_URL", broker.settings.url)
            submitting = asyncio.create_task(add.adelay(2, b=3))
            peer = await broker.peer()
            frame = await peer.expect(m.Submit)
            assert b'"parameters":{"a":2,"b":3}' in bytes(frame.runs[0])
            await peer.send(submitted(frame))
            await submitting
            RunFuture[int](uuid7(), current.innermost() or Client()).__await__().close()

    with caplog.at_level(logging.ERROR):
        run(main())
        run(main())
        gc.collect()
    assert caplog.records == []
    assert len(current._state.loops) <= 1  # what a closed loop leaves behind goes when the next one comes
