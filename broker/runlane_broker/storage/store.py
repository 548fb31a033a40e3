"""The store: the writer for everything that changes, the async engine for everything that is read."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ..clock import Clock
from ..errors import StartupError, StoreUnavailable
from . import queries as q
from .checkpoints import Checkpointer
from .facts import FactReader
from .flows import FlowReader
from .kept import KeptReader
from .lists import Lists
from .operations.base import Operation
from .outcomes import OutcomeReader
from .queues import QueueReader
from .records import Backlog, FinalRun, Refill, SessionRecord
from .retention import RetentionReader
from .rows import flow_run_record, task_run_record
from .run_records import RunRecord, StateRecord
from .runs import RunReader
from .sqlite import BUSY_SECONDS, SqliteExecutor, SqliteRefiller, connect
from .tables import FLOW_RUN, TASK_RUN, RunKind
from .tag_limits import LimitReader
from .upkeep import UpkeepReader
from .writer import Callback, Executor, Writer

T = TypeVar("T")

#: SQLite's limit on host parameters is far above this; one round trip should stay short.
_IDS_PER_READ = 500


class Store:
    """What the broker keeps. Lives on one event loop; made inside it."""

    def __init__(self, writer: Writer, refiller: SqliteRefiller, engine: AsyncEngine) -> None:
        self._writer = writer
        self._refiller = refiller
        self._refills = ThreadPoolExecutor(1, "runlane-refills")
        self._engine = engine
        self._outcomes = OutcomeReader(self._reading)
        #: Flows and deployments, one at a time.
        self.flows = FlowReader(self._reading)
        self.lists = Lists(self._reading)
        self.tag_limits = LimitReader(self._reading)
        self.kept = KeptReader(self._reading)
        self.task_runs = RunReader(TASK_RUN, self._reading, task_run_record)
        self.flow_runs = RunReader(FLOW_RUN, self._reading, flow_run_record)
        self.queues = QueueReader(self._reading)
        self.retention = RetentionReader(self._reading)
        self.facts = FactReader(self._reading)
        self.upkeep = UpkeepReader(self._reading)

    @classmethod
    def sqlite(cls, path: Path, clock: Clock, broker_id: str, executor: Executor | None = None) -> Store:
        """Open a SQLite file whose schema is up to date. Raises `StartupError` if it is damaged, or locked."""
        try:
            refiller = SqliteRefiller(path)
            if executor is None:
                checkpointer = Checkpointer(partial(connect, path))
                executor = SqliteExecutor(path, clock, broker_id, checkpointer=checkpointer)
            writer = Writer(executor)
        except sqlite3.Error as exc:
            raise StartupError(f"cannot use the database {path}: {exc}") from exc
        url = URL.create("sqlite+aiosqlite", database=str(path))
        engine = create_async_engine(url, pool_size=4, max_overflow=0, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine.sync_engine, "connect", _read_only)
        return cls(writer, refiller, engine)

    # Writes ----------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Rows that wait for their commit."""
        return self._writer.waiting

    @property
    def waiting_bytes(self) -> int:
        """Payload bytes that wait for their commit."""
        return self._writer.waiting_bytes

    @property
    def available(self) -> bool:
        """Whether the database could be written the last time that was tried."""
        return self._writer.available

    @property
    def failures(self) -> int:
        """How many groups of writes the database did not take."""
        return self._writer.failures

    def on_recovery(self, call: Callable[[], None]) -> None:
        """Have `call` called whenever writes succeed again after they had failed."""
        self._writer.on_recovery = call

    def submit(self, operation: Operation[Any], done: Callback) -> None:
        """Queue a write; `done` gets its outcome, or an exception, after the commit."""
        self._writer.submit(operation, done)

    async def run(self, operation: Operation[T]) -> T:
        """Write and wait for the outcome. Raises `StoreUnavailable`, or what the operation met."""
        return await self._writer.run(operation)

    async def close(self) -> None:
        """Commit what waits and close the database."""
        await self._writer.close()
        await asyncio.to_thread(self._refills.shutdown)
        self._refiller.close()
        await self._outcomes.close()
        await self._engine.dispose()

    # Reads -----------------------------------------------------------------------------------------------

    async def refill(self, task_key: str, now: int, limit: int) -> Refill:
        """Return a key's first dispatchable runs in order, and when its next one comes due."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._refills, self._refiller.refill, task_key, now, limit)
        except sqlite3.Error as exc:
            raise StoreUnavailable(str(exc)) from exc

    def runs(self, kind: RunKind) -> RunReader[Any]:
        """Return who reads runs of one kind."""
        return self.task_runs if kind is TASK_RUN else self.flow_runs

    async def run_by_id(self, run_id: str) -> RunRecord | None:
        """Return a task run with its state and payloads."""
        return await self.task_runs.get(run_id)

    async def outcomes(self, ids: Sequence[str]) -> dict[str, FinalRun | None]:
        """Return the outcome of each of these runs that exists; None where it has not ended.

        Raises `StoreUnavailable`.
        """
        return await self._outcomes.of(ids)

    async def history(self, run_id: str) -> list[StateRecord]:
        """Return a task run's states, oldest first."""
        return await self.task_runs.states(run_id)

    async def count_queued_of(self, task_keys: Sequence[str]) -> dict[str, int]:
        """Return how many runs wait, of each of these keys that has any."""
        found: dict[str, int] = {}
        for start in range(0, len(task_keys), _IDS_PER_READ):
            async with self._reading() as connection:
                rows = await connection.execute(q.count_queued_of(task_keys[start : start + _IDS_PER_READ]))
                found.update((key, count) for key, count in rows)
        return found

    async def backlog(self) -> Backlog:
        """Return what a broker finds when it starts."""
        async with self._reading() as connection:
            queued = (await connection.execute(q.count_queued())).scalar_one()
            leased = (await connection.execute(q.count_leased())).scalar_one()
            rows = (await connection.execute(q.read_sessions())).all()
        return Backlog(queued, leased, tuple(SessionRecord(*row) for row in rows))

    def _reading(self) -> _Reading:
        return _Reading(self._engine)


class _Reading:
    """A read connection; what goes wrong on it is `StoreUnavailable`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._context = engine.connect()

    async def __aenter__(self) -> AsyncConnection:
        try:
            return await self._context.__aenter__()
        except SQLAlchemyError as exc:
            raise StoreUnavailable(str(exc)) from exc

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: Any) -> None:
        await self._context.__aexit__(kind, exc, trace)
        if isinstance(exc, SQLAlchemyError):
            raise StoreUnavailable(str(exc)) from exc


def _read_only(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA query_only = ON").close()
