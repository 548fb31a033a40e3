"""Who takes what he is sent, and how much is made for who has not shown that yet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from runlane_broker.serving import deadlines
from runlane_broker.serving.buffers import SEND_BUFFER, STRANGERS_BUFFER, keep
from runlane_broker.serving.listening import bind
from runlane_broker.serving.probes import Credit, Probe, probe_of
from runlane_broker.serving.server import serving
from runlane_broker.serving.turns import standing_of

from ..support import run

Application = Callable[[Any], Awaitable[None]]


@asynccontextmanager
async def connected(application: Application) -> AsyncGenerator[ClientConnection]:
    """A client of an application that is called with the accepted connection's scope."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await application(scope)
        await receive()

    with closing(bind("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        connecting = connect(f"ws://127.0.0.1:{port}/", proxy=None, ping_interval=None)
        async with asyncio.timeout(20), serving(app, listener), connecting as client:
            yield client


def test_a_peer_that_reads_has_taken_what_it_was_sent_and_one_that_does_not_has_not() -> None:
    async def ask(scope: Any) -> None:
        probe = probe_of(scope)
        await probe.taken()
        order.append("read")
        deaf.set()
        await is_deaf.wait()
        asking = asyncio.create_task(probe.taken())
        for _ in range(100):
            await asyncio.sleep(0)
        order.append("taken" if asking.done() else "not taken")
        asked.set()
        await asking
        order.append("read again")
        done.set()

    order: list[str] = []
    deaf, is_deaf, asked, done = (asyncio.Event() for _ in range(4))

    async def main() -> None:
        async with connected(ask) as client:
            await deaf.wait()
            client.transport.pause_reading()
            is_deaf.set()
            await asked.wait()
            client.transport.resume_reading()
            await done.wait()

    run(main())
    assert order == ["read", "not taken", "read again"]


def test_the_pong_to_a_later_ping_counts_and_what_nobody_asked_for_does_not() -> None:
    """RFC 6455, 5.5.3: who has several pings to answer may answer the last of them alone."""

    async def main() -> None:
        pings: list[bytes] = []
        probe = Probe(pings.append)
        asking = asyncio.create_task(probe.taken())
        await asyncio.sleep(0)
        probe.ponged(b"anything", None)
        probe.ponged(b"", b"later")
        await asyncio.sleep(0)
        assert not asking.done()
        probe.ponged(b"later", b"later")
        await asking
        again = asyncio.create_task(probe.taken())
        await asyncio.sleep(0)
        probe.ponged(pings[0], None)
        await asyncio.sleep(0)
        assert not again.done(), "that was the answer to the first"
        probe.ponged(pings[1], None)
        await again

    run(main())


def test_who_takes_what_he_is_sent_is_sent_twice_as_much_before_he_is_asked_again() -> None:
    async def main() -> list[int]:
        def ping(payload: bytes) -> None:
            asked.append(len(sent))
            probe.ponged(payload, None)

        asked: list[int] = []
        sent: list[int] = []
        probe = Probe(ping)
        credit = Credit(probe, 4)
        for page in range(15):
            sent.append(page)
            await credit.use()
        return asked

    assert run(main()) == [1, 3, 7, 11, 15]


def test_a_server_that_cannot_ask_believes_everybody() -> None:
    async def main() -> None:
        probe = probe_of({"extensions": {}})
        async with asyncio.timeout(5):
            await probe.taken()

    run(main())


def test_little_is_kept_for_a_stranger_until_it_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[tuple[int, int]] = []

    def noting(transport: asyncio.Transport, size: int) -> None:
        keep(transport, size)
        kept.append((size, transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)))

    async def trust(scope: Any) -> None:
        standing = standing_of(scope)
        for trusted in (False, True, False, True):
            standing.trusted = trusted
            lengths.append(len(kept))
        done.set()

    lengths: list[int] = []
    done = asyncio.Event()

    async def main() -> None:
        async with connected(trust):
            await done.wait()

    monkeypatch.setattr(deadlines, "keep", noting)
    run(main())
    assert [size for size, _ in kept] == [STRANGERS_BUFFER, SEND_BUFFER]
    assert kept[0][1] < kept[1][1], "as the system has it"
    assert lengths == [1, 2, 2, 2]
