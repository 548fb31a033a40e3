"""Fencing: what must not be executed twice at once stops before its lease can be elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from .execution import Execution, RunKey

#: Seconds before the possible end of a lease at which its task is stopped, at most; and as a share of the grace.
MARGIN_SECONDS: Final = 1.0
MARGIN_SHARE: Final = 0.25


class Lease(Protocol):
    """Until when the broker surely keeps this worker's leases."""

    @property
    def safe_until(self) -> float:
        """The monotonic time; it moves on with every answer of the broker."""
        ...

    def ask(self) -> None:
        """Have the broker answer soon."""
        ...


class Fence:
    """The executions that are to be stopped when the broker has not answered for too long.

    A broker gives a lease away no sooner than `resume_seconds` after the connection broke *as it sees it*. It
    was whole when the broker answered a frame, and so after that frame was sent: from then on the time runs.
    A run that comes when the last answer is too old waits for the next, which takes one round trip.
    """

    def __init__(self, lease: Lease, stop: Callable[[Execution], None]) -> None:
        self._lease = lease
        self._stop = stop
        self._executions: dict[RunKey, Execution] = {}
        self._waiting: dict[RunKey, Execution] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Fence {len(self._executions)} executions, {len(self._waiting)} waiting>"

    def admit(self, execution: Execution) -> bool:
        """Watch over this execution from now on. Say whether it may begin; else `answered` returns it."""
        self._executions[execution.key] = execution
        self._watch()
        if time.monotonic() < self._lease.safe_until:
            return True
        self._waiting[execution.key] = execution
        self._lease.ask()
        return False

    def remove(self, key: RunKey) -> None:
        """Watch over this no more."""
        self._executions.pop(key, None)
        self._waiting.pop(key, None)

    def answered(self) -> Iterable[Execution]:
        """Note that the broker has answered; return what may begin now."""
        if not self._waiting or time.monotonic() >= self._lease.safe_until:
            return ()
        waiting, self._waiting = self._waiting, {}
        self._watch()
        return waiting.values()

    def _watch(self) -> None:
        if self._timer is None:
            seconds = max(0.0, self._lease.safe_until - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if time.monotonic() >= self._lease.safe_until:
            for key, execution in list(self._executions.items()):
                if key not in self._waiting:
                    self.remove(key)
                    self._stop(execution)
        if len(self._executions) > len(self._waiting):
            self._watch()


def margin(resume_seconds: float) -> float:
    """Return how many seconds before the possible end of its lease a task is stopped."""
    return min(MARGIN_SECONDS, resume_seconds * MARGIN_SHARE)
