"""A run that is executed here, as both sides see it: the one that talks to the broker, and the one that calls.

The sides meet in this object. The control side owns it and decides; a pool, from whatever thread, only claims it
and tells what happens. What it tells arrives as a call on the control side's loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol

from ..protocol.messages import PushedRun
from ..tasks import Task
from ..waits import Waits
from .outcomes import Report
from .progress import LatestProgress

#: A run's id and its attempt: what a lease is told apart by.
RunKey = tuple[str, int]


class Stop(Enum):
    """Why an execution is stopped from outside. Each member's comment says what is reported.

    Whatever the reason, a task that completes all the same is reported as completed.
    """

    CANCELLED = auto()  # finished CANCELLED
    TIMED_OUT = auto()  # finished FAILED, named TimedOut
    LOST = auto()  # nothing: the lease is gone
    RELEASED = auto()  # the run is given back


class Pool(Protocol):
    """Where tasks execute. Called from the control side; never waits."""

    @property
    def patience(self) -> float:
        """Seconds that a stopped execution is given to end, before its run is reported without it."""
        ...

    @property
    def asks_first(self) -> bool:
        """Whether a task is told that it is cancelled and has time to end by itself, before it is stopped."""
        ...

    def start(self, execution: Execution) -> None:
        """Execute this, soon."""
        ...

    def ask(self, execution: Execution) -> None:
        """Let the task know that it is to stop."""
        ...

    def stop(self, execution: Execution) -> None:
        """Stop the task, as far as that is possible here."""
        ...


class Listener(Protocol):
    """Who hears, on the control side, what pools tell."""

    def on_taken(self, execution: Execution) -> None:
        """The run is the pool's now, though its task may not be called for a while."""
        ...

    def on_begun(self, execution: Execution) -> None:
        """The task is being called: its time runs."""
        ...

    def on_progress(self, execution: Execution, progress: LatestProgress) -> None:
        """There is progress to be sent."""
        ...

    def on_waiting(self, execution: Execution, waits: bool) -> None:
        """The task waits for another run, or does so no more."""
        ...

    def on_ended(self, execution: Execution, report: Report) -> None:
        """The pool is done with this."""
        ...

    def on_answer(self) -> None:
        """A pool has come to a run that was taken back, and so comes to others, too."""
        ...


class Execution:
    """A run that is executed here."""

    __slots__ = (
        "_listener",
        "_post",
        "_right_to_begin",
        "begun_at",
        "cancelled",
        "holds_slot",
        "key",
        "pool",
        "reason",
        "resources",
        "run",
        "since",
        "stop",
        "taken",
        "task",
        "timeout",
        "timer",
        "waits",
    )

    def __init__(
        self,
        run: PushedRun,
        task: Task[..., Any],
        pool: Pool,
        resources: Any,
        listener: Listener,
        post: Callable[..., None],
    ) -> None:
        self.run = run
        self.key: RunKey = (run.id, run.attempt)
        self.task = task
        self.pool = pool
        self.timeout = run.timeout if run.timeout is not None else task.timeout  # seconds
        self.resources = resources
        self._listener = listener
        self._post = post  # has something called on the control side's loop
        self._right_to_begin = threading.Lock()
        self.waits: Waits | None = None  # written by the pool
        # What follows is written on the control side alone.
        self.since = time.monotonic()
        self.holds_slot = False
        self.taken = False  # the broker was told that it has started
        self.begun_at: float | None = None  # monotonic
        self.cancelled = False  # the task is to stop, and can know
        self.stop: Stop | None = None
        self.reason = ""  # why it is given back, where that is what `stop` says
        self.timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Execution {self.run.task_key} {self.run.id}, attempt {self.run.attempt}>"

    # --- From any thread ---------------------------------------------------------------------------------

    def claim(self) -> bool:
        """Take the right to begin, which is there once: for the pool, or for whoever takes the run back first."""
        return self._right_to_begin.acquire(blocking=False)

    def tell_taken(self) -> None:
        """Say that the run is in good hands, though it takes a while until the task is called."""
        self._post(self._listener.on_taken, self)

    def tell_begun(self) -> None:
        """Say that the task is being called."""
        self._post(self._listener.on_begun, self)

    def tell_progress(self, progress: LatestProgress, /) -> None:
        """Say that there is progress to be sent."""
        self._post(self._listener.on_progress, self, progress)

    def tell_waiting(self, waits: bool, /) -> None:
        """Say that the task waits for another run, or does so no more."""
        self._post(self._listener.on_waiting, self, waits)

    def tell_ended(self, report: Report) -> None:
        """Say how it went, when the task's code is done."""
        self._post(self._listener.on_ended, self, report)

    def tell_answer(self) -> None:
        """Say that the pool has come to this, which it may not begin any more."""
        self._post(self._listener.on_answer)
