"""A worker that stood still as a whole: not even the thread that beats was running, and nobody could tell.

Code in C that keeps the interpreter's lock does that, and so does a machine that sleeps. The broker takes a worker
that is silent for too long for dead, and gives its runs to others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

log: Final = logging.getLogger("runlane.worker")

#: Seconds between two looks at the clock, while anything executes.
LOOK_SECONDS: Final = 0.5
#: Seconds by which a look has to be late to be worth a line.
STALL_SECONDS: Final = 2.0


class Stalls:
    """Warns when it is over: there is nobody to do it before. `running` has the keys of what executes."""

    def __init__(self, running: Callable[[], Sequence[str]]) -> None:
        self._running = running
        self._timer: asyncio.TimerHandle | None = None
        self._keys: Sequence[str] = ()

    def __repr__(self) -> str:
        return f"<Stalls {'watching' if self._timer else 'idle'}>"

    def watch(self) -> None:
        """Watch for as long as anything executes."""
        if self._timer is None:
            self._look_again()

    def _look_again(self) -> None:
        self._keys = self._running()
        due = time.monotonic() + LOOK_SECONDS
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look, due)

    def _look(self, due: float) -> None:
        self._timer = None
        late = time.monotonic() - due
        if late >= STALL_SECONDS:
            self._warn(late)
        if self._running():
            self._look_again()

    def _warn(self, seconds: float) -> None:
        # What has begun since the last look is among those that run now; what has ended since, among those then.
        keys = ", ".join(sorted({*self._keys, *self._running()}))
        log.warning(
            "this worker stood still for %.1f s, and could not tell its broker that it lives: either the machine "
            'was paused, or code in C kept the interpreter\'s lock, which belongs into pool="process" (%s)',
            seconds,
            keys,
        )
