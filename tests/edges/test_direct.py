"""The short way between a WebSocket and its application, on uvicorn as it is served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from runlane_broker.serving.direct import Direct, direct_way
from runlane_broker.serving.listening import bind
from runlane_broker.serving.server import serving

from ..support import run

#: Called with the connection's short way, and its ASGI `receive` and `send`, when it has been accepted.
Application = Callable[[Direct, Any, Any], Awaitable[None]]


@asynccontextmanager
async def connected(application: Application) -> AsyncGenerator[ClientConnection]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        direct = direct_way(scope)
        assert direct is not None
        await application(direct, receive, send)

    with closing(bind("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        connecting = connect(f"ws://127.0.0.1:{port}/", proxy=None, ping_interval=None, max_size=None)
        async with asyncio.timeout(20), serving(app, listener), connecting as client:
            yield client


def test_messages_come_and_go_without_receive_and_send() -> None:
    async def echo(direct: Direct, receive: Any, _send: Any) -> None:
        direct.take = lambda text: received.append((text, direct.send(text.encode())))
        ended.append(await receive())

    received: list[tuple[str, bool]] = []
    ended: list[Any] = []

    async def main() -> None:
        async with connected(echo) as client:
            texts = ["one", "zwei ü", "x" * 100_000, ""]
            for text in texts:
                await client.send(text)
                assert await client.recv() == text
            await client.send(["in ", "parts"])  # is for `receive`, as what is binary is
            while not ended:
                await asyncio.sleep(0)
        assert received == [(text, True) for text in texts]
        assert ended == [{"type": "websocket.receive", "text": "in parts"}]

    run(main())


def test_what_came_before_is_received_before() -> None:
    async def late(direct: Direct, receive: Any, _send: Any) -> None:
        direct.send(b"go")
        first = await receive()
        await sent.wait()
        direct.take = order.append
        order.append(first["text"])
        order.append((await receive())["text"])
        done.set()
        await receive()

    order: list[str] = []
    sent, done = asyncio.Event(), asyncio.Event()

    async def main() -> None:
        async with connected(late) as client:
            await client.recv()
            await client.send("1")
            await client.send("2")
            await (await client.ping())
            sent.set()
            await done.wait()
            await client.send("3")
            await (await client.ping())
        assert order == ["1", "2", "3"]

    run(main())


def test_who_takes_nothing_is_sent_no_more_than_there_is_room_for() -> None:
    async def flood(direct: Direct, _receive: Any, send: Any) -> None:
        count = 0
        while direct.send(b"%d " % count + bytes(100_000)):
            count += 1
        assert not direct.send(b"no room")
        told.set_result(count)
        await send({"type": "websocket.send", "text": "the long way"})

    told: asyncio.Future[int]

    async def main() -> None:
        nonlocal told
        told = asyncio.get_running_loop().create_future()
        async with connected(flood) as client:
            count = await told
            for i in range(count):
                assert str(await client.recv()).startswith(f"{i} ")
            assert await client.recv() == "the long way"

    run(main())


def test_after_the_end_nothing_is_sent() -> None:
    async def leave(direct: Direct, receive: Any, _send: Any) -> None:
        assert (await receive())["type"] == "websocket.disconnect"
        told.append(direct.send(b"too late"))

    told: list[bool] = []

    async def main() -> None:
        async with connected(leave) as client:
            await client.close()
        assert told == [False]

    run(main())
