"""Runs that are to be cancelled, on their way to the broker: a few frames at once, sent again until answered."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import CancelRefused
from ..protocol.errors import ErrorCode
from ..protocol.messages import Busy, Cancel, Cancelled, CancelledRun, Error

#: Ids in one frame, which is one transaction of the broker: others wait for it, so it should be a short one.
IDS_PER_FRAME: Final = 100
#: `cancel` frames without an answer, at most.
MAX_FRAMES_IN_FLIGHT: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """Some ids of one call."""

    ids: tuple[str, ...]
    answer: asyncio.Future[Sequence[CancelledRun]]


class Cancels:
    """What is to be cancelled and has no answer. To cancel twice does no harm."""

    def __init__(self) -> None:
        self._waiting: deque[_Frame] = deque()
        self._flights: dict[str, _Frame] = {}
        self._number = 0
        self._send: Callable[[Cancel], None] | None = None
        self._busy_until = 0.0

    def __repr__(self) -> str:
        return f"<Cancels {len(self._waiting)} frames waiting, {len(self._flights)} in flight>"

    async def put(self, run_ids: Sequence[str]) -> list[CancelledRun]:
        """Have these cancelled; return the broker's answers, in order."""
        loop = asyncio.get_running_loop()
        parts = [tuple(run_ids[i : i + IDS_PER_FRAME]) for i in range(0, len(run_ids), IDS_PER_FRAME)]
        frames = [_Frame(ids, loop.create_future()) for ids in parts]
        self._waiting.extend(frames)
        self._flush()
        try:
            answers = await asyncio.gather(*(frame.answer for frame in frames))
        finally:
            for frame in frames:  # whoever gave up waiting sends nothing more
                frame.answer.cancel()
        return [run for answer in answers for run in answer]

    def opened(self, send: Callable[[Cancel], None]) -> None:
        """Begin sending, with what an earlier connection left unanswered."""
        self._send = send
        self._busy_until = 0.0
        self._flush()

    def lost(self) -> None:
        """Stop sending: what is under way waits again, ahead of the rest."""
        self._send = None
        self._waiting.extendleft(reversed(self._flights.values()))
        self._flights.clear()

    def fail(self, error: BaseException) -> None:
        """Let everybody who waits fail."""
        self.lost()
        while self._waiting:
            answer = self._waiting.popleft().answer
            if not answer.done():
                answer.set_exception(error)

    def on_cancelled(self, frame: Cancelled) -> None:
        """Answer who waits for this."""
        flight = self._land(frame.ref)
        if flight is not None and not flight.answer.done():
            flight.answer.set_result(frame.runs)
        self._flush()

    def on_busy(self, frame: Busy) -> None:
        """Send this again after the time that it says."""
        flight = self._land(frame.ref)
        if flight is not None:
            self._waiting.appendleft(flight)
            self._busy_until = time.monotonic() + frame.retry_after_seconds
            asyncio.get_running_loop().call_later(frame.retry_after_seconds, self._flush)

    def on_error(self, frame: Error) -> None:
        """Take the refusal of a frame; a broker that goes down is asked again when it is back."""
        flight = self._land(frame.ref)
        if flight is None or flight.answer.done():
            return
        if frame.code == ErrorCode.DRAINING:
            self._send = None  # until the next connection
            self._waiting.appendleft(flight)
        else:
            flight.answer.set_exception(CancelRefused(frame.code, frame.message))
            self._flush()

    def _land(self, ref: int | str | None) -> _Frame | None:
        return self._flights.pop(ref, None) if isinstance(ref, str) else None

    def _flush(self) -> None:
        if time.monotonic() < self._busy_until:
            return
        while self._send is not None and self._waiting and len(self._flights) < MAX_FRAMES_IN_FLIGHT:
            frame = self._waiting.popleft()
            if not frame.answer.done():
                self._number += 1
                ref = f"cancel-{self._number}"
                self._flights[ref] = frame
                self._send(Cancel(ref=ref, ids=frame.ids))
