"""Runs that were not started in time: found, marked, and why."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ..clock import MICROS_PER_SECOND, Clock
from ..dispatch import Dispatcher
from ..storage.operations.late import MarkFlowRunsLate, MarkTaskRunsLate
from ..storage.queue_records import split_queue_key
from ..storage.store import Store
from ..storage.tables import FLOW_RUN, TASK_RUN, RunKind
from .registry import Registry, Session


class LateRuns:
    """Marks runs late. That changes nothing about when they are dispatched."""

    def __init__(
        self,
        clock: Clock,
        store: Store,
        registry: Registry,
        dispatcher: Dispatcher,
        after: float,
        after_of: Mapping[str, float],
    ) -> None:
        self._clock = clock
        self._store = store
        self._registry = registry
        self._dispatcher = dispatcher
        self._patience = _micros(after)
        self._patience_of = {key: _micros(seconds) for key, seconds in after_of.items()}

    async def next_in(self) -> float | None:
        """Return in how many seconds a run may be late next (0: one may be now); None if none waits."""
        waits = [
            due + (await self._shortest(kind)) - self._clock.now()
            for kind in (TASK_RUN, FLOW_RUN)
            if (due := await self._store.upkeep.next_due(kind)) is not None
        ]
        return max(min(waits), 0) / MICROS_PER_SECOND if waits else None

    async def mark_task_runs(self) -> int:
        """Mark task runs, and return how many."""
        mark = MarkTaskRunsLate(self._patience, patience_of=self._patience_of, reasons=self.reasons())
        return (await self._store.run(mark)).marked

    async def mark_flow_runs(self) -> int:
        """Mark flow runs, and return how many. A work queue may have a patience of its own."""
        shortest = await self._shortest(FLOW_RUN)
        mark = MarkFlowRunsLate(self._patience, shortest=shortest, reasons=self.reasons_of_queues())
        return (await self._store.run(mark)).marked

    def reasons(self) -> dict[str, str]:
        """Say for each task key that some worker serves why its runs may have to wait."""
        return {key: _reason("task", *slots) for key, slots in self._slots(_task_keys).items()}

    def reasons_of_queues(self) -> dict[str, str]:
        """Say the same for each work queue, by its id, whose runs are pushed to some worker."""
        slots = self._slots(_queue_keys)
        return {split_queue_key(key)[1]: _reason("work queue", *slots[key]) for key in slots}

    def _slots(self, served: Callable[[Session], Collection[str]]) -> dict[str, tuple[int, int]]:
        """Return by what is served how many workers do, and how many slots they have free."""
        slots: dict[str, tuple[int, int]] = {}
        for session in self._registry:
            if session.port is None:
                continue
            free = self._dispatcher.free_slots(session.id)
            for key in served(session):
                workers, sum_ = slots.get(key, (0, 0))
                slots[key] = (workers + 1, sum_ + free)
        return slots

    async def _shortest(self, kind: RunKind) -> int:
        """Return the least patience that any run of a kind is given."""
        if kind is TASK_RUN:
            return min(self._patience, *self._patience_of.values(), self._patience)
        shortest = await self._store.queues.shortest_late_after()
        return self._patience if shortest is None else min(shortest, self._patience)


def _task_keys(session: Session) -> tuple[str, ...]:
    return session.task_keys


def _queue_keys(session: Session) -> frozenset[str]:
    return session.queue_keys


def _reason(what: str, workers: int, free: int) -> str:
    who = "the worker" if workers == 1 else f"all {workers} workers"
    if free <= 0:
        return f"{who} of this {what} {'has' if workers == 1 else 'have'} no free slot"
    return "it is its turn soon: there is a free slot"


def _micros(seconds: float) -> int:
    return round(seconds * MICROS_PER_SECOND)
