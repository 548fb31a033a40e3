"""Watching runs: subscribe first, then look, so that no end is missed."""

from __future__ import annotations

from collections.abc import Sequence

from ..storage.records import FinalRun
from ..storage.store import Store
from .hub import Hub
from .ports import Watcher


class Watching:
    """Answers at once for what has ended, later for the rest."""

    def __init__(self, store: Store, hub: Hub) -> None:
        self._store = store
        self._hub = hub

    def watch(self, watcher: Watcher, ids: Sequence[str]) -> None:
        """Tell `watcher` of these runs from now on. What has ended already `look_up` finds."""
        self._hub.watch(watcher, ids)

    async def look_up(self, watcher: Watcher, ids: Sequence[str]) -> tuple[list[FinalRun], list[str]]:
        """Return those that have ended before, of which the caller tells, and the ids of which there was no run.

        The latter go on being watched: one may have come since, and `watcher` may know of it. Raises
        `StoreUnavailable`.
        """
        outcomes = await self._store.outcomes(ids)
        ended: list[FinalRun] = []
        unknown: list[str] = []
        for run_id in ids:
            if not self._hub.is_watched_by(watcher, run_id):
                continue  # it ended while we looked, and was told; or nobody wants to know any more
            if run_id not in outcomes:
                unknown.append(run_id)
            elif (final := outcomes[run_id]) is not None:
                self._hub.unwatch(watcher, [run_id])
                ended.append(final)
        return ended, unknown

    def unwatch(self, watcher: Watcher, ids: Sequence[str]) -> None:
        """Stop telling."""
        self._hub.unwatch(watcher, ids)
