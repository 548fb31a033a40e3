"""One timer for all runs that are not due yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ..clock import Clock
from .services import ServiceState

#: The wall clock may be set while we sleep: look at it this often, in seconds.
_LONGEST_SLEEP = 1.0
#: Keys that come due within this time are looked up together, in seconds.
_SHORTEST_SLEEP = 0.01


class DueClock:
    """Knows when the next run of each key with demand comes due, and says so when it does.

    It holds a time per key and no runs: those wait in the database, and a refill finds them.
    """

    def __init__(self, clock: Clock, came_due: Callable[[Iterable[str]], None]) -> None:
        self._clock = clock
        self._came_due = came_due
        self._next: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = 0
        self._stopped = False
        #: As that of a service: this is one, but for the clock that wakes it.
        self.state = ServiceState("due_runs", _LONGEST_SLEEP, running=True)

    def __repr__(self) -> str:
        return f"<DueClock {len(self._next)} keys>"

    def note(self, task_key: str, due: int | None) -> None:
        """A run of this key comes due at `due` (microseconds UTC); None: none is known of."""
        if due is None or self._next.get(task_key, due + 1) <= due:
            return
        self._next[task_key] = due
        if self._timer is None or due < self._wakes_at:
            self._sleep()

    def expects(self, task_key: str, due: int) -> bool:
        """Say whether the key will be looked up for a run that comes due at `due`, or has come due just now."""
        return self._next.get(task_key, due + 1) <= due

    def time_changed(self) -> None:
        """The wall clock was set: look at it now and not at the next occasion."""
        if not self._stopped:
            self._cancel()
            self._wake()

    def switch_off(self) -> None:
        """Never call; times are noted all the same, and whoever looks for a run knows that nobody sees to it."""
        self.state.enabled = False
        self.stop()

    def stop(self) -> None:
        """Never call again."""
        self._stopped = True
        self.state.running = False
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sleep(self) -> None:
        self._cancel()
        if self._stopped or not self._next:
            return
        now = self._clock.now()
        earliest = min(self._next.values())
        seconds = min(max((earliest - now) / 1_000_000, _SHORTEST_SLEEP), _LONGEST_SLEEP)
        self._wakes_at = now + round(seconds * 1_000_000)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = self._clock.now()
        due = [key for key, when in self._next.items() if when <= now]
        for key in due:
            del self._next[key]
        if due:
            began = self._clock.monotonic()
            self._came_due(due)
            self.state.ran(now, self._clock.monotonic() - began, {"keys": len(due)})
        if self._timer is None:
            self._sleep()
