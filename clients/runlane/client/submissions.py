"""Runs on their way to the broker: sent together, sent again until answered, never too many at once."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from ..protocol import codec
from ..protocol.errors import ErrorCode
from ..protocol.limits import MAX_MESSAGE_BYTES, MAX_RUNS_PER_SUBMIT
from ..protocol.messages import Busy, Error, ItemError, NewRun, Submit, Submitted, SubmittedRun

#: `submit` frames without an answer, at most.
MAX_FRAMES_IN_FLIGHT: Final = 256
#: Bytes in `submit` frames without an answer, at most (one frame may always be under way).
MAX_BYTES_IN_FLIGHT: Final = 2 * 1024 * 1024
#: Bytes that a `submit` frame needs beside its runs: type, ref, brackets.
_FRAME_OVERHEAD: Final = 100


class _Call:
    """One call of `put`: answered when the last of its runs is."""

    __slots__ = ("_missing", "answer", "runs")

    def __init__(self, count: int) -> None:
        self.answer: asyncio.Future[list[SubmittedRun]] = asyncio.get_running_loop().create_future()
        self.runs: list[SubmittedRun | None] = [None] * count
        self._missing = count

    def settle(self, index: int, run: SubmittedRun) -> None:
        self.runs[index] = run
        self._missing -= 1
        if not self._missing and not self.answer.done():
            self.answer.set_result([run for run in self.runs if run is not None])

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Item:
    """One run of a call."""

    id: str
    data: msgspec.Raw
    size: int
    call: _Call
    index: int

    def refuse(self, code: str, message: str, field: str | None = None) -> None:
        error = ItemError(code=code, message=message, field=field)
        self.call.settle(self.index, SubmittedRun(id=self.id, created=False, error=error))


@dataclass(frozen=True, slots=True)
class _Flight:
    """A frame without an answer."""

    items: Sequence[_Item]
    size: int


class Submissions:
    """What is to be submitted and what has been, without an answer.

    `send` takes a frame while there is a connection. `opened` and `lost` say when: what was under way when a
    connection broke is sent again, with the same ids, on the next; the broker knows it by them.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Item] = deque()
        self._flights: dict[int, _Flight] = {}
        self._bytes = 0
        self._ref = 0
        self._send: Callable[[Submit], None] | None = None
        self._message_limit = MAX_MESSAGE_BYTES
        self._busy_until = 0.0
        self._scheduled = False

    def __repr__(self) -> str:
        return f"<Submissions {len(self._waiting)} waiting, {len(self._flights)} frames in flight>"

    def put(self, runs: Iterable[NewRun]) -> asyncio.Future[list[SubmittedRun]]:
        """Queue runs; the future has the broker's answers, in order."""
        parts = [(run.id, codec.encode_part(run)) for run in runs]
        call = _Call(len(parts))
        if not parts:
            call.answer.set_result([])
        self._waiting.extend(_Item(id, data, len(bytes(data)), call, i) for i, (id, data) in enumerate(parts))
        self._schedule()
        return call.answer

    def opened(self, send: Callable[[Submit], None], message_limit: int) -> None:
        """Begin sending, with what an earlier connection left unanswered."""
        self._send = send
        self._message_limit = min(message_limit, MAX_MESSAGE_BYTES)
        self._busy_until = 0.0
        self.flush()

    def lost(self) -> None:
        """Stop sending: what is under way waits again, ahead of the rest."""
        self._send = None
        for ref in sorted(self._flights, reverse=True):
            self._take_back(ref)

    def fail(self, error: BaseException) -> None:
        """Let every call fail."""
        self.lost()
        while self._waiting:
            self._waiting.popleft().call.fail(error)

    def on_submitted(self, frame: Submitted) -> None:
        """Answer the calls whose runs these are."""
        flight = self._land(frame.ref)
        if flight is None:
            return
        for item, run in zip(flight.items, frame.runs, strict=False):
            item.call.settle(item.index, run)
        for item in flight.items[len(frame.runs) :]:
            item.refuse(ErrorCode.INTERNAL, "the broker's answer is short of runs")
        self._schedule()

    def on_busy(self, frame: Busy) -> None:
        """Send this frame's runs again, and anything else, only after the time that it says."""
        if isinstance(frame.ref, int) and frame.ref in self._flights:
            self._take_back(frame.ref)
        self._busy_until = max(self._busy_until, time.monotonic() + frame.retry_after_seconds)
        asyncio.get_running_loop().call_later(frame.retry_after_seconds, self.flush)

    def on_error(self, frame: Error) -> None:
        """Take the refusal of a whole frame, and so of each of its runs; a broker that drains is asked again."""
        if frame.code == ErrorCode.DRAINING and isinstance(frame.ref, int) and frame.ref in self._flights:
            self._send = None  # until the next connection
            self._take_back(frame.ref)
        elif flight := self._land(frame.ref):
            for item in flight.items:
                item.refuse(frame.code, frame.message, frame.field)
            self._schedule()

    def _schedule(self) -> None:
        """Flush once, after everything that is ready to run now has had its say."""
        if not self._scheduled and self._send is not None and self._waiting:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Send what may be sent now."""
        self._scheduled = False
        if time.monotonic() < self._busy_until:
            return
        while self._send is not None and self._waiting and self._has_room():
            self._send_one(self._send)

    def _has_room(self) -> bool:
        if not self._flights:
            return True
        size = self._waiting[0].size
        return len(self._flights) < MAX_FRAMES_IN_FLIGHT and self._bytes + size <= MAX_BYTES_IN_FLIGHT

    def _send_one(self, send: Callable[[Submit], None]) -> None:
        items, size = self._next_items()
        if not items:
            return
        self._ref += 1
        self._flights[self._ref] = _Flight(items, size)
        self._bytes += size
        send(Submit(ref=self._ref, runs=tuple(item.data for item in items)))

    def _next_items(self) -> tuple[list[_Item], int]:
        """Take what fits into one frame; who gave up waiting is left out."""
        items: list[_Item] = []
        size = _FRAME_OVERHEAD
        room = self._message_limit if not self._flights else MAX_BYTES_IN_FLIGHT - self._bytes
        limit = min(self._message_limit, max(room, _FRAME_OVERHEAD))
        while self._waiting and len(items) < MAX_RUNS_PER_SUBMIT:
            item = self._waiting[0]
            if items and size + item.size + 1 > limit:
                break
            self._waiting.popleft()
            if item.call.answer.done():
                continue
            if item.size + _FRAME_OVERHEAD > self._message_limit:  # sent, it would break every connection
                item.refuse(ErrorCode.TOO_LARGE, f"the run has {item.size} bytes")
                continue
            items.append(item)
            size += item.size + 1
        return items, size

    def _land(self, ref: int | str | None) -> _Flight | None:
        flight = self._flights.pop(ref, None) if isinstance(ref, int) else None
        if flight is not None:
            self._bytes -= flight.size
        return flight

    def _take_back(self, ref: int) -> None:
        flight = self._land(ref)
        if flight is not None:
            self._waiting.extendleft(reversed(flight.items))
