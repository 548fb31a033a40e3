"""The writer: one thread that commits what waits, in groups.

Operations come from the event loop and their outcomes go back to it, one hop each way per group. While a group
is on the disk, the next one gathers; so a commit costs little under load and nothing extra without.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from ..errors import StoreUnavailable
from .operations.base import Operation

T = TypeVar("T")
logger = logging.getLogger("runlane.storage")

#: Called on the event loop with the outcome, or with the exception that the operation met.
Callback: TypeAlias = Callable[[Any], None]

#: Rows in one transaction. More would hold up everybody behind it.
MAX_GROUP: Final = 1000
#: How long an operation that nobody waits for may wait for others to be committed with. Seconds.
LAZY_SECONDS: Final = 0.02


class Executor(Protocol):
    """What commits a group (see `sqlite.SqliteExecutor`)."""

    def execute(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Commit the operations as one group; return each one's outcome or exception."""
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


def _nothing() -> None:
    """Nobody asked to be told."""


class Writer:
    """Takes operations from one event loop and commits them in the order they came."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[tuple[Operation[Any], Callback] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="runlane-writer", daemon=True)
        self._closed = False
        self._lazy: list[tuple[Operation[Any], Callback]] = []
        self._lazy_timer: asyncio.TimerHandle | None = None
        #: Called when writes succeed again after they had failed.
        self.on_recovery: Callable[[], None] = _nothing
        #: Whether the database could be written the last time that was tried.
        self.available = True
        #: How many groups the database did not take.
        self.failures = 0
        #: Rows and payload bytes that wait for their commit; the event loop's own count.
        self.waiting = 0
        self.waiting_bytes = 0
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Writer {self.waiting} rows and {self.waiting_bytes} bytes waiting>"

    def submit(self, operation: Operation[Any], done: Callback) -> None:
        """Queue an operation; `done` is called on the event loop after its commit."""
        if self._closed:
            self._loop.call_soon(done, StoreUnavailable("the broker is shutting down"))
            return
        self.waiting += operation.weight
        self.waiting_bytes += operation.size
        if operation.urgent:
            self._flush_lazy()
            self._queue.put((operation, done))
        else:
            self._put_off((operation, done))

    def _put_off(self, entry: tuple[Operation[Any], Callback]) -> None:
        self._lazy.append(entry)
        if self._lazy_timer is None:
            self._lazy_timer = self._loop.call_later(LAZY_SECONDS, self._flush_lazy)

    def _flush_lazy(self) -> None:
        """Queue what was put off: before anything that comes after it, so that the order stays."""
        if self._lazy_timer is not None:
            self._lazy_timer.cancel()
            self._lazy_timer = None
        for entry in self._lazy:
            self._queue.put(entry)
        self._lazy.clear()

    async def run(self, operation: Operation[T]) -> T:
        """Queue an operation and wait for its outcome. Cancelling the caller does not cancel the transaction."""
        future: asyncio.Future[T] = self._loop.create_future()

        def resolve(outcome: Any) -> None:
            if future.cancelled():
                return
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self.submit(operation, resolve)
        return await future

    async def close(self) -> None:
        """Commit what waits, deliver its outcomes, and end the thread."""
        if not self._closed:
            self._closed = True
            self._flush_lazy()
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while (group := self._take()) is not None:
            outcomes = self._executor.execute([operation for operation, _ in group])
            self._loop.call_soon_threadsafe(self._deliver, group, outcomes)
        self._executor.close()

    def _take(self) -> list[tuple[Operation[Any], Callback]] | None:
        """Wait for an operation, then take all others that wait. None: nothing more will come."""
        first = self._queue.get()
        if first is None:
            return None
        group = [first]
        weight = first[0].weight
        while weight < MAX_GROUP:
            try:
                entry = self._queue.get_nowait()
            except Empty:
                break
            if entry is None:
                self._queue.put(None)
                break
            group.append(entry)
            weight += entry[0].weight
        return group

    def _note(self, available: bool, outcome: Any) -> None:
        if available == self.available:
            return
        self.available = available
        if available:
            logger.warning("the database can be written again")
            self.on_recovery()
        else:
            logger.warning("the database cannot be written: %s", outcome)

    def _deliver(self, group: list[tuple[Operation[Any], Callback]], outcomes: list[Any]) -> None:
        self.failures += isinstance(outcomes[-1], StoreUnavailable)
        self._note(not isinstance(outcomes[-1], StoreUnavailable), outcomes[-1])
        for (operation, done), outcome in zip(group, outcomes, strict=True):
            self.waiting -= operation.weight
            self.waiting_bytes -= operation.size
            try:
                done(outcome)
            except Exception as exc:  # one caller's mistake must not cost the others their outcomes
                self._loop.call_exception_handler({"message": "a commit's callback failed", "exception": exc})
