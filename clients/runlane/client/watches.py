"""Runs whose end somebody waits for. The broker pushes it; nothing here asks twice on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from ..errors import RunNotFound
from ..protocol.errors import ErrorCode
from ..protocol.limits import MAX_IDS
from ..protocol.messages import Error, Frame, RunFinished, RunProgress, Unwatch, Watch

ProgressCallback = Callable[[RunProgress], None]

#: Ids in one frame: 39 bytes each, and so far below the message limit.
_IDS_PER_FRAME: Final = min(MAX_IDS, 5_000)


class _Watched:
    """A run, and who waits for it."""

    __slots__ = ("callbacks", "waiters")

    def __init__(self) -> None:
        self.waiters: set[asyncio.Future[RunFinished]] = set()
        self.callbacks: dict[asyncio.Future[RunFinished], ProgressCallback] = {}


class Watches:
    """Who waits for which run. A run is watched while a future of it is pending, across connections."""

    def __init__(self) -> None:
        self._runs: dict[str, _Watched] = {}
        self._new: dict[str, None] = {}
        self._dropped: dict[str, None] = {}
        self._send: Callable[[Frame], None] | None = None
        self._scheduled = False

    def __repr__(self) -> str:
        return f"<Watches {len(self._runs)} runs>"

    def add(self, run_id: str, on_progress: ProgressCallback | None) -> asyncio.Future[RunFinished]:
        """Return a future of the run's end; cancelling it ends the watch."""
        future: asyncio.Future[RunFinished] = asyncio.get_running_loop().create_future()
        watched = self._runs.get(run_id)
        if watched is None:
            watched = self._runs[run_id] = _Watched()
            self._dropped.pop(run_id, None)
            self._new[run_id] = None
            self._schedule()
        watched.waiters.add(future)
        if on_progress is not None:
            watched.callbacks[future] = on_progress
        future.add_done_callback(lambda done: self._forget(run_id, done))
        return future

    def opened(self, send: Callable[[Frame], None]) -> None:
        """Watch everything that is waited for, on this connection."""
        self._send = send
        self._new = dict.fromkeys(self._runs)
        self._dropped.clear()
        self._flush()

    def lost(self) -> None:
        """Note that there is no connection."""
        self._send = None

    def fail(self, error: BaseException) -> None:
        """Let everybody who waits fail."""
        self._send = None
        for run_id in list(self._runs):
            self._reject(run_id, error)

    def on_finished(self, frame: RunFinished) -> None:
        """Tell who waits for this run."""
        watched = self._runs.pop(frame.id, None)
        self._new.pop(frame.id, None)
        for future in watched.waiters if watched else ():
            if not future.done():
                future.set_result(frame)

    def on_progress(self, frame: RunProgress) -> None:
        """Tell who wants to know how far it is."""
        watched = self._runs.get(frame.id)
        for callback in list(watched.callbacks.values()) if watched else ():
            asyncio.get_running_loop().call_soon(callback, frame)  # what it raises is its own affair

    def on_error(self, frame: Error) -> None:
        """Take the refusal of one id, which `ref` names."""
        if frame.code == ErrorCode.NOT_FOUND and isinstance(frame.ref, str):
            self._reject(frame.ref, RunNotFound(frame.ref))

    def _reject(self, run_id: str, error: BaseException) -> None:
        watched = self._runs.pop(run_id, None)
        self._new.pop(run_id, None)
        for future in watched.waiters if watched else ():
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever holds the future may never look: no complaint about that

    def _forget(self, run_id: str, future: asyncio.Future[RunFinished]) -> None:
        watched = self._runs.get(run_id)
        if watched is None or future not in watched.waiters:
            return
        watched.waiters.discard(future)
        watched.callbacks.pop(future, None)
        if watched.waiters:
            return
        del self._runs[run_id]
        if run_id in self._new:
            del self._new[run_id]
        else:
            self._dropped[run_id] = None
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and self._send is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._send is None:
            return
        new, self._new = self._new, {}
        dropped, self._dropped = self._dropped, {}
        for ids in _chunks(dropped):
            self._send(Unwatch(ids=ids))
        for ids in _chunks(new):
            self._send(Watch(ids=ids))


def _chunks(ids: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    rest = iter(ids)
    while chunk := tuple(islice(rest, _IDS_PER_FRAME)):
        yield chunk
