"""Cancelling runs, and queuing parked ones again, one at a time or all that a filter takes.

Whoever holds a run is told, whoever watches it hears of its end: that follows from the committed changes, as for
any state that somebody asks for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from runlane.protocol.states import StateType

from ..schemas.filters import Filters
from ..storage.operations.cancelling import BATCH, CancelRuns, RequeueRuns
from ..storage.records import TransitionOutcome
from ..storage.store import Store
from ..storage.tables import TASK_RUN, RunKind
from .transitions import Transitions

#: Runs that one request by filter takes at most. Who wants more asks again.
MAX_BY_FILTER: Final = 10_000

Outcomes: TypeAlias = tuple[TransitionOutcome | None, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """How many runs have come to be in which state; `more`: there may be others still."""

    counts: dict[StateType, int]
    more: bool


class Cancellations:
    """What somebody gives up, or takes up again. All raise `StoreUnavailable`; what was done before that stays."""

    def __init__(self, store: Store, transitions: Transitions) -> None:
        self._store = store
        self._transitions = transitions

    def submit(self, run_ids: Sequence[str], done: Callable[[Any], None]) -> None:
        """Cancel runs in one transaction; `done` gets `Outcomes` after the commit, or the exception."""
        self._transitions.submit(CancelRuns(tuple(run_ids)), _changes, done)

    async def cancel(self, run_ids: Sequence[str], kind: RunKind = TASK_RUN) -> Outcomes:
        """Cancel runs in one transaction; see `CancelRuns`."""
        return await self._transitions.write(CancelRuns(tuple(run_ids), kind), _changes)

    async def requeue(self, run_ids: Sequence[str], kind: RunKind = TASK_RUN) -> Outcomes:
        """Queue parked runs again in one transaction; see `RequeueRuns`."""
        return await self._transitions.write(RequeueRuns(tuple(run_ids), kind), _changes)

    async def cancel_all(self, filters: Filters) -> Changed:
        """Cancel what the filters take, up to `MAX_BY_FILTER` runs, in transactions of a few each."""
        return await _by_batches(await self._store.task_runs.live(filters, MAX_BY_FILTER), self.cancel)

    async def requeue_all(self, filters: Filters) -> Changed:
        """Queue again what the filters take of the parked runs, in the same way."""
        return await _by_batches(await self._store.task_runs.parked(filters, MAX_BY_FILTER), self.requeue)


async def _by_batches(run_ids: Sequence[str], change: Callable[[Sequence[str]], Awaitable[Outcomes]]) -> Changed:
    """Between two batches whatever else waits to be written has its turn."""
    counts: dict[StateType, int] = {}
    for start in range(0, len(run_ids), BATCH):
        for outcome in await change(run_ids[start : start + BATCH]):
            if outcome is not None and outcome.wrote:
                counts[outcome.state.type] = counts.get(outcome.state.type, 0) + 1
    return Changed(counts, more=len(run_ids) == MAX_BY_FILTER)


def _changes(outcomes: Outcomes) -> list[Any]:
    return [outcome.change for outcome in outcomes if outcome is not None and outcome.change is not None]
