"""Reading runs of one kind, and their states, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Generic, TypeAlias, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.base import Executable

from .queries.showing import read_runs, read_states
from .records import AnyRunRecord, StateRecord
from .rows import state_record
from .tables import RunKind

R_co = TypeVar("R_co", bound=AnyRunRecord, covariant=True)
Reading: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncConnection]]


class RunReader(Generic[R_co]):
    """What is known of runs of one kind; `record` makes their records of rows. All raise `StoreUnavailable`."""

    def __init__(self, kind: RunKind, reading: Reading, record: Callable[[Any], R_co]) -> None:
        self.kind: Final = kind
        self._reading = reading
        self._record = record

    async def get(self, run_id: str) -> R_co | None:
        """Return a run with its state and payloads."""
        rows = await self._rows(read_runs(self.kind).where(self.kind.run.c.id == run_id))
        return self._record(rows[0]) if rows else None

    async def states(self, run_id: str) -> list[StateRecord]:
        """Return a run's states, oldest first."""
        query = read_states(self.kind).where(self.kind.run_of_state == run_id)
        return [state_record(row) for row in await self._rows(query.order_by(self.kind.state.c.timestamp))]

    async def state(self, state_id: str) -> StateRecord | None:
        """Return a state."""
        rows = await self._rows(read_states(self.kind).where(self.kind.state.c.id == state_id))
        return state_record(rows[0]) if rows else None

    async def _rows(self, query: Executable) -> list[Any]:
        async with self._reading() as connection:
            return list((await connection.execute(query)).all())
