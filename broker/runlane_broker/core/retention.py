"""Runs that ended long ago: found and deleted, within a budget of time."""

from __future__ import annotations

from ..clock import MICROS_PER_SECOND, Clock
from ..storage.operations.retention import BATCH, DeleteOldFlowRuns, DeleteOldTaskRuns
from ..storage.store import Store
from ..storage.tables import FLOW_RUN, TASK_RUN, RunKind

#: How long a pass may take, in seconds: the next one goes on where it stopped.
BUDGET = 5.0


class Retention:
    """Deletes what ended before an age, in seconds; 0 keeps it for ever. Successes and failures apart."""

    def __init__(self, clock: Clock, store: Store, successes: float, failures: float) -> None:
        self._clock = clock
        self._store = store
        self._successes = successes
        self._failures = failures
        self._places: dict[str, str] = {}

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever deleted."""
        return not (self._successes or self._failures)

    async def run(self) -> dict[str, int]:
        """Delete what there is to delete, for as long as there is time; flow runs first, with their task runs."""
        counts = {"task_runs": 0, "flow_runs": 0, "left": 0}
        if self.keeps_all:
            return counts
        until = self._clock.monotonic() + BUDGET
        for kind in (FLOW_RUN, TASK_RUN):
            await self._walk(kind, until, counts)
        return counts

    async def _walk(self, kind: RunKind, until: float, counts: dict[str, int]) -> None:
        """Go over a table from where the last pass stopped, to its end at most."""
        successes, failures = self._before(self._successes), self._before(self._failures)
        delete = DeleteOldFlowRuns if kind is FLOW_RUN else DeleteOldTaskRuns
        while True:
            after = self._places.get(kind.name, "")
            stretch = await self._store.retention.stretch(kind, after, BATCH, successes, failures)
            if stretch.old:
                deleted = await self._store.run(delete(stretch.old, successes, failures))
                counts["task_runs"] += deleted.task_runs
                counts["flow_runs"] += deleted.flow_runs
                counts["left"] += deleted.left
            self._places[kind.name] = stretch.end or ""
            if stretch.end is None or self._clock.monotonic() >= until:
                return

    def _before(self, age: float) -> int:
        """Return before when a run has to have ended; nothing has ended before the beginning of time."""
        return self._clock.now() - round(age * MICROS_PER_SECOND) if age else -(2**62)
