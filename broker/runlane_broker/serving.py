"""Serving an application: sockets, uvicorn, and signals, which the program owns.

uvicorn would answer SIGTERM by closing every socket at once; ours says `draining` first and waits for reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from runlane.protocol.limits import MAX_MESSAGE_BYTES

from .deadlines import PromptHTTP, PromptWebSocket
from .errors import StartupError
from .receipts import ReceiptProtocol

#: Connections that may wait to be accepted.
_BACKLOG: Final = 2048
#: Bytes, about, that the kernel keeps for a peer that does not take them. It would be megabytes, and the longer
#: until one notices.
_SEND_BUFFER: Final = 256 * 1024
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals to the program."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Return a listening address. Port 0 takes a free one. Raises `StartupError` in one line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named: without it answers wait for 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # its connections inherit it
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(_BACKLOG)  # here, because uvloop takes a port that is in use for a success
    except (OSError, TypeError, ValueError) as exc:  # the last two for a name that is no name
        listener.close()
        raise StartupError(f"cannot listen on {host}:{port}: {getattr(exc, 'strerror', None) or exc}") from exc
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return where clients find a listener."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class WebSocketConnection(PromptWebSocket, ReceiptProtocol):
    """uvicorn's, with deadlines, and with pongs that wait where an application wants that."""


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket) -> AsyncGenerator[None]:
    """Serve an application on a listener while the block runs; then close every connection with 1012."""
    config = uvicorn.Config(
        app,
        http=PromptHTTP,
        ws=WebSocketConnection,
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
