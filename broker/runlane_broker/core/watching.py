"""Watching runs: subscribe first, then look, so that no end is missed."""

from __future__ import annotations

from collections.abc import Sequence

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

    async def look_up(self, watcher: Watcher, ids: Sequence[str]) -> list[str]:
        """Tell of those that have ended before; returns the ids of which there was no run when it looked.

        They go on being watched: one may have come since, and `watcher` may know of it. Raises `StoreUnavailable`.
        """
        outcomes = await self._store.outcomes(ids)
        unknown: list[str] = []
        for run_id in ids:
            if not self._hub.is_watched_by(watcher, run_id):
                continue  # it ended while we looked, and was told; or nobody wants to know any more
            if run_id not in outcomes:
                unknown.append(run_id)
            elif (final := outcomes[run_id]) is not None:
                self._hub.unwatch(watcher, [run_id])
                watcher.run_finished(final)
        return unknown

    def unwatch(self, watcher: Watcher, ids: Sequence[str]) -> None:
        """Stop telling."""
        self._hub.unwatch(watcher, ids)
