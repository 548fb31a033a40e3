"""Where tasks execute: the event loop of the worker's caller, threads, and processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...tasks import Task
from ..discovery import source_of
from ..execution import Pool
from .loop import TaskLoop
from .processes import Processes, ProcessFailed
from .threads import Threads

__all__ = ["Pools", "ProcessFailed"]


class Pools:
    """The pools of one worker, which has `limit` slots. Made in the loop where async tasks are to run."""

    def __init__(self, tasks: Iterable[Task[..., Any]], limit: int, max_payload_bytes: Callable[[], int]) -> None:
        self._executor = ThreadPoolExecutor(limit, thread_name_prefix="runlane")
        self._loop = TaskLoop(max_payload_bytes)
        self._threads = Threads(self._executor, max_payload_bytes)
        sources = [source_of(task) for task in tasks if task.pool == "process"]
        self._processes = Processes(sources, self._executor, max_payload_bytes) if sources else None

    async def open(self) -> None:
        """See that tasks can begin. Raises `ProcessFailed` for one that no process can import."""
        if self._processes is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._processes.open)

    def of(self, task: Task[..., Any]) -> Pool:
        """Return where this task executes."""
        if self._processes is not None and task.pool == "process":
            return self._processes
        return self._loop if task.is_async else self._threads

    async def close(self) -> None:
        """Stop what can be stopped; threads at work are not waited for."""
        self._loop.close()
        if self._processes is not None:
            await asyncio.to_thread(self._processes.close)
        self._executor.shutdown(wait=False, cancel_futures=True)
