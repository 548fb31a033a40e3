"""Pongs as receipts: each waits for the messages before its own ping, however they came."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from runlane_broker.serving.receipts import receipts_of
from runlane_broker.serving.server import WebSocketConnection

from .test_keepalive import Peer


@pytest.fixture
def peer() -> Peer:
    return Peer(kind=WebSocketConnection)


def together(*frames: tuple[Opcode, bytes]) -> bytes:
    """Frames as they come that were sent while nobody listened."""
    return b"".join(Frame(opcode, data).serialize(mask=True) for opcode, data in frames)


def pong(data: bytes) -> bytes:
    return Frame(Opcode.PONG, data).serialize(mask=False)


def test_pings_that_came_together_have_each_a_pong_of_its_own_time(peer: Peer) -> None:
    receipts = receipts_of(peer.protocol.scope)
    receipts.hold()
    text = Opcode.TEXT, b"{}"
    peer.protocol.data_received(
        together((Opcode.PING, b"1"), text, (Opcode.PING, b"2"), (Opcode.PING, b"3"), text, (Opcode.PING, b"4"))
    )
    assert peer.transport.written == [pong(b"1")]
    receipts.settle()
    assert peer.transport.written == [pong(b"1"), pong(b"2"), pong(b"3")]
    receipts.settle()
    assert peer.transport.written[3:] == [pong(b"4")]


def test_a_close_behind_a_ping_is_answered_at_once(peer: Peer) -> None:
    receipts_of(peer.protocol.scope).hold()
    goodbye = Opcode.CLOSE, b"\x03\xe8"
    peer.protocol.data_received(together((Opcode.TEXT, b"{}"), (Opcode.PING, b"1"), goodbye))
    assert b"".join(peer.transport.written) == Frame(*goodbye).serialize(mask=False)
    assert peer.transport.closed
