"""Every run that the worker holds, and what the broker has not confirmed of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from ..protocol.limits import MAX_LIMIT
from ..protocol.messages import Finished, Frame, HeldRun, Release, ReleasedRun, Started
from .execution import RunKey
from .progress import LatestProgress

#: Verdicts remembered, so that a run which is pushed twice is executed once.
_REMEMBERED: Final = 4096
#: Seconds within which progress is gathered before it is sent.
_PROGRESS_SECONDS: Final = 0.1


class _Held:
    """What has been said of one run."""

    __slots__ = ("final", "said_at", "started")

    def __init__(self) -> None:
        self.started: Started | None = None
        self.final: Finished | Release | None = None
        self.said_at = 0.0  # when `final` was last sent, monotonic


class Reporter:
    """Keeps reports until a verdict. `send` may drop frames, without a connection: `resend` says them again."""

    def __init__(self, send: Callable[[Frame], None]) -> None:
        self._send = send
        self._held: dict[RunKey, _Held] = {}
        self._settled: dict[RunKey, None] = {}
        self._progress: dict[RunKey, LatestProgress] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def __repr__(self) -> str:
        return f"<Reporter {len(self._held)} held, {self.unanswered} unanswered>"

    def __len__(self) -> int:
        return len(self._held)

    @property
    def unanswered(self) -> int:
        """How many reports wait for their verdict."""
        return sum(held.final is not None for held in self._held.values())

    def take(self, key: RunKey) -> bool:
        """Hold a pushed run; say whether it is new, and so to be executed."""
        if key in self._held or key in self._settled:
            return False
        self._held[key] = _Held()
        self._empty.clear()
        return True

    def started(self, frame: Started) -> None:
        """Report that a run executes."""
        held = self._held.get((frame.id, frame.attempt))
        if held is not None:
            held.started = frame
            self._send(frame)

    def progress(self, key: RunKey, progress: LatestProgress) -> None:
        """Report how far a run is, soon: what is the latest by then."""
        if not self._progress:
            asyncio.get_running_loop().call_later(_PROGRESS_SECONDS, self._send_progress)
        self._progress[key] = progress

    def finished(self, frame: Finished) -> None:
        """Report a run's end, and before that what was last said of its progress."""
        key = (frame.id, frame.attempt)
        held = self._held.get(key)
        if held is None or held.final is not None:  # the lease was lost, or it has ended already
            return
        progress = self._progress.pop(key, None)
        if progress is not None:
            self._say(progress)
        self._say_last(held, frame)

    def release(self, run: ReleasedRun) -> None:
        """Give a run back. With a delay that is kept until a verdict, as any report; without one it is forgotten.

        For there is no verdict then: where nothing can be said, the run is missing from the list with which the
        session is resumed, and the broker takes it back for that. Of a delay it would not know.
        """
        key = (run.id, run.attempt)
        held = self._held.get(key)
        if held is None or held.final is not None:
            return
        if run.delay is not None:
            self._say_last(held, Release(runs=(run,)))
        else:
            self.settle(key)
            self._send(Release(runs=(run,)))

    def settle(self, key: RunKey) -> None:
        """Forget a run: there is a verdict, or its lease is lost."""
        if self._held.pop(key, None) is None:
            return
        self._settled[key] = None
        if len(self._settled) > _REMEMBERED:
            del self._settled[next(iter(self._settled))]
        if not self._held:
            self._empty.set()

    def held(self) -> tuple[HeldRun, ...]:
        """Return every run that is held, for the resuming of a session; of too many, the oldest."""
        keys = list(self._held)[: 2 * MAX_LIMIT]
        return tuple(HeldRun(id=run_id, attempt=attempt) for run_id, attempt in keys)

    def settle_others(self, kept: Iterable[RunKey]) -> list[RunKey]:
        """Forget every run but these; return the forgotten."""
        lost = list(self._held.keys() - set(kept))
        for key in lost:
            self.settle(key)
        return lost

    def resend(self) -> None:
        """Say again, on a new connection, whatever the broker may not have heard."""
        now = time.monotonic()
        for held in self._held.values():
            if held.started is not None:
                self._send(held.started)
            if held.final is not None:
                held.said_at = now
                self._send(held.final)

    def resend_overdue(self, seconds: float) -> None:
        """Say again what was reported so long ago and has no verdict."""
        now = time.monotonic()
        for held in self._held.values():
            if held.final is not None and now - held.said_at >= seconds:
                held.said_at = now
                self._send(held.final)

    async def wait_empty(self) -> None:
        """Wait until nothing is held."""
        await self._empty.wait()

    def _say_last(self, held: _Held, frame: Finished | Release) -> None:
        held.final = frame
        held.said_at = time.monotonic()
        self._send(frame)

    def _send_progress(self) -> None:
        latest, self._progress = self._progress, {}
        for key, progress in latest.items():
            held = self._held.get(key)
            if held is not None and held.final is None:
                self._say(progress)

    def _say(self, progress: LatestProgress) -> None:
        frame = progress.take()
        if frame is not None:
            self._send(frame)
