"""The submission socket beyond its frames' fields: twice the same, conflicts, watching, load, and the outbox."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from runlane.protocol import limits
from runlane.protocol.ids import uuid7
from runlane_broker.core import submit
from runlane_broker.core.watching import Watching
from runlane_broker.gateway import connection, talk
from runlane_broker.gateway.connection import Connection
from runlane_broker.gateway.outbox import HIGH_WATER, Outbox
from runlane_broker.storage.store import Store

from .harness import Close, Host, assert_like, error, new_key, new_run, producer, run, worker

# --- Submitting ------------------------------------------------------------------------------------------------


def test_the_same_run_again_is_found_and_not_made(broker: Host) -> None:
    item = new_run(parameters={"x": 1})

    async def main() -> None:
        async with producer(broker) as peer:
            assert await peer.submit(item, item) == [
                {"id": item["id"], "created": True},
                {"id": item["id"], "created": False},
            ]
            assert await peer.submit(item, ref="again") == [{"id": item["id"], "created": False}]
            assert await peer.submit({**item, "priority": 9, "name": "x"}) == [
                {"id": item["id"], "created": False}
            ]

    run(main())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"parameters": {"x": 2}}, "id_conflict"),
        ({"parameters": {}}, "id_conflict"),
        ({"task_key": "edge.other"}, "id_conflict"),
    ],
    ids=["other parameters", "no parameters", "another key"],
)
@pytest.mark.parametrize("together", [False, True], ids=["later", "in one frame"])
def test_another_run_with_the_same_id(broker: Host, change: Any, code: str, together: bool) -> None:
    item = new_run(parameters={"x": 1})
    after = new_run()

    async def main() -> None:
        async with producer(broker) as peer:
            if together:
                first, refused, last = await peer.submit(item, {**item, **change}, after)
            else:
                (first,) = await peer.submit(item)
                refused, last = await peer.submit({**item, **change}, after)
            assert (first["created"], last["created"]) == (True, True)
            assert_like(refused, {"id": item["id"], "created": False, "error": {"code": code}})

    run(main())


def test_idempotency_keys(broker: Host) -> None:
    name = uuid7()
    item = new_run(parameters={"x": 1}, idempotency_key=name)

    async def main() -> None:
        async with producer(broker) as peer:
            same, other, elsewhere = (
                {**item, "id": uuid7()},
                {**item, "id": uuid7(), "parameters": {"x": 2}},
                {**item, "id": uuid7(), "task_key": "edge.elsewhere"},
            )
            answers = await peer.submit(item, same, other, elsewhere)
            assert answers[:2] == [{"id": item["id"], "created": True}, {"id": item["id"], "created": False}]
            assert_like(
                answers[2], {"id": other["id"], "created": False, "error": {"code": "idempotency_conflict"}}
            )
            assert answers[3] == {"id": elsewhere["id"], "created": True}

    run(main())


@pytest.mark.parametrize("ref", [0, 2**53, "", "x" * 64, "\0", "🦆", "1"])
def test_a_ref_comes_back_as_it_was(broker: Host, ref: int | str) -> None:
    async def main() -> None:
        async with producer(broker) as peer:
            assert await peer.submit(ref=ref) == []
            await peer.say({"type": "cancel", "ref": ref, "ids": []})
            await peer.expect("cancelled", ref=ref, runs=[])

    run(main())


def test_two_frames_with_the_same_ref(broker: Host) -> None:
    items = [new_run(), new_run()]

    async def main() -> None:
        async with producer(broker) as peer:
            await peer.say([{"type": "submit", "ref": 1, "runs": [item]} for item in items])
            answers = [await peer.expect("submitted", ref=1) for _ in items]
            assert [answer["runs"][0]["id"] for answer in answers] == [item["id"] for item in items]

    run(main())


def test_a_frame_of_as_many_wrong_items_as_may_be(broker: Host) -> None:
    """`Peer.hear` looks at the size of the answer."""

    async def main() -> None:
        async with producer(broker) as peer:
            answers = await peer.submit(*[{}] * limits.MAX_RUNS_PER_SUBMIT)
            assert {answer["error"]["code"] for answer in answers} == {"invalid_field"}

    run(main())


def test_a_frame_of_as_many_conflicts_as_may_be(broker: Host) -> None:
    first = new_run("k", parameters={"x": 1}, idempotency_key=uuid7())

    async def main() -> None:
        async with producer(broker) as peer:
            await peer.submit(first)
            others = [{**first, "id": uuid7(), "parameters": {}} for _ in range(limits.MAX_RUNS_PER_SUBMIT)]
            text, count = "x" * limits.MAX_MESSAGE_BYTES + "x", len(others) + 500
            while len(text) > limits.MAX_MESSAGE_BYTES:
                count -= 500
                text = json.dumps({"type": "submit", "ref": 1, "runs": others[:count]}, separators=(",", ":"))
            await peer.say(text)
            answer = await peer.expect("submitted", ref=1)
            assert {run_["error"]["code"] for run_ in answer["runs"]} == {"idempotency_conflict"}
            assert len(answer["runs"]) == count

    run(main())


# --- Watching --------------------------------------------------------------------------------------------------

UNKNOWN = "0192f3a0-ffff-7fff-bfff-ffffffffffff"


def test_watching_what_there_is_not(broker: Host) -> None:
    other = uuid7()

    async def main() -> None:
        async with producer(broker) as peer:
            await peer.say({"type": "watch", "ids": [UNKNOWN, other]})
            answers = await peer.answers(2)
            assert_like(answers, [error("not_found", frame="watch", ref=i) for i in (UNKNOWN, other)])

    run(main())


class _SlowLook:
    """Keeps back what the first look for a run has found."""

    def __init__(self, run_id: str) -> None:
        self.found = asyncio.Event()
        self.goes_on = asyncio.Event()
        self._run_id = run_id
        self._read = Store.outcomes

    def __get__(self, store: Store, _: type[Store]) -> Callable[[Sequence[str]], Awaitable[Any]]:
        return partial(self._look, store)

    async def _look(self, store: Store, ids: Sequence[str]) -> Any:
        outcomes = await self._read(store, ids)
        if self._run_id in ids and not self.found.is_set():
            self.found.set()
            await self.goes_on.wait()
        return outcomes


@pytest.mark.parametrize(
    "meanwhile", ["submit", "submit watch", "watch submit", "submit unwatch watch", "unwatch watch submit"]
)
def test_a_run_that_was_submitted_is_not_said_to_be_missing(
    broker: Host, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """It was looked for when it was not there yet, and the answer comes when it is."""
    item = new_run(new_key())
    look = _SlowLook(item["id"])
    monkeypatch.setattr(Store, "outcomes", look)

    async def main() -> None:
        async with producer(broker) as peer, worker(broker, item["task_key"]) as holder:
            await peer.say({"type": "watch", "ids": [item["id"]]})
            await asyncio.to_thread(broker.wait, look.found.wait())
            for step in meanwhile.split():
                if step == "submit":
                    await peer.submit(item)
                else:
                    await peer.say({"type": step, "ids": [item["id"]]})
            assert await peer.answers() == []
            broker.call(look.goes_on.set)
            assert await peer.answers() == []
            (held,) = await holder.pushed()
            await holder.finish(held)
            await peer.expect("finished", id=item["id"])
            assert await peer.answers() == []

    run(main())


def test_watching_twice_tells_once(broker: Host) -> None:
    item = new_run(new_key())

    async def main() -> None:
        async with producer(broker) as peer, worker(broker, item["task_key"]) as holder:
            await peer.submit(item)
            await peer.say({"type": "watch", "ids": [item["id"]] * 3}, {"type": "watch", "ids": [item["id"]]})
            (held,) = await holder.pushed()
            await holder.finish(held, result=5)
            finished = {"type": "finished", "id": item["id"], "result": 5}
            assert_like(await peer.answers(1), [finished])
            await peer.say({"type": "watch", "ids": [item["id"]]})
            assert_like(await peer.answers(1), [finished])

    run(main())


class _SlowAnswer:
    """`Watching.look_up`, of which each answer takes until somebody lets it go on."""

    def __init__(self) -> None:
        self._look_up = Watching.look_up
        self._found = asyncio.Semaphore(0)
        self._goes_on = asyncio.Semaphore(0)

    def __get__(self, watching: Watching, _owner: type) -> Any:
        return partial(self, watching)

    async def __call__(self, watching: Watching, watcher: Any, ids: Sequence[str]) -> Any:
        found = await self._look_up(watching, watcher, ids)
        self._found.release()
        await self._goes_on.acquire()
        return found

    async def found(self, host: Host) -> None:
        """Wait for the next answer."""
        await asyncio.to_thread(host.wait, self._found.acquire())

    def goes_on(self, host: Host) -> None:
        """Let it be told."""
        host.call(self._goes_on.release)


@pytest.mark.parametrize("then", ["it is deleted", "the peer goes"])
def test_a_run_that_is_asked_for_again_before_its_end_is_told(
    broker: Host, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """The health check sees that nobody is left in the hub, and that nothing has failed."""
    item, watch = new_run(new_key()), {"type": "watch", "ids": []}

    async def main() -> None:
        async with worker(broker, item["task_key"]) as holder, producer(broker) as peer:
            await peer.submit(item)
            (held,) = await holder.pushed()
            await holder.finish(held)
            answer = _SlowAnswer()
            monkeypatch.setattr(Watching, "look_up", answer)
            await peer.say(watch | {"ids": [item["id"]]})
            await answer.found(broker)
            await peer.say(watch | {"ids": [item["id"]]})
            assert await peer.answers() == []
            if then == "it is deleted":
                await asyncio.to_thread(broker.http.delete, f"/api/task_runs/{item['id']}")
            answer.goes_on(broker)
            await peer.expect("finished", id=item["id"])
            if then == "it is deleted":
                await answer.found(broker)
                answer.goes_on(broker)
                assert await peer.answers() == []

    run(main())


def test_a_watch_in_the_message_of_its_submit(broker: Host) -> None:
    """It looks after the run is there."""
    item = new_run(new_key())

    async def main() -> None:
        async with producer(broker) as peer, worker(broker, item["task_key"]) as holder:
            await peer.say([{"type": "submit", "ref": 1, "runs": [item]}, {"type": "watch", "ids": [item["id"]]}])
            await peer.expect("submitted")
            (held,) = await holder.pushed()
            await holder.finish(held)
            await peer.expect("finished", id=item["id"])

    run(main())


@pytest.mark.parametrize("packed", [False, True], ids=["one by one", "in one message"])
def test_what_is_not_watched_any_more_is_not_told(broker: Host, packed: bool) -> None:
    item = new_run(new_key())

    async def main() -> None:
        async with producer(broker) as peer, worker(broker, item["task_key"]) as holder:
            await peer.submit(item)
            watch, unwatch = ({"type": kind, "ids": [item["id"]]} for kind in ("watch", "unwatch"))
            other = {"type": "unwatch", "ids": [UNKNOWN]}
            await peer.say(*([[unwatch, watch, other, unwatch]] if packed else [unwatch, watch, other, unwatch]))
            assert await peer.answers() == []
            (held,) = await holder.pushed()
            await holder.say({"type": "progress", "id": item["id"], "attempt": 1, "current": 1})
            await holder.finish(held)
            assert await peer.answers() == []

    run(main())


def test_two_who_watch_and_one_who_vanishes(broker: Host) -> None:
    item = new_run(new_key())

    async def main() -> None:
        async with (
            producer(broker) as first,
            producer(broker) as second,
            worker(broker, item["task_key"]) as holder,
        ):
            await first.submit(item)
            for peer in (first, second):
                await peer.say({"type": "watch", "ids": [item["id"]]})
                assert await peer.answers() == []
            first.socket.transport.abort()
            (held,) = await holder.pushed()
            await holder.say(
                {"type": "progress", "id": item["id"], "attempt": 1, "current": 1e308, "message": "\0"}
            )
            await second.expect("progress", id=item["id"], current=1e308, message="\0")
            await holder.finish(held)
            await second.expect("finished", id=item["id"])

    run(main())


@pytest.mark.parametrize("ending", ["quit", "close", "vanish", "4001"])
def test_a_watcher_that_goes_is_forgotten(broker: Host, ending: str) -> None:
    """The health check sees that nobody is left in the hub."""
    items = [new_run(), new_run()]

    async def main() -> None:
        async with producer(broker) as peer:
            await peer.submit(*items)
            await peer.say({"type": "watch", "ids": [item["id"] for item in items]})
            assert await peer.answers() == []
            if ending == "quit":
                await peer.say({"type": "quit"})
            elif ending == "4001":
                await peer.say("[")
            elif ending == "vanish":
                peer.socket.transport.abort()

    run(main())


def test_ten_thousand_ids_that_there_are_not(broker: Host) -> None:
    ids = [uuid7() for _ in range(limits.MAX_IDS)]

    async def main() -> None:
        async with producer(broker) as peer:
            await peer.say({"type": "watch", "ids": ids})
            answers = await peer.answers(len(ids))
            assert {answer["ref"] for answer in answers if isinstance(answer, dict)} == set(ids)

    run(main())


# --- Cancelling ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [[], [UNKNOWN], [UNKNOWN] * limits.MAX_IDS_PER_CANCEL])
def test_what_there_is_not_cannot_be_cancelled(broker: Host, ids: list[str]) -> None:
    async def main() -> None:
        async with producer(broker) as peer:
            await peer.say({"type": "cancel", "ref": 5, "ids": ids})
            said = await peer.expect("cancelled", ref=5)
            assert [run["id"] for run in said["runs"]] == ids
            assert all(run["error"]["code"] == "not_found" for run in said["runs"])

    run(main())


def test_a_run_is_cancelled_wherever_it_is_and_everybody_is_told(broker: Host) -> None:
    key = new_key()
    taken, waiting = new_run(task_key=key), new_run(task_key=key)

    async def main() -> None:
        async with worker(broker, key) as holder, producer(broker) as peer:
            await peer.submit(taken)
            await holder.expect("runs")
            # A start that comes after the cancelling is answered by another `cancel`: let it come before.
            await holder.say({"type": "started", "id": taken["id"], "attempt": 1}, {"type": "beat", "n": 1})
            await holder.expect("beat")
            await peer.submit(waiting)
            await peer.say({"type": "watch", "ids": [taken["id"], waiting["id"]]})
            ids = [taken["id"], waiting["id"]]
            await peer.say({"type": "cancel", "ref": "r", "ids": ids})
            await peer.expect("finished", id=waiting["id"], state={"type": "CANCELLED"})
            said = await peer.expect("cancelled", ref="r")
            cancelling = {"id": taken["id"], "state": {"type": "CANCELLING", "name": "Cancelling"}}
            cancelled = {"id": waiting["id"], "state": {"type": "CANCELLED", "name": "Cancelled"}}
            assert_like(said["runs"], [cancelling, cancelled])
            await holder.expect("cancel", id=taken["id"], attempt=1)
            state = {"type": "CANCELLED"}
            await holder.say({"type": "finished", "id": taken["id"], "attempt": 1, "state": state})
            await holder.expect("recorded")
            await peer.expect("finished", id=taken["id"], state=state)
            await peer.say({"type": "cancel", "ref": "again", "ids": ids})
            said = await peer.expect("cancelled", ref="again")
            assert [run["state"]["type"] for run in said["runs"]] == ["CANCELLED", "CANCELLED"]

    run(main())


# --- Load ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waiting", "size", "busy"),
    [
        (submit.MAX_WAITING - 1, submit.MAX_WAITING_BYTES - 1, False),
        (submit.MAX_WAITING, 0, True),
        (0, submit.MAX_WAITING_BYTES, True),
    ],
)
def test_too_much_waits_for_its_commit(
    broker: Host, waiting: int, size: int, busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = new_run()

    async def main() -> None:
        async with producer(broker) as peer:
            with monkeypatch.context() as patch:
                patch.setattr(Store, "waiting", waiting)
                patch.setattr(Store, "waiting_bytes", size)
                await peer.say({"type": "submit", "ref": "r", "runs": [item]})
                answer = await peer.hear()
            if busy:
                assert_like(answer, {"type": "busy", "ref": "r", "retry_after_seconds": ...})
                assert 0 < answer["retry_after_seconds"] < 10
                assert await peer.submit(item) == [{"id": item["id"], "created": True}]
            else:
                assert_like(answer, {"type": "submitted", "runs": [{"created": True}]})

    run(main())


def test_a_broker_that_drains_takes_no_runs(broker: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with producer(broker) as peer:
            with monkeypatch.context() as patch:
                patch.setattr(broker.core.submissions, "draining", True)
                await peer.say({"type": "submit", "ref": 1, "runs": [new_run()]})
                await peer.expect("busy", ref=1)
            await peer.submit(new_run())

    run(main())


def test_more_frames_than_may_wait_are_taken_all_the_same(broker: Host) -> None:
    """Reading waits until there is room again: nothing is lost, nobody is closed."""
    count = 2 * limits.MAX_UNPROCESSED_FRAMES

    async def main() -> None:
        async with producer(broker) as peer:
            await peer.submit(new_run())
            await peer.say([{"type": "submit", "ref": n, "runs": []} for n in range(count)])
            await peer.say(*[{"type": "submit", "ref": n, "runs": [new_run()]} for n in range(100)])
            answers = await peer.answers(count + 100)
            assert [a["ref"] for a in answers if isinstance(a, dict)] == [*range(count), *range(100)]

    run(main())


def test_one_message_of_more_runs_than_may_wait(broker: Host) -> None:
    key = new_key()
    count = 5000

    async def main() -> None:
        async with producer(broker) as peer:
            await peer.say(
                [{"type": "submit", "ref": n, "runs": [new_run(key)]} for n in range(count)],
                {"type": "submit", "ref": count, "runs": [new_run(key)]},
            )
            answers = await peer.answers(count + 1)
            assert {a["type"] for a in answers if isinstance(a, dict)} == {"submitted"}
            assert len(answers) == count + 1

    run(main())


# --- Peers that do not read ------------------------------------------------------------------------------------


def test_a_peer_that_never_reads(broker: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is closed as soon as more waits for it than may; everybody else is served meanwhile."""
    monkeypatch.setattr(Connection, "outbox_limit", 200_000)
    monkeypatch.setattr(talk, "BURST", 1e9)
    monkeypatch.setattr(connection, "_CLOSE_SECONDS", 0.02)
    beats = json.dumps([{"type": "beat", "n": 1}] * 4000)

    def is_closed() -> bool:
        return any("4408 too slow" in line for line in broker.log.lines())

    async def main() -> None:
        async with worker(broker, leave=False) as deaf, producer(broker) as other:
            deaf.socket.transport.pause_reading()
            with contextlib.suppress(ConnectionClosed):
                while not is_closed():
                    await deaf.socket.send(beats)
            await other.submit(new_run())
            deaf.socket.transport.abort()

    run(main())
    assert is_closed()


def test_an_outbox_has_an_end() -> None:
    async def main() -> None:
        outbox = Outbox(10)
        assert outbox.put(b"12345")
        assert not outbox.put(b"123456")
        assert outbox.put(b"12345")
        assert not outbox.put(b"1")
        assert outbox.bytes == 10
        assert outbox.take() == [b"[12345,12345]"]
        assert not outbox.put(b"1"), "what is on its way still counts"
        outbox.sent(13)
        assert outbox.bytes == 0
        assert outbox.put(b"1")

    run(main())


def test_an_outbox_packs_up_to_the_limit_of_a_message() -> None:
    async def main() -> None:
        outbox = Outbox(10 * limits.MAX_MESSAGE_BYTES)
        frame = b"x" * (limits.MAX_MESSAGE_BYTES // 3)
        for _ in range(7):
            outbox.put(frame)
        messages = outbox.take()
        assert [len(message) for message in messages] == [2 * len(frame) + 3] * 3 + [len(frame)]
        assert max(map(len, messages)) <= limits.MAX_MESSAGE_BYTES
        assert outbox.take() == []

    run(main())


def test_an_outbox_says_once_that_it_is_congested_and_once_that_it_is_clear() -> None:
    async def main() -> None:
        outbox = Outbox(4 * HIGH_WATER)
        outbox.put(b"x" * HIGH_WATER)
        assert not outbox.turned_congested()
        outbox.put(b"x")
        assert (outbox.turned_congested(), outbox.turned_congested()) == (True, False)
        outbox.sent(HIGH_WATER // 2)
        assert not outbox.turned_clear()
        outbox.sent(HIGH_WATER)
        assert (outbox.turned_clear(), outbox.turned_clear()) == (True, False)
        assert not outbox.congested

    run(main())


def test_an_outbox_says_when_there_is_something_to_take() -> None:
    async def main() -> None:
        outbox = Outbox(100)
        filling = asyncio.create_task(outbox.filled())
        await asyncio.sleep(0)
        assert not filling.done()
        outbox.put(b"1")
        await filling
        assert outbox.take() == [b"1"]
        filling = asyncio.create_task(outbox.filled())
        await asyncio.sleep(0)
        assert not filling.done()
        filling.cancel()

    run(main())


def test_closing_says_what_was_left(broker: Host) -> None:
    """What was said before the close arrives before it."""

    async def main() -> None:
        async with producer(broker) as peer:
            await peer.say([*[{"type": "beat", "n": 3}] * 50, {"type": "quit"}])
            assert [await peer.hear() for _ in range(50)] == [{"type": "beat", "n": 3}] * 50
            assert await peer.closed() == Close(1000, "goodbye")

    run(main())
