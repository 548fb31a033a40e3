"""The legal order of frames, as a table, and the sans-I/O object that holds both ends to it.

Rule 1: which frame may follow which stands in this file and nowhere else.
Rule 2: this file does not know which end it runs at; a frame has a direction, up (client to broker) or down.

    CONNECTED ──auth──▶ AUTHENTICATING ──auth_success──▶ AUTHENTICATED ──subscribe──▶ SUBSCRIBING
                                                               │                           │ subscribed
                                  (submission socket: READY) ◀─┘                           ▼
                                                                        READY ──quit──▶ CLOSING

A frame without a cell is refused and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Final, TypeAlias

from . import messages as m
from .closing import CloseCode
from .errors import ErrorCode, FrameRefused, ProtocolViolation
from .limits import MAX_BAD_FRAMES


class Phase(Enum):
    """How far a connection is."""

    CONNECTED = auto()
    AUTHENTICATING = auto()
    AUTHENTICATED = auto()
    SUBSCRIBING = auto()
    READY = auto()
    CLOSING = auto()


Rules: TypeAlias = Mapping[tuple[Phase, type[m.Frame]], Phase]


def _stay(phases: Iterable[Phase], frames: Iterable[type[m.Frame]]) -> dict[tuple[Phase, type[m.Frame]], Phase]:
    """Cells that lead nowhere: these frames are fine in these phases."""
    kinds = tuple(frames)
    return {(phase, kind): phase for phase in phases for kind in kinds}


_AFTER_AUTH: Final = (Phase.AUTHENTICATED, Phase.SUBSCRIBING, Phase.READY, Phase.CLOSING)
_ANYWHERE: Final = tuple(Phase)

WORKER_UP_RULES: Final[Rules] = {
    (Phase.CONNECTED, m.Auth): Phase.AUTHENTICATING,
    (Phase.AUTHENTICATED, m.Subscribe): Phase.SUBSCRIBING,
    **_stay((Phase.AUTHENTICATED, Phase.SUBSCRIBING, Phase.READY), [m.Beat]),
    **_stay([Phase.READY], [m.Started, m.Progress, m.Finished, m.Release, m.SetLimit]),
    (Phase.AUTHENTICATED, m.Quit): Phase.CLOSING,
    (Phase.READY, m.Quit): Phase.CLOSING,
}
WORKER_DOWN_RULES: Final[Rules] = {
    (Phase.AUTHENTICATING, m.AuthSuccess): Phase.AUTHENTICATED,
    (Phase.CONNECTED, m.AuthSuccess): Phase.AUTHENTICATED,  # the token came with the upgrade
    (Phase.SUBSCRIBING, m.Subscribed): Phase.READY,
    **_stay(_AFTER_AUTH, [m.Beat, m.Draining]),
    **_stay((Phase.READY, Phase.CLOSING), [m.Runs, m.Recorded, m.LeaseLost, m.CancelRun]),
    **_stay(_ANYWHERE, [m.Error]),
}
SUBMISSION_UP_RULES: Final[Rules] = {
    (Phase.CONNECTED, m.Auth): Phase.AUTHENTICATING,
    **_stay([Phase.READY], [m.Submit, m.Watch, m.Unwatch, m.Cancel, m.Beat]),
    (Phase.READY, m.Quit): Phase.CLOSING,
}
SUBMISSION_DOWN_RULES: Final[Rules] = {
    (Phase.AUTHENTICATING, m.AuthSuccess): Phase.READY,
    (Phase.CONNECTED, m.AuthSuccess): Phase.READY,
    **_stay(
        (Phase.READY, Phase.CLOSING),
        [m.Submitted, m.RunFinished, m.RunProgress, m.Cancelled, m.Busy, m.Beat, m.Draining],
    ),
    **_stay(_ANYWHERE, [m.Error]),
}


class Conversation:
    """One connection's place in the protocol: feed it every frame that comes and every frame that goes.

    It refuses what is out of order, counts what the peer got wrong, and ends the conversation after
    `MAX_BAD_FRAMES` of those.
    """

    def __init__(self, up: Rules, down: Rules) -> None:
        self._up = up
        self._down = down
        self.phase = Phase.CONNECTED
        self.bad_frames = 0

    def __repr__(self) -> str:
        return f"<Conversation {self.phase.name}, {self.bad_frames} bad frames>"

    def up(self, frame: m.Frame) -> None:
        """Take a frame from the client to the broker.

        Raises `FrameRefused`, or `ProtocolViolation` before auth.
        """
        self._step(self._up, frame)

    def down(self, frame: m.Frame) -> None:
        """Take a frame from the broker to the client.

        Raises `FrameRefused`, or `ProtocolViolation` before auth.
        """
        self._step(self._down, frame)

    def count_bad_frame(self) -> None:
        """Note that the peer sent a frame that was refused.

        Raises `ProtocolViolation` after too many, and before `auth` at once.
        """
        if self.phase is Phase.CONNECTED:
            raise ProtocolViolation("expected auth", CloseCode.UNAUTHENTICATED)
        self.bad_frames += 1
        if self.bad_frames > MAX_BAD_FRAMES:
            raise ProtocolViolation(f"more than {MAX_BAD_FRAMES} bad frames")

    def _step(self, rules: Rules, frame: m.Frame) -> None:
        phase = rules.get((self.phase, type(frame)))
        if phase is not None:
            self.phase = phase
            return
        kind = str(type(frame).__struct_config__.tag)
        if self.phase is Phase.CONNECTED:
            raise ProtocolViolation(f"expected auth, got {kind}", CloseCode.UNAUTHENTICATED)
        raise FrameRefused(
            ErrorCode.OUT_OF_ORDER, f"{kind} is not allowed while {self.phase.name.lower()}", frame=kind
        )


def worker_conversation() -> Conversation:
    """Return the state of a fresh worker socket."""
    return Conversation(WORKER_UP_RULES, WORKER_DOWN_RULES)


def submission_conversation() -> Conversation:
    """Return the state of a fresh submission socket."""
    return Conversation(SUBMISSION_UP_RULES, SUBMISSION_DOWN_RULES)
