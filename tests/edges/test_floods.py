"""Peers that send much, slowly, or nothing: each is bounded, and holds up nobody but itself."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from websockets.server import ServerProtocol

from runlane.protocol import limits
from runlane.protocol.messages import SUBPROTOCOL
from runlane_broker.api import parsing
from runlane_broker.core.ports import Watcher
from runlane_broker.core.reports import Reports
from runlane_broker.core.sessions import Sessions
from runlane_broker.core.watching import Watching
from runlane_broker.gateway import connection, talk
from runlane_broker.gateway.outbox import Outbox
from runlane_broker.gateway.submission import SubmissionConnection
from runlane_broker.serving import deadlines
from runlane_broker.storage.records import FinalRun
from runlane_broker.storage.store import Store

from .harness import (
    SUBMISSION,
    WORKER,
    Close,
    Host,
    Peer,
    authenticated,
    close_of,
    dial,
    new_run,
    producer,
    request,
    run,
    status_of,
    upgrade,
    worker,
    ws_frame,
)
from .harness import (
    talk as exchange,
)

NOBODY = "0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90"
BEAT = {"type": "beat", "n": 1}
TOO_MUCH = Close(4429, "too much, too fast; come back in 1 s")


# --- Much ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "frame"),
    [
        (WORKER, BEAT),
        (WORKER, {"type": "limit", "limit": 1}),
        (SUBMISSION, BEAT),
        (SUBMISSION, {"type": "unwatch", "ids": []}),
        (SUBMISSION, {"type": "submit", "ref": 1, "runs": [{}]}),
        (WORKER, {"type": "finished", "id": NOBODY, "attempt": 1, "state": {"type": "FAILED"}}),
        (WORKER, {"type": "started", "id": NOBODY, "attempt": 1}),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else value.rpartition("/")[2],
)
def test_a_flood_of_frames_that_wait_for_nothing_or_change_nothing_is_cut(
    broker: Host, monkeypatch: pytest.MonkeyPatch, path: str, frame: dict[str, Any]
) -> None:
    monkeypatch.setattr(talk, "BURST", 100.0 * talk.STRANGER)
    monkeypatch.setattr(talk, "RATE", 0.001)

    async def main() -> None:
        async with worker(broker, leave=False) if path == WORKER else producer(broker) as peer:
            await peer.say([frame] * 20)
            assert TOO_MUCH not in await peer.answers(), "so many are nothing unusual"
            await peer.say([frame] * 2000)
            assert await peer.closed() == TOO_MUCH

    run(main())


def test_runs_that_are_watched_one_by_one_are_looked_for_together(
    broker: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read for each would fall behind a producer that hands in run after run, and have it cut off at last."""
    ours = {new_run("edge.watched")["id"] for _ in range(200)}
    looks: list[int] = []
    look_up = Watching.look_up

    async def noted(self: Watching, watcher: Watcher, ids: Sequence[str]) -> tuple[list[FinalRun], list[str]]:
        if len(of_ours := set(ids) & ours):  # the host's own peers watch, too
            looks.append(len(of_ours))
        return await look_up(self, watcher, ids)

    monkeypatch.setattr(Watching, "look_up", noted)

    async def main() -> None:
        async with producer(broker) as peer:
            await peer.say([{"type": "watch", "ids": [run_id]} for run_id in ours])
            for _ in range(200):
                await peer.expect("error")

    run(main())
    assert sum(looks) == 200
    assert 4 < max(looks) <= 50
    assert len(looks) <= 20


def test_who_watches_the_same_runs_again_and_again_is_cut(broker: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "BURST", 100.0)
    monkeypatch.setattr(talk, "RATE", 0.001)

    async def main() -> None:
        async with producer(broker) as peer:
            new = new_run("edge.watched")
            await peer.submit(new)
            frame = {"type": "watch", "ids": [new["id"]] * 10}
            await peer.say([frame] * 50)
            assert TOO_MUCH not in await peer.answers(), "so many are nothing unusual"
            await peer.say([frame] * 600)
            assert await peer.closed() == TOO_MUCH

    run(main())


def test_what_was_said_is_forgotten_with_time() -> None:
    now = 0.0
    bucket = talk.Talk(lambda: now)
    beat = talk.m.Beat()
    bucket.become_known()
    assert all(bucket.allows(beat) for _ in range(1250))
    assert not bucket.allows(beat)
    now = 1.0
    assert sum(bucket.allows(beat) for _ in range(1000)) == 49  # one was owed
    now = 10_000.0
    assert sum(bucket.allows(beat) for _ in range(10_000)) == 1250
    submit = talk.m.Submit(ref=1, runs=())
    assert all(bucket.allows(submit) for _ in range(10_000)), "those wait for their commit"


def test_who_says_nothing_more_in_vain_talks_sparingly_again() -> None:
    now = 0.0
    bucket = talk.Talk(lambda: now)
    assert bucket.is_sparing
    bucket.spend(talk.BURST / 2 / talk.STRANGER)
    assert not bucket.is_sparing
    now = talk.BURST / talk.RATE
    assert bucket.allows(talk.m.Submit(ref=1, runs=()))
    assert bucket.is_sparing, "however long it says only what is of use"


def test_a_stranger_may_say_less() -> None:
    stranger, known = talk.Talk(lambda: 0.0), talk.Talk(lambda: 0.0)
    known.become_known()
    beat = talk.m.Beat()
    may = [sum(one.allows(beat) for _ in range(10_000)) for one in (stranger, known)]
    assert may == [125, 1250]


def test_a_message_of_very_many_frames_lets_others_have_their_turn(
    broker: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "BURST", 1e9)

    async def main() -> tuple[int, int]:
        async with producer(broker) as loud:
            counting = asyncio.run_coroutine_threadsafe(turns(), broker.loop)
            await loud.say([BEAT] * 30_000)
            await loud.answers(30_000)
            stop.set()
            return await asyncio.wrap_future(counting)

    async def turns() -> tuple[int, int]:
        """Count the turns of the loop in which some of the beats were taken, and the most in one."""
        turns, most, before = 0, 0, 0
        while not stop.is_set():
            await asyncio.sleep(0)
            taken, before = len(beats) - before, len(beats)
            turns += taken > 0
            most = max(most, taken)
        return turns, most

    stop = threading.Event()
    beats: list[int] = []
    allows = talk.Talk.allows

    def noting(self: talk.Talk, frame: talk.m.Frame) -> bool:
        beats.append(1)
        return allows(self, frame)

    monkeypatch.setattr(talk.Talk, "allows", noting)
    count, most = run(main())
    assert most <= 200
    assert count >= 30_000 / 200


def test_the_frames_of_a_long_message_keep_their_order(broker: Host) -> None:
    count = 3 * limits.MAX_UNPROCESSED_FRAMES

    async def main() -> None:
        async with producer(broker) as peer:
            await peer.say(
                [{"type": "submit", "ref": n, "runs": [new_run()] if n % 2 else []} for n in range(count)]
            )
            refs = [(await peer.expect("submitted"))["ref"] for _ in range(count)]
            assert [ref for ref in refs if ref % 2] == list(range(1, count, 2))
            assert [ref for ref in refs if not ref % 2] == list(range(0, count, 2))

    run(main())


def test_who_asks_for_results_and_takes_none_does_not_fill_the_memory(
    broker: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is looked for waits until what was found has been taken: only what made it too much comes on top."""
    items = [new_run("edge.flood") for _ in range(32)]
    waiting: list[int] = []
    put = Outbox.put

    def noting(self: Outbox, frame: bytes) -> bool:
        fits = put(self, frame)
        waiting.append(self.bytes)
        return fits

    async def main() -> None:
        async with worker(broker, "edge.flood") as peer, producer(broker) as sender:
            await sender.submit(*items)
            for _ in items:
                (pushed,) = await peer.pushed()
                await peer.finish(pushed, result="x" * 500_000)
        monkeypatch.setattr(Outbox, "put", noting)
        async with authenticated(broker, SUBMISSION) as greedy:
            greedy.socket.transport.pause_reading()
            await greedy.say(*({"type": "watch", "ids": [item["id"]]} for item in items))
            while not waiting or waiting[-1] <= SubmissionConnection.strangers_high_water:
                await asyncio.sleep(0.001)
            greedy.socket.transport.resume_reading()
            found = [await greedy.expect("finished") for _ in items]
            assert {frame["id"] for frame in found} == {item["id"] for item in items}

    run(main())
    assert max(waiting) < SubmissionConnection.strangers_high_water + 501_000


@pytest.mark.parametrize("available", [True, False])
def test_who_is_not_read_for_want_of_room_is_not_taken_for_silent(
    broker: Host, monkeypatch: pytest.MonkeyPatch, available: bool
) -> None:
    """And while the database is away, it is not closed for it, either."""
    monkeypatch.setattr(connection, "_UNHEARD_SECONDS", 0.005)
    monkeypatch.setattr(connection, "_CROWDED_SECONDS", 0.05)
    monkeypatch.setattr(Store, "available", available)
    waiting: list[Callable[[], None]] = []
    monkeypatch.setattr(Reports, "finished", lambda *arguments: waiting.append(arguments[-1]))
    seen: list[object] = []
    monkeypatch.setattr(Sessions, "seen", lambda _, session: seen.append(session))

    async def main() -> None:
        async with worker(broker, leave=False) as peer:
            report = {"type": "finished", "id": NOBODY, "attempt": 1, "state": {"type": "COMPLETED"}}
            before = len(seen)
            await peer.say([report] * 20)
            if available:
                assert await peer.closed() == TOO_MUCH
                assert len(waiting) < 20
                return
            while len(seen) < before + 50:
                await asyncio.sleep(0.001)
            while len(waiting) < 20:
                broker.call(waiting[-1])
                await asyncio.sleep(0.001)
            broker.call(waiting[-1])
            await peer.say(BEAT)
            await peer.expect("beat")

    run(main())


def some_take_nothing() -> bool:
    """Say whether the system has no room for what is sent on some connection."""
    every = [p for p in gc.get_objects() if issubclass(type(p), deadlines.PromptWebSocket)]
    return any(p in p.connections and not p.writable.is_set() for p in every)


def test_who_takes_nothing_is_heard_no_more(broker: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it asks costs nobody anything, until it has taken what it was sent; then all of it is answered."""
    item = new_run("edge.deaf")
    watches: list[str] = []
    congested: set[Outbox] = set()
    put, watch = Outbox.put, Watching.watch

    def noting_put(self: Outbox, frame: bytes) -> bool:
        fits = put(self, frame)
        (congested.add if self.bytes > self.high_water else congested.discard)(self)
        return fits

    def noting_watch(self: Watching, watcher: Watcher, ids: Sequence[str]) -> None:
        watches.extend(ids)
        watch(self, watcher, ids)

    async def beat(other: Peer) -> None:
        await other.say(BEAT)
        await other.expect("beat")

    async def is_stuck(other: Peer) -> bool:
        """Say whether it is congested, and stays so while somebody else is answered."""
        before = {box: box.bytes for box in congested}
        for _ in range(5):
            await beat(other)
        stuck = any(box.congested and box.bytes == before.get(box) for box in congested)
        return stuck and broker.call(some_take_nothing)

    async def main() -> None:
        async with worker(broker, "edge.deaf") as peer, producer(broker) as other:
            await other.submit(item)
            (pushed,) = await peer.pushed()
            await peer.finish(pushed, result="x" * 500_000)
            monkeypatch.setattr(Outbox, "put", noting_put)
            monkeypatch.setattr(Watching, "watch", noting_watch)
            async with authenticated(broker, SUBMISSION) as deaf:
                deaf.socket.transport.pause_reading()
                ask = {"type": "watch", "ids": [item["id"]]}
                asked = 0
                while not await is_stuck(other):
                    await deaf.say(ask)
                    asked += 1
                heard = len(watches)
                await deaf.say(*[ask] * 50)
                for _ in range(5):
                    await beat(other)
                assert len(watches) <= heard + 1, "the one message that was being taken"
                deaf.socket.transport.resume_reading()
                while len(watches) < asked + 50:
                    await deaf.expect("finished")

    run(main())


# --- Slow ------------------------------------------------------------------------------------------------------


def test_a_body_that_does_not_come_is_not_waited_for(broker: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "BODY_SECONDS", 0.02)
    head = request("/api/task_runs/filter", "Content-Length: 100", method="POST").replace(
        b"Connection: close\r\n", b""
    )
    answer = run(exchange(broker, head + b"{"))
    assert status_of(answer) == 408
    assert b"has not come within 0.02 s" in answer
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: x\r\n", upgrade(WORKER)[:-2]],
    ids=["nothing", "half a line", "half a head", "half an upgrade"],
)
def test_who_never_says_what_it_wants_is_cut(broker: Host, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(deadlines, "HEAD_SECONDS", 0.02)
    assert run(exchange(broker, sent)) == b""


def test_a_second_request_has_its_time_too(broker: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = request("/livez").replace(b"Connection: close\r\n", b"")

    async def main() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        writer.write(whole)
        answer = await reader.readuntil(b"\r\n\r\n")
        monkeypatch.setattr(deadlines, "HEAD_SECONDS", 0.02)
        writer.write(whole[:10])
        rest = await reader.read()
        writer.close()
        return answer + rest

    assert status_of(run(main())) == 200


def test_a_socket_outlives_the_time_for_its_head(broker: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "HEAD_SECONDS", 0.05)

    async def main() -> None:
        async with dial(broker, WORKER) as peer:
            await asyncio.sleep(0.1)
            await peer.say({"type": "auth"})
            await peer.expect("auth_success")

    run(main())


# --- Bytes -----------------------------------------------------------------------------------------------------


def test_very_many_messages_let_others_have_their_turn(broker: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes in one piece may be thousands of messages."""
    monkeypatch.setattr(talk, "BURST", 1e9)
    parsed: list[int] = []
    receive_data = ServerProtocol.receive_data

    def noting(self: ServerProtocol, data: bytes) -> None:
        parsed.append(len(data))
        receive_data(self, data)

    monkeypatch.setattr(ServerProtocol, "receive_data", noting)

    async def main() -> None:
        async with authenticated(broker, SUBMISSION) as peer:
            await peer.say(*[BEAT] * 5000)
            await peer.answers(5000)

    run(main())
    assert max(parsed) <= deadlines.SLICE_BYTES
    assert sum(parsed) >= 5000 * 20


def test_who_goes_on_after_it_was_closed_is_cut_off(broker: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "CLOSE_SECONDS", 60.0)
    flood = ws_frame(1, b'{"type":"quit"}') + ws_frame(1, b" " * 100) * 2000
    answer = run(exchange(broker, upgrade(SUBMISSION, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"), flood))
    assert status_of(answer) == 101


@pytest.mark.parametrize("path", [WORKER, SUBMISSION])
def test_text_that_is_none_right_before_a_close_frame(broker: Host, path: str) -> None:
    both = ws_frame(1, b'{"type":"\xff"}') + ws_frame(8, b"\x03\xe8")
    answer = run(exchange(broker, upgrade(path, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"), both))
    assert close_of(answer) in (1000, 1007)


@pytest.mark.parametrize("path", [WORKER, SUBMISSION])
def test_pings_that_nobody_takes_an_answer_to_pile_up_nowhere(
    broker: Host, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(deadlines, "MAX_PINGS", 10**9)
    pings = ws_frame(9, b"x" * 100) * 5000

    async def main() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port, limit=2**12)
        writer.write(upgrade(path, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"))
        await reader.readuntil(b"\r\n\r\n")
        most = 0
        with suppress(ConnectionError):  # in the end its handshake has taken too long
            for _ in range(40):
                writer.write(pings)
                await writer.drain()
                most = max(most, *broker.call(unsent))
        writer.transport.abort()
        return most

    def unsent() -> list[int]:
        return [
            p.transport.get_write_buffer_size()
            for p in gc.get_objects()
            if issubclass(type(p), deadlines.PromptWebSocket)
        ]

    assert run(main()) < 2**20


@pytest.mark.parametrize("path", [WORKER, SUBMISSION])
def test_who_pings_without_end_is_cut_off(broker: Host, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(deadlines, "MAX_PINGS", 5)
    answer = run(exchange(broker, upgrade(path, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"), ws_frame(9, b"") * 200))
    assert status_of(answer) == 101
