"""What a worker and one of its processes say to each other: frames over a pair of pipes.

Runs, progress and reports are those of the wire, and so JSON: nothing is pickled. Each frame is its length, as
four bytes, and its text.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from ...protocol.messages import Finished, Frame, Progress, PushedRun, ReleasedRun
from ..discovery import TaskSource

T = TypeVar("T")

_LENGTH: Final = struct.Struct("!I")
_ENCODER: Final = msgspec.json.Encoder()


# --- To the process ----------------------------------------------------------------------------------------


class Setup(Frame, frozen=True, tag="setup"):
    """Comes first: what to import, with which `sys.path` and `sys.argv`; the level of the root logger."""

    path: tuple[str, ...]
    argv: tuple[str, ...]
    sources: tuple[TaskSource, ...]
    log_level: int


class Execute(Frame, frozen=True, tag="execute"):
    """Execute this now; the process has nothing else to do."""

    run: PushedRun
    timeout: float | None
    max_payload_bytes: int


class Ask(Frame, frozen=True, tag="ask"):
    """Let the task know that it is to stop."""

    id: str
    attempt: int


# --- From the process --------------------------------------------------------------------------------------


class Ready(Frame, frozen=True, tag="ready"):
    """All tasks are imported."""


class Broken(Frame, frozen=True, tag="broken"):
    """A task cannot be imported; the process ends."""

    reason: str


class Begun(Frame, frozen=True, tag="begun"):
    """The task is being called."""


class Waiting(Frame, frozen=True, tag="waiting"):
    """The task waits for another run, or does so no more."""

    id: str
    attempt: int
    waits: bool


class Snoozed(Frame, frozen=True, tag="snoozed"):
    """The run is given back."""

    run: ReleasedRun


class Logged(Frame, frozen=True, tag="logged"):
    """A log record, for the worker's handlers. `created` is a Unix time, in seconds."""

    name: str
    level: int
    created: float
    process: int
    message: str
    extra: dict[str, str]
    exception: str | None = None


ToProcess: TypeAlias = Setup | Execute | Ask
FromProcess: TypeAlias = Ready | Broken | Begun | Progress | Waiting | Logged | Finished | Snoozed

TO_PROCESS: Final[msgspec.json.Decoder[ToProcess]] = msgspec.json.Decoder(ToProcess)
FROM_PROCESS: Final[msgspec.json.Decoder[FromProcess]] = msgspec.json.Decoder(FromProcess)


class Channel(Generic[T]):
    """One end of the pipes: any thread sends, one receives. Both wait."""

    def __init__(self, reader: int, writer: int, decoder: msgspec.json.Decoder[T]) -> None:
        self._reader = reader  # file descriptors
        self._writer = writer
        self._decoder = decoder
        self._lock = threading.Lock()

    def send(self, frame: Frame) -> None:
        """Send a frame. Raises `OSError` where the other end is gone."""
        text = _ENCODER.encode(frame)
        with self._lock:
            rest = memoryview(_LENGTH.pack(len(text)) + text)
            while rest:
                rest = rest[os.write(self._writer, rest) :]

    def receive(self, before_reading: Callable[[int], None] | None = None) -> T:
        """Return the next frame. Raises `EOFError` or `OSError` where the other end is gone.

        `before_reading` is called with the descriptor ahead of each read, and may raise `EOFError`, too.
        """
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size, before_reading))
        return self._decoder.decode(self._exactly(length, before_reading))

    def _exactly(self, size: int, before_reading: Callable[[int], Any] | None) -> bytes:
        data = b""
        while len(data) < size:
            if before_reading is not None:
                before_reading(self._reader)
            part = os.read(self._reader, size - len(data))
            if not part:
                raise EOFError
            data = data + part if data else part
        return data
