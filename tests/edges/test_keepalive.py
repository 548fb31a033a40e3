"""Who is pinged, and when: uvicorn's keepalive as the broker has it."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from runlane_broker.serving.deadlines import PromptWebSocket

INTERVAL, PATIENCE = 20.0, 20.0
#: A ping is due on a whole second, and up to 3 s sooner.
EARLIEST = INTERVAL - 4
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Timer:
    def __init__(self, when: float, call: Any) -> None:
        self.when, self.call = when, call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Any) -> Timer:
        self.timers.append(Timer(self.now + seconds, call))
        return self.timers[-1]

    def call_at(self, when: float, call: Any) -> Timer:
        return self.call_later(when - self.now, call)

    def create_task(self, coroutine: Any) -> Any:
        coroutine.close()
        return Mock()

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [timer for timer in self.timers if timer.call is not None and timer.when <= until]:
            first = min(due, key=lambda timer: timer.when)
            self.timers.remove(first)
            self.now = max(self.now, first.when)
            first.call()
        self.now = until


class Transport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_extra_info(self, name: str) -> Any:
        return None


class Peer:
    """A connection that has just been opened."""

    def __init__(self, loop: Loop | None = None, kind: type[PromptWebSocket] = PromptWebSocket) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            """Never run here."""

        config = uvicorn.Config(app, ws_ping_interval=INTERVAL, ws_ping_timeout=PATIENCE, log_config=None)
        config.load()
        self.loop: Any = loop or Loop()
        self.transport: Any = Transport()
        self.protocol = kind(config, ServerState(), {}, self.loop, turns=Mock())
        self.protocol.connection_made(self.transport)
        self.protocol.data_received(UPGRADE)
        self.protocol.conn.send_response(self.protocol.response)
        self.protocol.handshake_complete = True
        self.protocol.start_keepalive()
        self.transport.written.clear()
        self.protocol.conn.data_to_send()

    def says(self, opcode: Opcode, data: bytes) -> None:
        self.protocol.data_received(Frame(opcode, data).serialize(mask=True))

    def pong(self) -> None:
        ping = self.transport.written.pop()
        self.says(Opcode.PONG, ping[2:])


@pytest.fixture
def peer() -> Peer:
    return Peer()


def test_a_silent_peer_is_pinged_and_one_that_does_not_answer_is_closed(peer: Peer) -> None:
    peer.loop.advance(EARLIEST - 0.1)
    assert peer.transport.written == []
    peer.loop.advance(INTERVAL - EARLIEST + 0.1)
    assert [data[0] & 0xF for data in peer.transport.written] == [Opcode.PING]
    peer.loop.advance(PATIENCE)
    assert peer.transport.closed


def test_one_that_answers_is_pinged_again(peer: Peer) -> None:
    for _ in range(3):
        peer.loop.advance(INTERVAL)
        assert len(peer.transport.written) == 1
        peer.loop.advance(0.5)
        peer.pong()
        peer.loop.advance(-0.5)
    assert not peer.transport.closed


def test_one_that_speaks_is_not_pinged_before_it_has_been_silent_for_as_long(peer: Peer) -> None:
    for _ in range(5):
        peer.loop.advance(EARLIEST - 1)
        peer.says(Opcode.TEXT, b"here")
    assert peer.transport.written == []
    peer.loop.advance(INTERVAL)
    assert len(peer.transport.written) == 1
    peer.loop.advance(PATIENCE)
    assert peer.transport.closed


def test_those_who_are_due_within_a_second_are_pinged_together_and_not_all_who_spoke_together() -> None:
    """A wake-up costs more than a ping; but hundreds of pings and pongs at once would hold everybody else up."""
    loop = Loop()
    peers: list[Peer] = []
    for _ in range(100):
        loop.advance(0.01)
        peers.append(Peer(loop))
    since = loop.now
    pinged_at: set[float] = set()
    while loop.now < since + INTERVAL:
        before = sum(len(peer.transport.written) for peer in peers)
        loop.advance(0.125)
        if sum(len(peer.transport.written) for peer in peers) > before:
            pinged_at.add(loop.now)
    assert all(len(peer.transport.written) == 1 for peer in peers)
    assert 1 < len(pinged_at) <= INTERVAL - EARLIEST + 1


def test_who_has_been_quiet_is_heard_without_a_turn_and_who_has_not_waits_for_one(peer: Peer) -> None:
    """A pong of somebody idle need not wait; hundreds of them would each cost the way through the queue."""
    turns: list[Any] = []
    peer.protocol._turns.call.side_effect = lambda callback, **_: turns.append(callback)
    peer.protocol._standing.trusted = False
    peer.loop.advance(INTERVAL)
    peer.pong()
    assert turns == []
    assert peer.protocol.pending_ping_payload is None, "it was heard"
    peer.says(Opcode.TEXT, b"here")
    assert len(turns) == 1
    assert peer.protocol.queue.qsize() == 1, "the connection's beginning"
    turns.pop()()
    assert peer.protocol.queue.qsize() == 2
