"""What connections leave when they end: nothing that waits for the garbage collector, which stops everybody."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

import pytest
from starlette.websockets import WebSocket
from websockets.server import ServerProtocol

from runlane.protocol import limits
from runlane_broker.gateway import talk
from runlane_broker.gateway.submission import SubmissionConnection
from runlane_broker.gateway.worker import WorkerConnection
from runlane_broker.prefect import events_out, handshake
from runlane_broker.prefect import socket as prefect_socket
from runlane_broker.prefect.events_in import EventsIn
from runlane_broker.prefect.events_out import EventsOut
from runlane_broker.prefect.socket import TakerConnection
from runlane_broker.serving import deadlines
from runlane_broker.serving.deadlines import PromptHTTP
from runlane_broker.serving.server import WebSocketConnection

from .harness import SUBMISSION, WORKER, Host, request, run, upgrade, ws_frame
from .harness import talk as exchange

#: What makes up a connection; nothing else that it leaves is of any size.
PARTS: Final = frozenset(
    {
        PromptHTTP,
        WebSocketConnection,
        ServerProtocol,
        WebSocket,
        WorkerConnection,
        SubmissionConnection,
        TakerConnection,
        EventsIn,
        EventsOut,
    }
)
#: How many connections of a kind end.
COUNT: Final = 5

OURS: Final = "Sec-WebSocket-Protocol: runlane.v1"
PREFECT: Final = "Sec-WebSocket-Protocol: prefect"
CLOSE: Final = ws_frame(8, b"\x03\xe8")


def text(**frame: Any) -> bytes:
    return ws_frame(1, json.dumps(frame).encode())


AUTH: Final = text(type="auth")
SUBSCRIBE: Final = text(type="subscribe", client_id="edge", keys=["edge.gone"], limit=1)
BEATS: Final = text(type="beat", n=1) * 200
TAKE: Final = text(type="subscribe", client_id="edge", keys=["edge.taken"])
PAST: Final = text(type="filter", filter={}, backfill=True)

WORKERS: Final = upgrade(WORKER, OURS)
PRODUCERS: Final = upgrade(SUBMISSION, OURS)
TAKERS: Final = upgrade(WORKER, PREFECT)
EVENTS_IN: Final = upgrade("/api/events/in", PREFECT)
EVENTS_OUT: Final = upgrade("/api/events/out", PREFECT)

#: What a peer sends: at first, and when that has been answered. Then the broker ends the connection.
ENDINGS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "answered": (request("/livez"),),
    "nothing was said": (b"",),
    "half a head": (WORKERS[:-2],),
    "no such version": (WORKERS.replace(b"Version: 13", b"Version: 12"),),
    "no key": (WORKERS.replace(b"Sec-WebSocket-Key", b"X-Key"),),
    "too long a head": (upgrade(WORKER, OURS, f"X: {'x' * 10_000}"),),
    "no such path": (upgrade("/api/nowhere", OURS),),
    "a foreign name": (upgrade(WORKER, OURS, host="example.com"),),
    "no subprotocol of ours": (upgrade(SUBMISSION),),
    "a worker that says nothing": (WORKERS,),
    "a worker that never subscribes": (WORKERS, AUTH),
    "a worker that closes": (WORKERS, AUTH + SUBSCRIBE + CLOSE),
    "a worker that floods": (WORKERS, AUTH + SUBSCRIBE + BEATS),
    "a producer that quits": (PRODUCERS, AUTH + text(type="quit")),
    "a producer that closes": (PRODUCERS, AUTH + CLOSE),
    "a producer that floods": (PRODUCERS, AUTH + BEATS),
    "a producer that says what is refused": (PRODUCERS, AUTH + text(type="nonsense") * 200),
    "bytes": (PRODUCERS, AUTH + ws_frame(2, b"{}")),
    "text that is none": (PRODUCERS, AUTH + ws_frame(1, b"\xff")),
    "too much in one message": (PRODUCERS, AUTH + b"\x81\xff" + (2**40).to_bytes(8, "big") + bytes(4)),
    "no frame": (PRODUCERS, AUTH + b"\xff\xff\xff\xff"),
    "a taker that says nothing": (TAKERS,),
    "a taker that closes": (TAKERS, AUTH + TAKE + CLOSE),
    "a taker that floods": (TAKERS, AUTH + TAKE + text(type="ack") * 200),
    "events in, closed": (EVENTS_IN, AUTH + CLOSE),
    "events in, nonsense": (EVENTS_IN, AUTH + text(id=1) * 200),
    "events out, nothing": (EVENTS_OUT,),
    "events out, closed": (EVENTS_OUT, AUTH + text(type="filter", filter={}, backfill=False) + CLOSE),
    "events out, that nobody takes": (EVENTS_OUT, AUTH + PAST),
}


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody is waited for, hardly anything is borne, and nothing is freed but by its last reference."""
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.02)
    monkeypatch.setattr(handshake, "HANDSHAKE_SECONDS", 0.02)
    monkeypatch.setattr(prefect_socket, "HANDSHAKE_SECONDS", 0.02)
    monkeypatch.setattr(events_out, "_TAKE_SECONDS", 0.02)
    monkeypatch.setattr(deadlines, "HEAD_SECONDS", 0.02)
    monkeypatch.setattr(deadlines, "CLOSE_SECONDS", 0.02)
    monkeypatch.setattr(talk, "RATE", 0.001)
    gc.disable()
    yield
    gc.enable()


def parts() -> Counter[str]:
    """Count what there is of connections."""
    return Counter(type(part).__name__ for part in gc.get_objects() if type(part) in PARTS)


async def nothing_remains(before: Counter[str]) -> None:
    """Wait until there is no more of connections than there was."""
    try:
        async with asyncio.timeout(5.0):
            while parts() - before:
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"left behind: {dict(parts() - before)}") from None


def check(host: Host, peer: Callable[[], Awaitable[object]]) -> None:
    """Let peers come and go, and see what they leave."""

    async def main() -> None:
        gc.collect()
        before = parts()
        for _ in range(COUNT):
            await peer()
        await nothing_remains(before)

    run(main())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_connection_that_the_broker_ends_leaves_nothing(broker: Host, ending: str) -> None:
    check(broker, lambda: exchange(broker, *ENDINGS[ending]))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (request("/livez"), b""),
        (WORKERS, b""),
        (WORKERS, AUTH + SUBSCRIBE),
        (PRODUCERS, AUTH),
        (TAKERS, AUTH + TAKE),
        (EVENTS_IN, AUTH),
        (EVENTS_OUT, AUTH + PAST),
    ],
    ids=["a request", "upgraded", "a worker", "a producer", "a taker", "events in", "events out"],
)
def test_a_peer_that_is_gone_leaves_nothing(broker: Host, head: bytes, said: bytes) -> None:
    async def vanish() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        writer.write(head)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()
        writer.transport.abort()

    check(broker, vanish)
