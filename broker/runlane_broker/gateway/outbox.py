"""What waits to be sent on one connection: bounded, and packed into as few messages as possible."""

from __future__ import annotations

import asyncio
from typing import Final

from runlane.protocol.codec import pack

#: Above this many bytes a connection counts as congested, as a rule, until a quarter of it is left.
HIGH_WATER: Final = 1024 * 1024


class Outbox:
    """Frames go in without waiting; one writer takes them out."""

    def __init__(self, limit: int) -> None:
        self._frames: list[bytes] = []
        self._limit = limit
        #: Above this many bytes it is congested.
        self.high_water = HIGH_WATER
        self._filled = asyncio.Event()
        self.congested = False
        self.bytes = 0

    def __repr__(self) -> str:
        return f"<Outbox {len(self._frames)} frames, {self.bytes} bytes>"

    def put(self, frame: bytes) -> bool:
        """Add a frame; False if there is no room for it, and never will be for a peer so slow."""
        if self.bytes + len(frame) > self._limit:
            return False
        self._frames.append(frame)
        self.bytes += len(frame)
        self._filled.set()
        return True

    async def filled(self) -> None:
        """Wait for frames."""
        await self._filled.wait()

    def take(self) -> list[bytes]:
        """Return what is there as messages."""
        self._filled.clear()
        frames, self._frames = self._frames, []
        return list(pack(frames))

    def sent(self, size: int) -> None:
        """A message of this size has left."""
        self.bytes = max(self.bytes - size, 0)

    def turned_congested(self) -> bool:
        """Say, once per change, that more waits than should."""
        if not self.congested and self.bytes > self.high_water:
            self.congested = True
            return True
        return False

    def turned_clear(self) -> bool:
        """Say, once per change, that it has drained."""
        if self.congested and self.bytes <= self.high_water // 4:
            self.congested = False
            return True
        return False
