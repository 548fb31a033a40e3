"""Serving an application: uvicorn, and signals, which the program owns.

uvicorn would answer SIGTERM by closing every socket at once; ours says `draining` first and waits for reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final, cast

import uvicorn
from starlette.types import ASGIApp

from runlane.protocol.limits import MAX_MESSAGE_BYTES

from .deadlines import PromptHTTP, PromptWebSocket
from .direct import DirectProtocol
from .probes import ProbeProtocol
from .receipts import ReceiptProtocol
from .sizes import SizedProtocol
from .turns import Turns

#: Who has been silent for so long is pinged, and has so long to answer: 48 s at most. Idle workers of ours send
#: a beat every 20 s, and need no ping. Seconds.
_PING_SECONDS: Final = 30.0
_PONG_SECONDS: Final = 18.0
#: What uvicorn counts.
_TICKS_A_SECOND: Final = 10
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """uvicorn without its signal handlers, and without looking ten times a second whether it shall end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End `serve`."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Have the `Date` of answers set every second, until the end."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += _TICKS_A_SECOND
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._stopping.wait()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals to the program."""
        yield


class WebSocketConnection(PromptWebSocket, ReceiptProtocol, ProbeProtocol, DirectProtocol, SizedProtocol):
    """uvicorn's, with deadlines; where an application wants it, pongs wait, ways are short, messages large."""


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket) -> AsyncGenerator[None]:
    """Serve an application on a listener while the block runs; then close every connection with 1012."""
    turns = Turns()
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(PromptHTTP, turns=turns)),
        ws=cast("type[asyncio.Protocol]", partial(WebSocketConnection, turns=turns)),
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=_PING_SECONDS,
        ws_ping_timeout=_PONG_SECONDS,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    try:
        while not server.started and not task.done():  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.005)
        yield
    finally:
        server.stop()
        await task


@contextmanager
def stop_signals(stop: Callable[[], Any]) -> Generator[None]:
    """Call `stop` on the event loop at SIGINT and SIGTERM, where the platform has such signals for a loop."""
    loop = asyncio.get_running_loop()
    installed: list[signal.Signals] = []
    for number in _SIGNALS:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop)
            installed.append(number)
    try:
        yield
    finally:
        for number in installed:
            loop.remove_signal_handler(number)
