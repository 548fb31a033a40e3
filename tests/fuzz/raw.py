"""A WebSocket of bytes: it sends what no library would, and reads no more of the answer than where it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_SCHEDULED: Final = "/api/task_runs/subscriptions/scheduled"
_RUNLANE: Final = "Sec-WebSocket-Protocol: runlane.v1\r\n"
_PREFECT: Final = "Sec-WebSocket-Protocol: prefect\r\n"
#: The path and the subprotocol, if any, of each socket.
SOCKETS: Final = {
    "worker": (_SCHEDULED, _RUNLANE),
    "producer": ("/api/task_runs/submissions", _RUNLANE),
    "taker": (_SCHEDULED, _PREFECT),
    "older taker": (_SCHEDULED, ""),
    "events in": ("/api/events/in", _PREFECT),
    "events out": ("/api/events/out", _PREFECT),
}
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


def upgrade(socket: str) -> bytes:
    """Return the request that opens one of the broker's sockets."""
    path, subprotocol = SOCKETS[socket]
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"{subprotocol}\r\n"
    ).encode()


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a message as it stands on the wire (masked with zeros: nobody looks)."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 2**16:
        head = bytes([0x80 | opcode, 0xFE]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, 0xFF]) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


@dataclass(slots=True)
class Raw:
    """An upgraded connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *messages: bytes, opcode: int = TEXT) -> None:
        """Send messages, as far as the broker takes them."""
        self.writer.write(b"".join(frame(message, opcode) for message in messages))
        await self.writer.drain()

    async def ended(self) -> None:
        """Wait until the broker has closed."""
        with suppress(ConnectionError):
            while await self.reader.read(2**16):
                pass

    def close(self) -> None:
        """Break the connection."""
        self.writer.transport.abort()


async def connect(port: int, socket: str) -> Raw:
    """Open one of the broker's sockets. Raises `ConnectionError`, `asyncio.IncompleteReadError`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(upgrade(socket))
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in head[:20]:
        writer.transport.abort()
        raise ConnectionError(head[:100].decode("latin-1"))
    return Raw(reader, writer)


async def say(port: int, socket: str, messages: Iterable[bytes], seconds: float = 20.0) -> bool:
    """Send all on a new connection, then a close frame; True if the broker ended it in time."""
    try:
        async with asyncio.timeout(seconds):
            raw = await connect(port, socket)
            try:
                with suppress(ConnectionError):
                    await raw.send(*messages)
                    await raw.send(b"\x03\xe8", opcode=CLOSE)
                await raw.ended()
            finally:
                raw.close()
    except TimeoutError:
        return False
    return True
