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
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from runlane.protocol.limits import MAX_MESSAGE_BYTES

from .deadlines import PromptHTTP, PromptWebSocket
from .direct import DirectProtocol
from .receipts import ReceiptProtocol
from .turns import Turns

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals to the program."""
        yield


class WebSocketConnection(PromptWebSocket, ReceiptProtocol, DirectProtocol):
    """uvicorn's, with deadlines, with pongs that wait where an application wants that, and with a short way."""


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
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
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
        server.should_exit = True
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
