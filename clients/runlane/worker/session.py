"""The worker's connection: subscribes, resumes, beats, and hands on what the broker says."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import ConnectionFailed
from ..protocol import codec
from ..protocol.conversation import worker_conversation
from ..protocol.errors import ErrorCode
from ..protocol.limits import HANDSHAKE_SECONDS, MAX_PAYLOAD_BYTES
from ..protocol.messages import (
    Beat,
    CancelRun,
    Error,
    Frame,
    LeaseLost,
    PushedRun,
    Quit,
    Recorded,
    Release,
    Runs,
    SetLimit,
    Subscribe,
    Subscribed,
)
from ..settings import Settings, worker_url
from ..transport import Link, dial, keep_connected
from .beats import Beats
from .execution import RunKey
from .fence import margin
from .reporter import Reporter

log: Final = logging.getLogger("runlane.worker")

#: Seconds after which a report without a verdict is repeated.
REMIND_SECONDS: Final = 5.0
#: Of the grace for a resume, the share after which a worker with fenced tasks beats again.
_FENCED_BEAT_SHARE: Final = 1 / 3
#: Refusals of a `subscribe` that pass by themselves.
_PASSING: Final = frozenset({ErrorCode.DRAINING, ErrorCode.INTERNAL})


@dataclass(frozen=True)
class Subscription:
    """What a worker asks for. `fence`: some of its tasks are fenced, so that it must know its leases safe."""

    client_id: str
    keys: tuple[str, ...]
    limit: int
    fence: bool = False


@dataclass(frozen=True)
class Handlers:
    """Whom the session tells. All are called from its event loop and must not block."""

    runs: Callable[[Sequence[PushedRun]], None]
    cancel: Callable[[RunKey, float], None]
    lost: Callable[[RunKey], None]
    answered: Callable[[], None]  # `Session.safe_until` has moved


def _ignore(*_: object) -> None:
    """Nobody is told anything before `Session.run`."""


_NOBODY: Final = Handlers(_ignore, _ignore, _ignore, _ignore)


class Session:
    """A subscription that outlives its connections. `reporter` is where the executor reports to."""

    def __init__(self, settings: Settings, subscription: Subscription) -> None:
        self.reporter = Reporter(self._send)
        self.max_payload_bytes = MAX_PAYLOAD_BYTES  # written at each connect: what the broker announces
        self._settings = settings
        self._subscription = subscription
        self._limit = self._told_limit = subscription.limit
        self._given_back: list[Release] = []  # since `subscribe` was sent, which says that they are held
        self._handlers = _NOBODY
        self._link: Link[Any] | None = None
        self._ready = False
        self._is_back = asyncio.Event()
        self._beats: Beats | None = None
        self._timer: asyncio.TimerHandle | None = None  # until subscribed: gives up; then: reminds
        self._identity: Subscribed | None = None
        self._resume_seconds: float | None = None
        self._answered_at = 0.0  # monotonic: when the latest frame was sent that the broker has answered
        self._subscribed_at = 0.0  # monotonic: when `subscribe` was sent
        self._quitting = False

    def __repr__(self) -> str:
        return f"<Session {'ready' if self._ready else 'not connected'}, {self.reporter!r}>"

    async def run(self, handlers: Handlers) -> None:
        """Keep the subscription up until `quit`, or until cancelled. Raises `ConnectionFailed`."""
        self._handlers = handlers
        url = worker_url(self._settings)
        token = self._settings.token
        await keep_connected(
            lambda seconds: dial(url, token, worker_conversation(), codec.WORKER_DOWN, seconds), self, url
        )

    def set_limit(self, limit: int) -> None:
        """Tell the broker how many runs this worker holds at once from now on; 0 pauses."""
        self._limit = limit
        self._tell_limit()

    async def back(self) -> None:
        """Wait until the session has a connection, where it had one before."""
        if self._identity is not None:
            await self._is_back.wait()

    def quit(self) -> bool:
        """End the session: what is unfinished is given back at once, and the broker closes the connection.

        Returns whether there is one.
        """
        self._quitting = True
        said = self._ready
        self._send(Quit())
        self._ready = False
        return said

    # --- What fencing looks at ---------------------------------------------------------------------------

    @property
    def safe_until(self) -> float:
        """Until when the broker surely keeps this worker's leases, by the monotonic clock."""
        grace = self._resume_seconds or 0.0
        return self._answered_at + grace - margin(grace)

    def ask(self) -> None:
        """Have the broker answer soon, where there is one."""
        if self._ready and self._beats is not None:
            self._beats.beat()

    def _note_answer(self, sent_at: float | None) -> None:
        if sent_at is not None and sent_at > self._answered_at:
            self._answered_at = sent_at
            self._handlers.answered()

    def _send(self, frame: Frame) -> None:
        """Send now, or not at all: what matters is kept, and said again after a resume.

        The list of runs that goes with `subscribe` says what has been given back before, but not what is after it.
        (What has a delay is kept by the reporter.)
        """
        if self._ready and self._link is not None:
            self._link.send(frame)
        elif self._link is not None and isinstance(frame, Release) and frame.runs[0].delay is None:
            self._given_back.append(frame)

    def _tell_limit(self) -> None:
        if self._ready and self._limit != self._told_limit:
            self._told_limit = self._limit
            self._send(SetLimit(limit=self._limit))

    # --- What the transport calls ------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether the session was quit."""
        return self._quitting

    @property
    def resume_seconds(self) -> float | None:
        """How long the broker keeps the session without a connection."""
        return self._resume_seconds if self._identity else None

    @property
    def holds_runs(self) -> bool:
        """Whether there are runs, or reports without a verdict, that somebody else would execute again."""
        return len(self.reporter) > 0

    def unreachable(self, reason: str) -> None:
        """Nothing: what is held is held, and the log says it."""

    def opened(self, link: Link[Any]) -> None:
        """Subscribe. From an earlier connection nothing is read any more, so that the list of runs is complete."""
        self._link = link
        self._told_limit = self._limit
        self._given_back.clear()
        self._resume_seconds = link.welcome.resume_seconds
        self.max_payload_bytes = min(link.welcome.max_payload_bytes, MAX_PAYLOAD_BYTES)
        earlier = self._identity
        self._subscribed_at = time.monotonic()
        link.send(
            Subscribe(
                client_id=self._subscription.client_id,
                keys=self._subscription.keys,
                limit=self._limit,
                session=earlier.session if earlier else None,
                resume_token=earlier.resume_token if earlier else None,
                running=self.reporter.held(),
            )
        )
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HANDSHAKE_SECONDS, self._give_up, link)
        busy_seconds = link.welcome.beat_seconds
        if self._subscription.fence:
            busy_seconds = min(busy_seconds, self._resume_seconds * _FENCED_BEAT_SHARE)
        self._beats = Beats(link, busy_seconds, lambda: len(self.reporter) > 0)

    def lost(self) -> None:
        """Stop sending."""
        self._ready = False
        self._is_back.clear()
        self._link = None
        if self._timer is not None:
            self._timer.cancel()
        if self._beats is not None:
            self._beats.stop()

    def on_frame(self, frame: Frame) -> None:
        """Act on a frame. Raises `ConnectionFailed` where the broker will not have the subscription."""
        match frame:
            case Runs():
                self._on_runs(frame)
            case Recorded():
                for run in frame.runs:
                    self.reporter.settle((run.id, run.attempt))
            case Subscribed():
                self._on_subscribed(frame)
            case LeaseLost():
                self.reporter.settle((frame.id, frame.attempt))
                self._handlers.lost((frame.id, frame.attempt))
            case CancelRun():
                self._handlers.cancel((frame.id, frame.attempt), frame.grace_seconds)
            case Beat():
                if self._beats is not None:
                    self._note_answer(self._beats.sent_at(frame))
            case Error():
                self._on_error(frame)
            case _:  # draining: the broker pushes no more, and will close
                pass

    def _on_runs(self, frame: Runs) -> None:
        new = [run for run in frame.runs if self.reporter.take((run.id, run.attempt))]
        if len(new) < len(frame.runs):
            log.warning("%d runs were pushed twice; executing them once", len(frame.runs) - len(new))
        if new:
            self._handlers.runs(new)

    def _on_subscribed(self, frame: Subscribed) -> None:
        resumed, lost = set(frame.resumed), {(run.id, run.attempt) for run in frame.lost}
        held = [(run.id, run.attempt) for run in self.reporter.held()]
        kept = [key for key in held if key[0] in resumed and key not in lost]
        self._identity = frame
        self._ready = True
        self._is_back.set()
        if self._timer is not None:
            self._timer.cancel()
        self._remind()
        for key in self.reporter.settle_others(kept):
            self._handlers.lost(key)
        self.reporter.resend()
        given_back, self._given_back = self._given_back, []
        for release in given_back:
            self._send(release)
        self._tell_limit()
        self._note_answer(self._subscribed_at)
        lost_count = len(held) - len(kept)
        log.info("subscribed as session %s; %d runs resumed, %d lost", frame.session, len(kept), lost_count)

    def _on_error(self, frame: Error) -> None:
        log.warning("the broker refused %s: %s: %s", frame.frame or "a frame", frame.code, frame.message)
        if not self._ready and self._link is not None and not self._quitting:
            if frame.code not in _PASSING:
                raise ConnectionFailed(None, f"{frame.code}: {frame.message}")
            self._link.abort()

    def _remind(self) -> None:
        """Repeat reports that have no verdict: a broker whose database was away has dropped them."""
        self.reporter.resend_overdue(REMIND_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(REMIND_SECONDS, self._remind)

    def _give_up(self, link: Link[Any]) -> None:
        log.warning("the broker did not answer subscribe within %g s", HANDSHAKE_SECONDS)
        link.abort()
