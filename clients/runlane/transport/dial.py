"""Opening a connection: upgrade, subprotocol, authentication."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from ..errors import ConnectionFailed
from ..protocol import codec
from ..protocol.closing import CloseCode, may_reconnect
from ..protocol.conversation import Conversation
from ..protocol.errors import FrameRefused, ProtocolError
from ..protocol.limits import HANDSHAKE_SECONDS, MAX_MESSAGE_BYTES
from ..protocol.messages import SUBPROTOCOL, Auth, AuthSuccess, Error, Frame
from . import memory
from .link import CLOSE_SECONDS, Link

F = TypeVar("F", bound=Frame)

#: Seconds between the pings of the client, and until one that is not answered ends the connection.
PING_SECONDS: Final = 20.0

#: What the broker says of a token that is missing or wrong; code 1008 is for other things, too.
_NOT_LET_IN: Final = "authentication failed"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class DialFailed(Exception):
    """This attempt came to nothing; the next one may not."""


async def dial(
    url: str,
    token: str | None,
    conversation: Conversation,
    decoder: codec.FrameDecoder[F],
    open_seconds: float,
) -> Link[F]:
    """Connect and authenticate once; `open_seconds` is how long the upgrade may take.

    Raises `DialFailed`, or `ConnectionFailed` where another try is no use.
    """
    socket = await _open(url, open_seconds)
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            welcome, rest = await _authenticate(socket, token, conversation, decoder)
    except ConnectionClosed as exc:
        raise _meaning_of(exc, token) from exc
    except TimeoutError as exc:
        await socket.close()
        raise DialFailed(f"no auth_success within {HANDSHAKE_SECONDS:g} s") from exc
    except ProtocolError as exc:
        await socket.close(CloseCode.PROTOCOL_VIOLATION)
        raise DialFailed(str(exc)) from exc
    except BaseException:
        await socket.close()
        raise
    return Link(socket, conversation, decoder, welcome, rest)


async def _open(url: str, seconds: float) -> ClientConnection:
    if (in_memory := await memory.connect(url)) is not None:
        return in_memory
    proxy = None if urlsplit(url).hostname in _LOOPBACK else True
    try:
        socket = await connect(
            url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            open_timeout=seconds,
            close_timeout=CLOSE_SECONDS,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS,
            proxy=proxy,
        )
    except (OSError, EOFError, WebSocketException) as exc:  # TimeoutError is an OSError
        raise DialFailed(str(exc) or type(exc).__name__) from exc
    if socket.subprotocol != SUBPROTOCOL:
        await socket.close()
        raise DialFailed(f"the server at {url} does not speak {SUBPROTOCOL}")
    return socket


async def _authenticate(
    socket: ClientConnection, token: str | None, conversation: Conversation, decoder: codec.FrameDecoder[F]
) -> tuple[AuthSuccess, tuple[F | FrameRefused, ...]]:
    """Send `auth` and return the answer, with the frames that came in the same message."""
    hello = Auth(token=token)
    conversation.up(hello)
    await socket.send(codec.encode(hello), text=True)
    first, *rest = decoder.decode(await socket.recv(decode=False))
    if isinstance(first, Error):
        raise DialFailed(f"{first.code}: {first.message}")
    if not isinstance(first, AuthSuccess):
        raise DialFailed("the broker did not answer auth with auth_success")
    conversation.down(first)
    return first, tuple(rest)


def _meaning_of(exc: ConnectionClosed, token: str | None) -> ConnectionFailed | DialFailed:
    """Say what a connection closed during the handshake means for the next attempt."""
    if exc.rcvd is None:
        return DialFailed("the connection broke during the handshake")
    if not may_reconnect(exc.rcvd.code):
        return ConnectionFailed(exc.rcvd.code, _explained(exc.rcvd.reason, token))
    return DialFailed(f"closed with {exc.rcvd.code} {exc.rcvd.reason}")


def _explained(reason: str, token: str | None) -> str:
    """Tell a wrong token from a missing one: the broker doesn't know that it is not the same."""
    if reason != _NOT_LET_IN:
        return reason
    if token is None:
        return f"{reason}: it wants a token, and none is set (RUNLANE_TOKEN_FILE, --token-file)"
    return f"{reason}: it wants another token than the one that is set"
