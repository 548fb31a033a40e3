"""Runs that were not started before they expired, also those that nobody asks for."""

from __future__ import annotations

import asyncio
from typing import Any

from ..clock import MICROS_PER_SECOND, Clock
from ..storage.operations.expiry import BATCH, ExpireRuns
from ..storage.records import Change, FinalRun
from ..storage.store import Store
from .transitions import Transitions
from .writing import resolve


class Expiry:
    """Ends runs that have expired. A lease would refuse them; but it may be that nobody comes to lease them."""

    def __init__(self, clock: Clock, store: Store, transitions: Transitions) -> None:
        self._clock = clock
        self._store = store
        self._transitions = transitions

    async def next_in(self) -> float | None:
        """Return in how many seconds the next run expires (0: it has); None if none does."""
        at = await self._store.upkeep.next_expiry()
        return None if at is None else max((at - self._clock.now()) / MICROS_PER_SECOND, 0.0)

    async def end(self) -> int:
        """End all that have expired, and return how many; their watchers hear of it."""
        ended = 0
        while True:
            batch = await self._batch()
            ended += len(batch)
            if len(batch) < BATCH:
                return ended

    async def _batch(self) -> tuple[FinalRun, ...]:
        future: asyncio.Future[tuple[FinalRun, ...]] = asyncio.get_running_loop().create_future()

        def done(outcome: Any) -> None:
            """In the callback of the commit, so that memory hears of it in the order of the commits."""
            if not isinstance(outcome, Exception):
                ended = (Change(run.id, run.task_key, unqueued=True, final=run) for run in outcome)
                self._transitions.settle(ended)
            resolve(future, outcome)

        self._store.submit(ExpireRuns(), done)
        return await future
