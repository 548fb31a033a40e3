"""Runs that wait for others to end: handed out as soon as the last of those has."""

from __future__ import annotations

from collections.abc import Iterable

from ..storage.operations.waiting import RecoverWaiting, ReleaseWaiting
from ..storage.records import FinalRun, QueuedRecord
from ..storage.store import Store
from .dispatching import Dispatching


class Waiting:
    """Knows which runs are waited for; which runs wait is in the database."""

    def __init__(self, store: Store, dispatching: Dispatching) -> None:
        self._store = store
        self._dispatching = dispatching
        self._awaited: set[str] = set()

    def __repr__(self) -> str:
        return f"<Waiting for {len(self._awaited)} runs>"

    async def recover(self) -> None:
        """Find out what is waited for, and release what waits for nothing any more."""
        self._awaited.update(await self._store.run(RecoverWaiting()))

    def note(self, upstream_ids: Iterable[str]) -> None:
        """A run that was committed waits for these."""
        self._awaited.update(upstream_ids)

    def finished(self, run: FinalRun) -> None:
        """A run has ended, by whatever path."""
        if run.id in self._awaited:
            self._awaited.discard(run.id)
            self._dispatching.persist(ReleaseWaiting(run.id), self._released)

    def _released(self, outcome: tuple[QueuedRecord, ...] | Exception) -> None:
        if isinstance(outcome, tuple):
            for queued in outcome:
                self._dispatching.queue(queued)
