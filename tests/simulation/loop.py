"""An event loop whose time is virtual, and processes on it that can be killed and paused at any moment.

Nothing here waits: when nothing is left to do at a moment, the clock moves to the next timer. What a process
has scheduled belongs to it by the context that it was scheduled in. A dead one's callbacks never run; those of a
paused one run when it goes on, as if the kernel had kept them.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from asyncio import base_events, events
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final


class Process:
    """Something that can be killed (`kill -9`) and paused (SIGSTOP), with all that it has scheduled."""

    def __init__(self, name: str, loop: VirtualLoop) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        #: Called when it is killed: its sockets are closed by the kernel.
        self.on_killed: list[Callable[[], None]] = []
        self._loop = loop
        self._kept: list[asyncio.Handle] = []
        self.context: Context = copy_context()
        self.context.run(_process.set, self)

    def __repr__(self) -> str:
        return f"<Process {self.name}{'' if self.alive else ', dead'}{', paused' if self.paused else ''}>"

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as part of this process."""
        return self._loop.create_task(coroutine, context=self.context)

    def kill(self) -> None:
        """End it at once; nothing of it runs any more."""
        self.alive = False
        for call in self.on_killed:
            call()
        self.on_killed.clear()

    def pause(self) -> None:
        """Stop it where it is."""
        self.paused = True

    def go_on(self) -> None:
        """Let it go on, with what has come meanwhile."""
        self.paused = False
        kept, self._kept = self._kept, []
        self._loop.run_soon(kept)

    def keep(self, handle: asyncio.Handle) -> None:
        """Put a callback off until it goes on."""
        self._kept.append(handle)

    def bury(self) -> None:
        """The world has ended: let what is left of it run, so that it can be cancelled as usual."""
        self.alive = True
        self.go_on()


_process: Final[ContextVar[Process | None]] = ContextVar("process", default=None)


def _may_run(handle: asyncio.Handle) -> bool:
    process = handle._context.get(_process)  # type: ignore[attr-defined]
    if process is None:
        return True
    if process.alive and not process.paused:
        return True
    process.keep(handle)
    return False


class _Handle(events.Handle):
    __slots__ = ()

    def _run(self) -> None:
        if _may_run(self):
            super()._run()


class _TimerHandle(events.TimerHandle):
    __slots__ = ()

    def _run(self) -> None:
        if _may_run(self):
            super()._run()


class _Selector:
    """Takes the place of waiting for sockets: time passes."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen any more")
        now, turn = self._loop.now + timeout, self._loop.turn
        self._loop.now = max(now, math.ceil(now / turn) * turn) if timeout and turn else now
        return []


class VirtualLoop(base_events.BaseEventLoop):
    """No sockets, no threads, no waiting. `now` is the time in seconds, from 0.

    A `turn` lets that many seconds pass at once, as for a machine that has much else to do: what came in is
    found together.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.turn = 0.0
        self._selector = _Selector(self)
        self._clock_resolution = 1e-9
        self.problems: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.problems.append(context))
        self.tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(_task)

    def time(self) -> float:
        return self.now

    def run_soon(self, handles: list[asyncio.Handle]) -> None:
        """Run these callbacks, in their order, after those that are due already."""
        self._ready.extend(handles)

    def _process_events(self, event_list: object) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _call_soon(self, callback: Any, args: Any, context: Any) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        handle = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, handle)
        handle._scheduled = True
        return handle


def _task(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a task, and remember it: that of a killed process has no end of its own."""
    task = asyncio.Task(coroutine, loop=loop, **options)
    loop.tasks.append(task)
    return task
