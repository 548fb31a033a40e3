"""Turns on the event loop: what strangers and idle talkers ask for is done one piece at a time.

The loop does in one pass whatever is ready. With two hundred connections that all have something to say, a pass
takes a tenth of a second, and everybody waits for its end. So a connection that has not been of use yet, or that
talks in vain, waits for a turn, of which there are so few in a pass that it stays short; all others go on as if it
were not there.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

#: The ASGI extension: its `standing` is the connection's `Standing`.
EXTENSION: Final = "runlane.turns"
#: A pass of the loop should not take longer while somebody waits for a turn.
PASS_SECONDS: Final = 0.0005
#: Turns in one pass at most.
_MOST: Final = 64


class Turns:
    """Gives turns in the order of asking. Lives on one event loop. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._since = 0.0
        self._together = 1

    def __repr__(self) -> str:
        return f"<Turns, {len(self._waiting)} waiting>"

    def call(self, callback: Callable[[], None]) -> None:
        """Call this when it is its turn: soon, and never from within."""
        self._waiting.append(callback)
        if len(self._waiting) == 1:
            self._since = self._clock()
            self._together = 1
            self._loop.call_soon(self._give)

    async def next(self) -> None:
        """Wait for a turn, which lasts until the caller waits for something else."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self.call(partial(_begin, turn))
        await turn

    def _give(self) -> None:
        """Give turns, as many as lately made for a short pass; what a turn costs is seen only in the next one."""
        now = self._clock()
        took, self._since = now - self._since, now
        self._together = max(self._together // 2, 1) if took > PASS_SECONDS else min(self._together + 1, _MOST)
        turns = [self._waiting.popleft() for _ in range(min(self._together, len(self._waiting)))]
        if self._waiting:
            self._loop.call_soon(self._give)
        for turn in turns:
            try:
                turn()
            except Exception as exc:  # one connection's mistake must not cost the others their turns
                self._loop.call_exception_handler({"message": "a turn failed", "exception": exc})


class Standing:
    """What a connection may expect. Who serves it says whether it is trusted; if it is, it waits for nothing."""

    def __init__(self, turns: Turns | None) -> None:
        self._turns = turns
        self.trusted = True

    def __repr__(self) -> str:
        return f"<Standing, {'trusted' if self.trusted else 'not trusted'}>"

    @property
    def waits(self) -> bool:
        """Whether it has to wait for turns."""
        return not self.trusted and self._turns is not None

    async def turn(self) -> None:
        """Wait for a turn, if it has to."""
        if not self.trusted and self._turns is not None:
            await self._turns.next()


def standing_of(scope: Mapping[str, Any]) -> Standing:
    """Return that of a connection; of one that another server serves, one that never waits."""
    extensions: Mapping[str, Mapping[str, Standing]] = scope.get("extensions") or {}
    extension = extensions.get(EXTENSION)
    return Standing(None) if extension is None else extension["standing"]


def _begin(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
