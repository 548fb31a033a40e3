"""The writer: one thread that commits what waits, in groups.

Operations come from the event loop and their outcomes go back to it, one hop each way per group. While a group
is on the disk, the next one gathers; so a commit costs little under load and nothing extra without.

Chores (see `lane`) have their turns when nothing else waits. Each step is a commit that does not wait for the
disk: so who comes waits for half a millisecond, and has nothing to commit for anybody else.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from ..errors import StoreUnavailable
from .lane import Lane
from .operations.base import Chore, Operation

T = TypeVar("T")
logger = logging.getLogger("runlane.storage")

#: Called on the event loop with the outcome, or with the exception that the operation met.
Callback: TypeAlias = Callable[[Any], None]
Entry: TypeAlias = tuple[Operation[Any], Callback]

#: Rows in one transaction. More would hold up everybody behind it.
MAX_GROUP: Final = 1000
#: How long an operation that nobody waits for may wait for others to be committed with. Seconds.
LAZY_SECONDS: Final = 0.02


class Executor(Protocol):
    """What commits a group (see `sqlite.SqliteExecutor`)."""

    def execute(self, operations: Sequence[Operation[Any]], *, sync: bool = True) -> list[Any]:
        """Commit the operations as one group; return each one's outcome or exception.

        Without `sync` a loss of power may undo it, until something is committed with it.
        """
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
        self._queue: SimpleQueue[Entry | None] = SimpleQueue()
        self._lane: Lane[Entry] = Lane()
        #: Whether the end has come: chores come to theirs where they are. Of the writer's thread.
        self._ends = False
        self._thread = threading.Thread(target=self._work, name="runlane-writer", daemon=True)
        self._closed = False
        self._lazy: list[Entry] = []
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

    def _put_off(self, entry: Entry) -> None:
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
            outcomes = self._execute(group)
            if group:
                self._loop.call_soon_threadsafe(self._deliver, group, outcomes)
                self._lane.part()
            del group, outcomes  # what is called when they are done may hold a connection
        self._executor.close()

    def _execute(self, group: list[Entry]) -> list[Any]:
        """Have a group committed, and return the outcomes of those of it who are to be told."""
        operations = [operation for operation, _ in group]
        if isinstance(chore := operations[0], Chore):  # alone
            began = time.monotonic()
            outcomes = self._executor.execute(operations, sync=False)
            self._lane.rest(chore.rest * (time.monotonic() - began))
        else:
            outcomes = self._executor.execute(operations)
        self._put_back(group, outcomes)
        return outcomes

    def _put_back(self, group: list[Entry], outcomes: list[Any]) -> None:
        """Have a chore go on that is not done yet, unless this is the end; nobody is told of it so far."""
        operation, done = group[-1]
        if not isinstance(operation, Chore) or isinstance(outcomes[-1], Exception) or self._ends:
            return
        if (rest := operation.then(outcomes[-1])) is not None:
            self._lane.put((rest, done))
            del group[-1], outcomes[-1]

    def _take(self) -> list[Entry] | None:
        """Wait for operations and take all that wait, or a chore if none does. None: nothing more will come."""
        group: list[Entry] = []
        while not group:
            try:
                first = self._queue.get(timeout=self._lane.due_in())
            except Empty:
                return [self._lane.take()]
            if first is None:
                self._ends = True
                if self._lane.due_in() is None:
                    return None
                self._queue.put(None)
                return [self._lane.take()]
            self._fill(group, first)
        self._lane.meet()
        if self._lane.is_impatient():
            group.append(self._lane.take())
            self._lane.rest(0.0)  # another one is as patient as this one was
        return group

    def _fill(self, group: list[Entry], entry: Entry | None) -> None:
        """Add an entry and what waits behind it, up to a group's weight. Chores go to their lane."""
        weight = 0
        while entry is not None:
            if isinstance(entry[0], Chore):
                self._lane.put(entry)
            else:
                group.append(entry)
                weight += entry[0].weight
            if weight >= MAX_GROUP:
                return
            try:
                entry = self._queue.get_nowait()
            except Empty:
                return
        self._queue.put(None)

    def _note(self, available: bool, outcome: Any) -> None:
        if available == self.available:
            return
        self.available = available
        if available:
            logger.warning("the database can be written again")
            self.on_recovery()
        else:
            logger.warning("the database cannot be written: %s", outcome)

    def _deliver(self, group: list[Entry], outcomes: list[Any]) -> None:
        self.failures += isinstance(outcomes[-1], StoreUnavailable)
        self._note(not isinstance(outcomes[-1], StoreUnavailable), outcomes[-1])
        for (operation, done), outcome in zip(group, outcomes, strict=True):
            self.waiting -= operation.weight
            self.waiting_bytes -= operation.size
            try:
                done(outcome)
            except Exception as exc:  # one caller's mistake must not cost the others their outcomes
                self._loop.call_exception_handler({"message": "a commit's callback failed", "exception": exc})
