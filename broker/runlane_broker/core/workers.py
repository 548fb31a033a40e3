"""The workers that are connected, as whoever asks is shown them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..clock import MICROS_PER_SECOND, Clock, Micros
from ..dispatch import Dispatcher
from .registry import Registry


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A connected worker: since when, when it was last heard of, and what it holds and could take."""

    client_id: str
    task_keys: tuple[str, ...]
    queues: tuple[str, ...]  # `pool/queue`
    since: Micros
    last_seen: Micros
    in_flight: int
    free_slots: int


class Workers:
    """Who is connected. A session whose socket is gone is not, though it may come back."""

    def __init__(self, clock: Clock, registry: Registry, dispatcher: Dispatcher) -> None:
        self._clock = clock
        self._registry = registry
        self._dispatcher = dispatcher

    def serving(self, task_keys: Collection[str] = ()) -> list[WorkerRecord]:
        """Return the workers that serve any of these keys, or all if there are none, longest connected first."""
        wanted = frozenset(task_keys)
        now, monotonic = self._clock.now(), self._clock.monotonic()
        found = [
            WorkerRecord(
                client_id=session.client_id,
                task_keys=session.task_keys,
                queues=session.queues,
                since=session.since,
                last_seen=now - round((monotonic - session.last_seen) * MICROS_PER_SECOND),
                in_flight=len(session.held),
                free_slots=self._dispatcher.free_slots(session.id),
            )
            for session in self._registry
            if session.port is not None and (not wanted or not wanted.isdisjoint(session.task_keys))
        ]
        return sorted(found, key=lambda worker: (worker.since, worker.client_id))
