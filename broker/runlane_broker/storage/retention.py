"""Finding runs that ended long ago, without an index that every run would have to pay for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from runlane.protocol.states import FINAL, StateType

from .queries import retention as q
from .tables import RunKind


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of a table: the runs in it that ended long ago, and the id at its end (None: the table's)."""

    old: tuple[str, ...]
    end: str | None


class RetentionReader:
    """Walks over runs by id, which is how the tables are kept."""

    def __init__(self, reading: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._reading = reading

    async def stretch(
        self, kind: RunKind, after: str, limit: int, successes_before: int, failures_before: int
    ) -> Stretch:
        """Return which of the `limit` runs after an id have ended before these times (microseconds UTC)."""
        async with self._reading() as connection:
            rows = (await connection.execute(q.walk(kind, after, limit))).all()
        before = dict.fromkeys(FINAL, failures_before) | {StateType.COMPLETED: successes_before}
        old = tuple(
            run_id for run_id, state, end in rows if end is not None and end < before.get(StateType(state), end)
        )
        return Stretch(old, rows[-1][0] if len(rows) == limit else None)
