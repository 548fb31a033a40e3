"""How many runs execute at once, and how many the broker may push."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Slots:
    """A worker's places.

    A plain function cannot be stopped: when its run has ended before it (a timeout, a cancel), its thread goes
    on and keeps the place. Meanwhile the worker has one slot less, and `announce` tells the broker so.
    """

    def __init__(self, limit: int, announce: Callable[[int], None]) -> None:
        self._semaphore = asyncio.Semaphore(limit)
        self._limit = limit
        self._announce = announce
        self.stuck = 0  # places of threads that go on without their run

    def __repr__(self) -> str:
        return f"<Slots {self._limit}, {self.stuck} stuck>"

    async def take(self) -> None:
        """Wait for a place."""
        await self._semaphore.acquire()

    def give_back(self) -> None:
        """Free a place."""
        self._semaphore.release()

    def stick(self) -> None:
        """Note that a place stays taken though its run has ended."""
        self.stuck += 1
        self._announce(self._limit - self.stuck)

    def unstick(self) -> None:
        """Free such a place: its thread is done."""
        self.stuck -= 1
        self._semaphore.release()
        self._announce(self._limit - self.stuck)
