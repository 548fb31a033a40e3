"""A subscriber on Prefect's socket that costs next to nothing: frames are counted, not parsed.

What a WebSocket library needs for a message would be a third of what is measured.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from typing import Any, Final

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
#: The opcode byte of a message in one frame.
_FINAL: Final = 0x80


class Subscriber(asyncio.Protocol):
    """Acknowledges each message as soon as it is there, once `gate` is open; notes when it came."""

    def __init__(self, port: int, path: str, key: str, client_id: str, gate: asyncio.Event | None = None) -> None:
        self.times: list[float] = []
        self._address = ("127.0.0.1", port)
        self._path = path
        self._subscribe = {"type": "subscribe", "keys": [key], "client_id": client_id}
        self._gate = gate
        self._buffer = bytearray()
        self._upgraded = asyncio.Event()
        self._authenticated = asyncio.Event()
        self._changed = asyncio.Event()
        self._transport: Any = None

    async def __aenter__(self) -> Subscriber:
        self._transport, _ = await asyncio.get_running_loop().create_connection(lambda: self, *self._address)
        async with asyncio.timeout(60):
            self._transport.write(_upgrade(self._path, self._address[1]))
            await self._upgraded.wait()
            self._transport.write(_text({"type": "auth", "token": None}))
            await self._authenticated.wait()
            self._transport.write(_text(self._subscribe))
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self._transport.abort()

    async def has(self, count: int) -> None:
        """Wait until it has got so many runs."""
        async with asyncio.timeout(120):
            while len(self.times) < count:
                self._changed.clear()
                await self._changed.wait()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        self._buffer += data
        if not self._upgraded.is_set():
            head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._upgraded.set()
            self._buffer = bytearray(rest)
        while self._frame():
            pass

    def _frame(self) -> bool:
        """Take the first frame, if all of it is there."""
        buffer = self._buffer
        start, size = 2, buffer[1] if len(buffer) > 1 else 0
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < max(start + size, 2):
            return False
        opcode, body = buffer[0] & 0xF, bytes(buffer[start : start + size])
        del buffer[: start + size]
        if opcode == _PING:
            self._transport.write(_frame(_PONG, body))
        elif opcode == _TEXT:
            self._came()
        else:
            assert opcode != _CLOSE, body
        return True

    def _came(self) -> None:
        if not self._authenticated.is_set():
            self._authenticated.set()
            return
        self.times.append(time.perf_counter())
        self._changed.set()
        if self._gate is None or self._gate.is_set():
            self._transport.write(_ACK)
        elif len(self.times) == 1:
            self._waiting = asyncio.get_running_loop().create_task(self._acknowledge(self._gate))

    async def _acknowledge(self, gate: asyncio.Event) -> None:
        await gate.wait()
        self._transport.write(_ACK)


def _frame(opcode: int, body: bytes) -> bytes:
    """Return a client's frame; its mask is all zeros, which changes nothing."""
    size = len(body)
    head = bytes((_FINAL | opcode, 0x80 | min(size, 126))) + (size.to_bytes(2, "big") if size > 125 else b"")
    return head + b"\0\0\0\0" + body


def _text(message: dict[str, Any]) -> bytes:
    return _frame(_TEXT, json.dumps(message).encode())


_ACK: Final = _text({"type": "ack"})


def _upgrade(path: str, port: int) -> bytes:
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Protocol: prefect",
    )
    return "\r\n".join((*lines, "", "")).encode()
