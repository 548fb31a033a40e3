"""The whole worker: what it executes, and how it ends."""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any, Final, cast

from ..errors import ArgumentError, RunlaneError
from ..protocol.limits import MAX_KEYS, MAX_LIMIT
from ..settings import Settings, load_settings
from ..tasks import Task
from .control import Control
from .discovery import Lifespan
from .executor import Work
from .pools import Pools
from .session import Subscription

#: Seconds that running tasks get to finish, by default, when the worker is to stop.
DRAIN_SECONDS: Final = 25.0


class Worker:
    """Executes runs of these tasks, at most `limit` at once, until stopped. To be run once.

    Coroutine functions execute in the event loop that `run` is called in, plain functions in threads, those of
    `pool="process"` in processes. The connection has a thread and a loop of its own: see `control`.

    `client_id` names the worker to people; by default host and process. `drain_seconds`: what running tasks get
    to finish when it is to stop. `fence`: treat all tasks as `@task(fence=True)`. `lifespan`: an async context
    manager around all work, such as of `contextlib.asynccontextmanager`; what it yields is
    `current_run().resources`.

    Raises `ArgumentError` for no task, too many, two of one key, or a limit or a time out of range;
    `SettingsError`.
    """

    def __init__(
        self,
        tasks: Iterable[Task[..., Any]],
        *,
        limit: int = 10,
        settings: Settings | None = None,
        client_id: str | None = None,
        drain_seconds: float = DRAIN_SECONDS,
        fence: bool = False,
        lifespan: Lifespan | None = None,
    ) -> None:
        self.tasks: Final = _by_key(tasks)
        if not (isinstance(cast("object", limit), int) and 1 <= limit <= MAX_LIMIT):
            raise ArgumentError(f"limit must be between 1 and {MAX_LIMIT}, not {limit!r}")
        if not (isinstance(cast("object", drain_seconds), int | float) and 0 <= drain_seconds < math.inf):
            raise ArgumentError(f"a drain timeout is 0 seconds or more, not {drain_seconds!r}")
        self.limit: Final = limit
        self.settings: Final = settings or load_settings()
        self.client_id: Final = client_id or f"{socket.gethostname()}:{os.getpid()}"
        #: Called, on the control side's thread, when the worker has said goodbye, whatever the tasks' loop does.
        self.on_end: Callable[[], None] = _nothing
        self._fence = fence
        self._lifespan = lifespan
        self._give_up_start: Callable[[], object] | None = None  # while it starts
        self._has_run = False
        fenced = fence or any(task.fence for task in self.tasks.values())
        subscription = Subscription(self.client_id, tuple(self.tasks), limit, fenced)
        self._control = Control(self.settings, subscription, drain_seconds)

    def __repr__(self) -> str:
        return f"<Worker {self.client_id}: {len(self.tasks)} tasks, limit {self.limit}>"

    @property
    def stuck(self) -> int:
        """Slots of code that goes on though its run has ended: threads that nothing can stop."""
        return self._control.stuck

    @property
    def interrupted(self) -> bool:
        """Whether `stop` was called twice."""
        return self._control.stops > 1

    async def run(self) -> None:
        """Work until `stop` is called; then drain, and leave `lifespan`.

        Raises `ConnectionFailed` where the broker won't have the worker, `ProcessFailed` where a task of
        `pool="process"` cannot be imported in a process, and what `lifespan` raises. Cancelled, it stops its
        tasks, gives their runs back, and ends.
        """
        if self._has_run:
            raise RunlaneError("a worker runs once: make another one")
        self._has_run = True
        main, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert main is not None
        self._give_up_start = lambda: loop.call_soon_threadsafe(main.cancel)
        try:
            async with AsyncExitStack() as stack:
                resources = await stack.enter_async_context(self._lifespan()) if self._lifespan else None
                pools = Pools(self.tasks.values(), self.limit, self._control.max_payload_bytes)
                stack.push_async_callback(pools.close)
                await pools.open()
                self._give_up_start = None
                await self._until_ended(Work(self.tasks, pools.of, resources, self._fence))
        except asyncio.CancelledError:
            if self._give_up_start is None or not self._control.stops or main.uncancel():
                raise

    def stop(self) -> None:
        """Drain: take nothing more, finish what runs, give back the rest. A second call ends it at once.

        From any thread, and from signal handlers. Before the first run was taken, `lifespan` is cancelled.
        """
        self._control.stop()
        if self._give_up_start is not None:
            self._give_up_start()

    async def _until_ended(self, work: Work) -> None:
        ended = asyncio.wrap_future(self._control.start(work, lambda: self.on_end()))
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            self.stop()
            self.stop()
            await asyncio.wait((ended,))
            ended.exception()  # of no interest any more
            raise


def _nothing() -> None:
    """Nobody wants to know."""


def _by_key(tasks: Iterable[Task[..., Any]]) -> dict[str, Task[..., Any]]:
    by_key: dict[str, Task[..., Any]] = {}
    for task in tasks:
        if not isinstance(cast("object", task), Task):
            raise ArgumentError(f"{task!r} is no task: decorate the function with @task")
        if by_key.setdefault(task.key, task) is not task:
            raise ArgumentError(f"two tasks have the key {task.key}")
    if not 1 <= len(by_key) <= MAX_KEYS:
        raise ArgumentError(f"a worker needs between 1 and {MAX_KEYS} tasks, not {len(by_key)}")
    return by_key
