"""The hub: who watches which run, and the latest progress of those that run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..storage.records import FinalRun
from .ports import Watcher


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    current: float
    total: float | None
    message: str | None


class Hub:
    """Tells watchers of what happens to their runs, whatever the path it came by."""

    def __init__(self) -> None:
        #: In the order in which they came: what follows must not depend on addresses in memory.
        self._watchers: dict[str, dict[Watcher, None]] = {}
        self._progress: dict[str, Progress] = {}
        self._listeners: list[Callable[[FinalRun], None]] = []

    def __repr__(self) -> str:
        return f"<Hub {len(self._watchers)} runs watched, {len(self._progress)} in progress>"

    def watch(self, watcher: Watcher, ids: Iterable[str]) -> None:
        """Tell `watcher` of these runs from now on, and of the progress they have made."""
        for run_id in ids:
            self._watchers.setdefault(run_id, {})[watcher] = None
            if (progress := self._progress.get(run_id)) is not None:
                watcher.run_progress(run_id, progress.current, progress.total, progress.message)

    def unwatch(self, watcher: Watcher, ids: Iterable[str]) -> None:
        """Stop telling `watcher` of these runs."""
        for run_id in ids:
            watchers = self._watchers.get(run_id)
            if watchers is not None:
                watchers.pop(watcher, None)
                if not watchers:
                    del self._watchers[run_id]

    def is_watched_by(self, watcher: Watcher, run_id: str) -> bool:
        """Say whether `watcher` is still waiting for the end of a run."""
        return watcher in self._watchers.get(run_id, ())

    def listen(self, listener: Callable[[FinalRun], None]) -> None:
        """Tell `listener` of every run that ends, from now on."""
        self._listeners.append(listener)

    def finished(self, run: FinalRun) -> None:
        """A run has ended: tell its watchers, once."""
        for listener in self._listeners:
            listener(run)
        self._progress.pop(run.id, None)
        for watcher in self._watchers.pop(run.id, ()):
            watcher.run_finished(run)

    def progressed(self, run_id: str, progress: Progress) -> None:
        """A run is further: keep it for who comes later, tell who is here."""
        self._progress[run_id] = progress
        for watcher in self._watchers.get(run_id, ()):
            watcher.run_progress(run_id, progress.current, progress.total, progress.message)

    def forget_progress(self, run_id: str) -> None:
        """A run will start again from the beginning."""
        self._progress.pop(run_id, None)
