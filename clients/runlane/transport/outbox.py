"""What waits to be sent: frames queued together leave together, in as few messages as possible."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..protocol import codec


class Outbox:
    """Encoded frames in order, and the one coroutine that sends them. `put` never waits."""

    def __init__(self, limit: int) -> None:
        self.limit = limit  # bytes of a message; the broker's own, once it has said so
        self._frames: list[bytes] = []
        self._filled = asyncio.Event()
        self._closing = False

    def __repr__(self) -> str:
        return f"<Outbox {len(self._frames)} frames>"

    def put(self, frame: bytes) -> None:
        """Queue an encoded frame."""
        self._frames.append(frame)
        self._filled.set()

    def close(self) -> None:
        """Let `drain` return once everything queued is sent."""
        self._closing = True
        self._filled.set()

    async def drain(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send what is queued, and what will be, until closed. Raises what `send` raises."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            frames, self._frames = self._frames, []
            for message in codec.pack(frames, self.limit):
                await send(message)
            if self._closing and not self._frames:
                return
