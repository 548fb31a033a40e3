"""Reading runs of one kind, and their states: one at a time, as lists, and over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import FINAL, StateName, StateType

from ..clock import MICROS_PER_SECOND, Micros
from ..schemas.filters import ALL, Filters
from ..schemas.sorts import FlowRunSort, TaskRunSort
from .filters import FLOW_RUNS, TASK_RUNS, conditions
from .history import Bar, count_bars, make_bars, total
from .listing import Listing, Reading
from .queries.base import const, one_of, param
from .queries.history import read_history, read_lateness
from .queries.showing import read_runs, read_states
from .rows import shown_state
from .run_records import AnyRunRecord, StateRecord
from .tables import TASK_RUN, RunKind

#: States in which a run has not ended and is not about to.
LIVE: Final = frozenset(StateType) - FINAL - {StateType.CANCELLING}

R_co = TypeVar("R_co", bound=AnyRunRecord, covariant=True)


class RunReader(Listing[R_co]):
    """What is known of runs of one kind; `record` makes their records of rows. All raise `StoreUnavailable`."""

    def __init__(self, kind: RunKind, reading: Reading, record: Callable[[Any], R_co]) -> None:
        source, sort = (TASK_RUNS, TaskRunSort.ID_DESC) if kind is TASK_RUN else (FLOW_RUNS, FlowRunSort.ID_DESC)
        self._all = read_runs(kind)
        super().__init__(source, sort, reading, self._all, record)
        self._one = self._all.where(kind.run.c.id == param("id"))
        self.kind: Final = kind

    async def get(self, run_id: str) -> R_co | None:
        """Return a run with its state and payloads."""
        rows = await self._rows(self._one, {"id_": run_id})
        return self._record(rows[0]) if rows else None

    async def those(self, run_ids: Sequence[str]) -> list[R_co]:
        """Return the runs of these that there are, in no order. Raises `StoreUnavailable`."""
        return [self._record(row) for row in await self._rows(self._those, {"ids_": run_ids})]

    async def ended(self, since: Micros, after: str, limit: int) -> list[R_co]:
        """Return runs that have ended `since` then, the earliest first; of those of that time, the ids `after`."""
        run = self.kind.run.c
        behind = (run.end_time > since) | ((run.end_time == since) & (run.id > after))
        query = self._all.where(run.end_time >= since, behind)
        return [self._record(row) for row in await self._rows(query.order_by(run.end_time, run.id).limit(limit))]

    async def states(self, run_id: str) -> list[StateRecord]:
        """Return a run's states, oldest first."""
        query = read_states(self.kind).where(self.kind.run_of_state == run_id)
        return [shown_state(row) for row in await self._rows(query.order_by(self.kind.state.c.timestamp))]

    async def state(self, state_id: str) -> StateRecord | None:
        """Return a state."""
        rows = await self._rows(read_states(self.kind).where(self.kind.state.c.id == state_id))
        return shown_state(rows[0]) if rows else None

    async def history(
        self, start: Micros, end: Micros, interval: int, now: Micros, filters: Filters = ALL
    ) -> list[Bar]:
        """Return what became of the runs that were expected from `start` to `end`, in at most 500 bars.

        `interval` is in microseconds; the last bar may reach beyond `end`. Estimates are as of `now`. Raises
        `ValueError` for an interval below a second.
        """
        count = count_bars(start, end, interval)
        if not count:
            return []
        query = read_history(
            self.kind.run, conditions(self._source, filters), start, start + count * interval, interval, now
        )
        return make_bars(start, interval, count, await self._rows(query))

    async def lateness(self, now: Micros, filters: Filters = ALL) -> float | None:
        """Return how late runs have started on average, or are by now, in seconds; None if there are none."""
        (row,) = await self._rows(read_lateness(self.kind.run, conditions(self._source, filters), now))
        if not row.count:
            return None
        return total(row.lateness_seconds, row.lateness_rest) / row.count / MICROS_PER_SECOND

    async def live(self, filters: Filters, limit: int) -> list[str]:
        """Return the ids of runs that the filters take and that could be cancelled, at most so many of them."""
        return await self._ids(filters, limit, one_of(self.kind.run.c.state_type, LIVE))

    async def parked(self, filters: Filters, limit: int) -> list[str]:
        """Return the ids of runs that the filters take and that are parked, at most so many of them."""
        run = self.kind.run.c
        crashed = run.state_type == const(StateType.CRASHED)
        return await self._ids(filters, limit, crashed, run.state_name == const(StateName.PARKED))

    async def _ids(self, filters: Filters, limit: int, *where: ColumnElement[bool]) -> list[str]:
        query = select(self.kind.run.c.id).where(*conditions(self._source, filters), *where).limit(limit)
        return [row[0] for row in await self._rows(query)]

    async def _rows(self, query: Executable, values: Mapping[str, Any] | None = None) -> list[Any]:
        async with self._reading() as connection:
            return list((await connection.execute(query, values)).all())
