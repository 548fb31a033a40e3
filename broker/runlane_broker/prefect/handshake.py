"""How a socket of Prefect's clients begins: the subprotocol, and the auth string in the first message.

Without the subprotocol nothing is asked, which older clients rely on; so that is for brokers without a token only.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from runlane.protocol.limits import HANDSHAKE_SECONDS

from ..access import AUTHENTICATED, Access

SUBPROTOCOL: Final = "prefect"
#: What clients take for "not you": they give up.
POLICY_VIOLATION: Final = 1008
#: What clients come back after.
TRY_AGAIN: Final = 1013

_encode = msgspec.json.Encoder().encode


async def open_socket(socket: WebSocket, access: Access) -> bool:
    """Accept a connection and check who it is; False: it was refused, and is closed.

    Raises `WebSocketDisconnect` where the peer goes away meanwhile.
    """
    if SUBPROTOCOL not in socket.scope["subprotocols"]:
        if not access.is_open and not socket.scope["state"].get(AUTHENTICATED):
            await socket.close(1002)  # before it is accepted: 403
            return False
        await socket.accept()
        return True
    await socket.accept(subprotocol=SUBPROTOCOL)
    reason = await _refusal(socket, access)
    if reason is None:
        await send_json(socket, {"type": "auth_success"})
        return True
    await socket.close(POLICY_VIOLATION, reason)
    return False


async def _refusal(socket: WebSocket, access: Access) -> str | None:
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            message = await receive_json(socket)
    except TimeoutError:
        return "The handshake took too long"
    if message is None or message.get("type") != "auth":
        return "Expected 'auth' message"
    token = message.get("token")
    if access.is_open or socket.scope["state"].get(AUTHENTICATED):
        return None
    if not isinstance(token, str) or not token:
        return "Auth required but no token provided"
    return None if access.allows(token) else "Invalid token"


async def receive_json(socket: WebSocket) -> dict[str, Any] | None:
    """Return the next message; None for one that is not a JSON object. Raises `WebSocketDisconnect`."""
    text = await receive_text(socket)
    try:
        message: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return message if isinstance(message, dict) else None  # pyright: ignore[reportUnknownVariableType]


async def receive_text(socket: WebSocket) -> bytes:
    """Return the next message as bytes. Raises `WebSocketDisconnect`."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    return message["bytes"] if text is None else text.encode()


async def send_json(socket: WebSocket, message: Any) -> None:
    """Send a message."""
    await socket.send({"type": "websocket.send", "text": _encode(message).decode()})
