"""Turns on the event loop: what strangers and idle talkers ask for is done one piece at a time.

The loop does in one pass whatever is ready. With two hundred connections that all have something to say, a pass
takes a tenth of a second, and everybody waits for its end. So a connection that has not been of use yet, or that
talks in vain, waits for a turn, of which there are so few in a pass that it stays short; all others go on as if it
were not there. And after turns there is a rest while others are served, or those who wait for them would have the
loop always at work when one of those comes.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from .extensions import offered

#: The ASGI extension: its `standing` is the connection's `Standing`.
EXTENSION: Final = "runlane.turns"
#: A pass of the loop should not take longer while somebody waits for a turn.
PASS_SECONDS: Final = 0.0005
#: Turns in one pass at most.
_MOST: Final = 64
#: After turns there are none for so many times as long as these took: a loop that is always at work has everybody
#: else wait for the rest of a pass, several times a run. A stranger may be a worker that comes back; who talks in
#: vain can wait.
STRANGERS_REST: Final = 6.0
VAIN_REST: Final = 20.0
#: So many strangers at once are no pest but a fleet that comes back: rests would have them wait for too long.
CROWD: Final = 256
#: Rests are for those who wait for nothing. If none of them has been of use for so long, there are none. Seconds.
LATELY: Final = 1.0
_NO_CROWD: Final = sys.maxsize
#: (Windows counts a thread's time in sixtieths of a second.)
_CLOCK: Final = time.perf_counter if sys.platform == "win32" else time.thread_time
#: Passes of the loop in which a turn is worked off: it mostly wakes a task, which does the work in the next one.
_PASSES: Final = 2


class Turns:
    """Gives turns in the order of asking, to strangers and to those who talk in vain apart from each other.

    Lives on one event loop. `clock` gives seconds; those of the processor, or turns would seem long when it is
    somebody else who keeps it busy.
    """

    def __init__(self, clock: Callable[[], float] = _CLOCK) -> None:
        self._loop = asyncio.get_running_loop()
        self._served = -math.inf
        self._strangers = _Line(self._loop, clock, self._protects, STRANGERS_REST, CROWD)
        self._vain = _Line(self._loop, clock, self._protects, VAIN_REST)

    def __repr__(self) -> str:
        return f"<Turns, {self._strangers.count} strangers waiting, {self._vain.count} others>"

    def served(self) -> None:
        """Note that somebody is served who waits for no turn: for a while there are rests for his sake."""
        self._served = self._loop.time()

    def _protects(self) -> bool:
        return self._loop.time() - self._served < LATELY

    def call(self, callback: Callable[[], None], *, vain: bool = False) -> None:
        """Call this when it is its turn: soon, and never from within."""
        (self._vain if vain else self._strangers).add(callback)

    async def next(self, *, vain: bool = False) -> None:
        """Wait for a turn, which lasts until the caller waits for something else."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self.call(partial(_begin, turn), vain=vain)
        await turn


class _Line:
    """Those who wait for the same turns.

    While it `protects` somebody it rests after each lot, `rest` times as long, unless `crowd` wait.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        protects: Callable[[], bool],
        rest: float,
        crowd: int = _NO_CROWD,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._protects = protects
        self._rest = rest
        self._crowd = crowd
        self._rests = True
        self._waiting: deque[Callable[[], None]] = deque()
        self._at_work = False
        self._since = 0.0
        self._together = 1

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, callback: Callable[[], None]) -> None:
        """Call this when it is its turn."""
        self._waiting.append(callback)
        if not self._at_work:
            self._at_work = True
            self._loop.call_soon(self._give)

    def _give(self) -> None:
        """Give turns, as many as lately made for a short pass; what a turn costs is seen only afterwards."""
        if not self._waiting:
            self._at_work = False
            return
        self._since = self._clock()
        turns = [self._waiting.popleft() for _ in range(min(self._together, len(self._waiting)))]
        self._rests = len(self._waiting) < self._crowd and self._protects()
        self._loop.call_soon(self._given, _PASSES if self._rests else 1)
        for turn in turns:
            try:
                turn()
            except Exception as exc:  # one connection's mistake must not cost the others their turns
                self._loop.call_exception_handler({"message": "a turn failed", "exception": exc})

    def _given(self, passes: int) -> None:
        """See how long that took, after so many passes, and go on."""
        if passes > 1:
            self._loop.call_soon(self._given, passes - 1)
            return
        took = self._clock() - self._since
        self._together = max(self._together // 2, 1) if took > PASS_SECONDS else min(self._together + 1, _MOST)
        if self._rests:
            self._loop.call_later(self._rest * took, self._give)
        else:
            self._give()


class Standing:
    """What a connection may expect. Who serves it says whether it is trusted; if it is, it waits for nothing.

    `widen` has the system keep more for it than it does for a stranger, who may never take it.
    """

    def __init__(self, turns: Turns | None, widen: Callable[[], None] | None = None) -> None:
        self._turns = turns
        self._widen = widen
        self._trusted = True
        #: It talks in vain, or takes too little of what it is sent: its turns are rare while it isn't trusted.
        self.vain = False

    def __repr__(self) -> str:
        return f"<Standing, {'trusted' if self.trusted else 'in vain' if self.vain else 'not trusted'}>"

    @property
    def trusted(self) -> bool:
        """Whether it waits for nothing."""
        return self._trusted

    @trusted.setter
    def trusted(self, trusted: bool) -> None:
        self._trusted = trusted
        if trusted:
            self.widen()

    def judge(self, *, vain: bool, of_use: bool = False) -> None:
        """Who is of use is trusted, unless it talks in vain."""
        if of_use and self._trusted and self._turns is not None:
            self._turns.served()
        self.vain = vain
        self.trusted = (of_use or self._trusted) and not vain

    def widen(self) -> None:
        """It takes what it is sent: more may be on its way to it from now on."""
        if self._widen is not None:
            self._widen()
            self._widen = None

    @property
    def waits(self) -> bool:
        """Whether it has to wait for turns."""
        return not self.trusted and self._turns is not None

    async def turn(self) -> None:
        """Wait for a turn, if it has to."""
        if not self.trusted and self._turns is not None:
            await self._turns.next(vain=self.vain)

    def call(self, callback: Callable[[], None]) -> None:
        """Call this when it is its turn. Only for one that has to wait."""
        assert self._turns is not None
        self._turns.call(callback, vain=self.vain)


def standing_of(scope: Mapping[str, Any]) -> Standing:
    """Return that of a connection; of one that another server serves, one that never waits."""
    return offered(scope, EXTENSION).get("standing") or Standing(None)


def _begin(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
