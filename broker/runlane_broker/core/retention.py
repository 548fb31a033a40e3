"""Runs that ended long ago: found and deleted, within a budget of time."""

from __future__ import annotations

from typing import Final

from ..clock import MICROS_PER_SECOND, Clock
from ..storage.operations.retention import DeleteOldFlowRuns, DeleteOldTaskRuns
from ..storage.store import Store
from ..storage.tables import FLOW_RUN, TASK_RUN, RunKind

#: How long a pass may take, in seconds: the next one goes on where it stopped.
BUDGET: Final = 5.0
#: Runs that are looked at by one read.
STRETCH: Final = 500


class Retention:
    """Deletes what ended before an age, in seconds; 0 keeps it for ever. Successes and failures apart."""

    def __init__(self, clock: Clock, store: Store, successes: float, failures: float) -> None:
        self._clock = clock
        self._store = store
        self._successes = successes
        self._failures = failures
        self._places: dict[str, str] = {}
        #: Whether the last pass ran out of time.
        self.has_more = False

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever deleted."""
        return not (self._successes or self._failures)

    async def run(self) -> dict[str, int]:
        """Delete what there is to delete, for as long as there is time; flow runs first, with their task runs."""
        counts = {"task_runs": 0, "flow_runs": 0, "left": 0}
        if self.keeps_all:
            return counts
        self.has_more = False
        until = self._clock.monotonic() + BUDGET
        for kind in (FLOW_RUN, TASK_RUN):
            await self._walk(kind, until, counts)
        return counts

    async def _walk(self, kind: RunKind, until: float, counts: dict[str, int]) -> None:
        """Go over a table from where the last pass stopped, to its end at most."""
        successes, failures = self._before(self._successes), self._before(self._failures)
        while True:
            after = self._places.get(kind.name, "")
            stretch = await self._store.retention.stretch(kind, after, STRETCH, successes, failures)
            old = stretch.old
            while old:
                if self._clock.monotonic() >= until:
                    self.has_more = True
                    return
                old = old[await self._delete(kind, old, successes, failures, counts) :]
            self._places[kind.name] = stretch.end or ""
            if stretch.end is None:
                return
            if self._clock.monotonic() >= until:
                self.has_more = bool(stretch.old)  # where all are young there is no hurry
                return

    async def _delete(
        self, kind: RunKind, ids: tuple[str, ...], successes: int, failures: int, counts: dict[str, int]
    ) -> int:
        """Delete as many of these as a step may; return how many are settled."""
        delete = DeleteOldFlowRuns if kind is FLOW_RUN else DeleteOldTaskRuns
        deleted = await self._store.run(delete(ids, successes, failures))
        counts["task_runs"] += deleted.task_runs
        counts["flow_runs"] += deleted.flow_runs
        counts["left"] += deleted.left
        return deleted.done

    def _before(self, age: float) -> int:
        """Return before when a run has to have ended; nothing has ended before the beginning of time."""
        return self._clock.now() - round(age * MICROS_PER_SECOND) if age else -(2**62)
