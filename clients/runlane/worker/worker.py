"""The whole worker: what it executes, the session it holds, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterable
from typing import Any, Final

from ..errors import ArgumentError
from ..protocol.limits import MAX_KEYS, MAX_LIMIT
from ..settings import Settings, load_settings
from ..tasks import Task
from .executor import Executor
from .pipeline import Pipeline
from .session import Handlers, Session, Subscription
from .slots import Slots
from .threads import Threads

log: Final = logging.getLogger("runlane.worker")

#: Seconds that running tasks get to finish, by default, when the worker is to stop.
DRAIN_SECONDS: Final = 25.0
#: Seconds to wait for the verdicts of the last reports.
VERDICT_SECONDS: Final = 5.0
#: Seconds to wait for the broker to close the connection after `quit`.
GOODBYE_SECONDS: Final = 1.0


class Worker:
    """Executes runs of these tasks, at most `limit` at once, until stopped.

    `client_id` names the worker to people; by default host and process. Raises `ArgumentError` for no task,
    too many, two of one key, or a limit out of range; `SettingsError`.
    """

    def __init__(
        self,
        tasks: Iterable[Task[..., Any]],
        *,
        limit: int = 10,
        settings: Settings | None = None,
        client_id: str | None = None,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self.tasks: Final = _by_key(tasks)
        if not 1 <= limit <= MAX_LIMIT:
            raise ArgumentError(f"limit must be between 1 and {MAX_LIMIT}, not {limit}")
        self.limit: Final = limit
        self.settings: Final = settings or load_settings()
        self.client_id: Final = client_id or f"{socket.gethostname()}:{os.getpid()}"
        self._drain_seconds = drain_seconds
        self._stopping = asyncio.Event()
        self._main: asyncio.Task[Any] | None = None
        self._slots: Slots | None = None

    def __repr__(self) -> str:
        return f"<Worker {self.client_id}: {len(self.tasks)} tasks, limit {self.limit}>"

    @property
    def stuck_threads(self) -> int:
        """Threads of plain functions that go on though their run has ended."""
        return self._slots.stuck if self._slots else 0

    async def run(self) -> None:
        """Work until `stop` is called; then drain. Raises `ConnectionFailed` where the broker won't have it.

        Cancelled, it stops its tasks, gives their runs back, and ends.
        """
        self._main = asyncio.current_task()
        session = Session(self.settings, Subscription(self.client_id, tuple(self.tasks), self.limit))
        threads = Threads(self.limit)
        executor = self._executor(session, threads)
        handlers = Handlers(executor.start, executor.cancel, executor.lose)
        connection = asyncio.create_task(session.run(handlers), name="runlane session")
        try:
            await self._until_stopped(connection)
            await self._drain(session, executor)
        finally:
            await executor.abort()
            await _end(session, connection)
            threads.close()

    def stop(self) -> None:
        """Drain: take nothing more, finish what runs, give back the rest. A second call ends it at once.

        To be called from the event loop that runs the worker.
        """
        if self._stopping.is_set() and self._main is not None:
            self._main.cancel()
        self._stopping.set()

    def _executor(self, session: Session, threads: Threads) -> Executor:
        def announce(limit: int) -> None:
            session.set_limit(0 if self._stopping.is_set() else limit)

        self._slots = Slots(self.limit, announce)
        reporter = session.reporter
        pipeline = Pipeline(self.tasks, reporter, self._slots, threads, lambda: session.max_payload_bytes)
        return Executor(pipeline, reporter)

    async def _until_stopped(self, connection: asyncio.Task[None]) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((stopping, connection), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if connection.done():
            connection.result()  # raises: a session ends by itself only for a reason

    async def _drain(self, session: Session, executor: Executor) -> None:
        log.info("draining: %d runs have up to %g s", len(executor), self._drain_seconds)
        session.set_limit(0)
        await executor.drain(self._drain_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(VERDICT_SECONDS):
                await session.reporter.wait_empty()


async def _end(session: Session, connection: asyncio.Task[None]) -> None:
    """Say goodbye, where there is somebody to say it to, and close."""
    if not connection.done():
        if session.quit():
            await asyncio.wait((connection,), timeout=GOODBYE_SECONDS)
        connection.cancel()
    await asyncio.wait((connection,))


def _by_key(tasks: Iterable[Task[..., Any]]) -> dict[str, Task[..., Any]]:
    by_key: dict[str, Task[..., Any]] = {}
    for task in tasks:
        if by_key.setdefault(task.key, task) is not task:
            raise ArgumentError(f"two tasks have the key {task.key}")
    if not 1 <= len(by_key) <= MAX_KEYS:
        raise ArgumentError(f"a worker needs between 1 and {MAX_KEYS} tasks, not {len(by_key)}")
    return by_key
