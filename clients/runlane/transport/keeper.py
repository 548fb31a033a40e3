"""Keeping a connection up: dial, listen until it breaks, wait, dial again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from ..errors import ConnectionFailed
from ..protocol.closing import CloseCode, may_reconnect
from ..protocol.messages import Frame
from .backoff import open_seconds, retry_delay, seconds_in
from .dial import DialFailed
from .link import Link

F = TypeVar("F", bound=Frame)
F_contra = TypeVar("F_contra", bound=Frame, contravariant=True)

log: Final = logging.getLogger("runlane.transport")


#: Seconds after which a connection that is lost was a good one; before, its end counts as one more failure.
STABLE_SECONDS: Final = 10.0
#: Seconds between two words on a broker that cannot be reached.
TELL_SECONDS: Final = 30.0


class Listener(Protocol[F_contra]):
    """Who uses the connection. All of it is called from the event loop and must not block."""

    @property
    def ended(self) -> bool:
        """Whether a connection that ends now is not to be replaced."""
        ...

    @property
    def resume_seconds(self) -> float | None:
        """The grace within which the session can be resumed; `None`: nothing to resume."""
        ...

    @property
    def holds_runs(self) -> bool:
        """Whether anything depends on being back in time."""
        ...

    def unreachable(self, reason: str) -> None:
        """Note why there is no connection now; another try follows."""
        ...

    def opened(self, link: Link[Any]) -> None:
        """Take a new connection, authenticated and not yet read from."""
        ...

    def on_frame(self, frame: F_contra) -> None:
        """Take a frame."""
        ...

    def lost(self) -> None:
        """Note that the connection is gone: nothing will be read from it any more."""
        ...


@dataclass
class _Outage:
    """How long there has been no connection, how often one was tried for, and what the broker asked for."""

    since: float
    failures: int = 0
    told_at: float = 0.0
    wait_first: float = 0.0


async def keep_connected(dial: Callable[[float], Awaitable[Link[F]]], listener: Listener[F], url: str) -> None:
    """Hold a connection for the listener until it says that it has ended. Raises `ConnectionFailed`.

    `dial` is given the seconds that the upgrade may take.
    """
    outage = _Outage(time.monotonic())
    while True:
        patience = open_seconds(time.monotonic() - outage.since, listener.resume_seconds)
        link = await _try(partial(dial, patience), outage, url, listener)
        if link is not None:
            outage = await _listen(link, listener, outage, url)
        if listener.ended:
            return
        lost_for = time.monotonic() - outage.since
        delay = retry_delay(outage.failures, lost_for, listener.resume_seconds, holds_runs=listener.holds_runs)
        # On top of what was asked for, or all who were asked alike would come at the same moment.
        await asyncio.sleep(outage.wait_first + delay)
        outage.wait_first = 0.0


async def _try(
    dial: Callable[[], Awaitable[Link[F]]], outage: _Outage, url: str, listener: Listener[F]
) -> Link[F] | None:
    try:
        link = await dial()
    except DialFailed as exc:
        outage.failures += 1
        listener.unreachable(str(exc))
        now = time.monotonic()
        if outage.failures == 1 or now - outage.told_at >= TELL_SECONDS:
            outage.told_at = now
            since = "" if outage.failures == 1 else f" for {now - outage.since:.0f} s"
            log.warning("cannot reach the broker at %s%s: %s; trying again", url, since, exc)
        return None
    log.info("connected to the broker at %s", url)
    return link


async def _listen(link: Link[F], listener: Listener[F], before: _Outage, url: str) -> _Outage:
    """Use the connection until it ends. Raises `ConnectionFailed` where that is for good."""
    connected_at = time.monotonic()
    try:
        listener.opened(link)
        code, reason = await link.run(listener.on_frame)
    finally:
        listener.lost()
    if not may_reconnect(code):
        raise ConnectionFailed(code, reason)
    if not listener.ended:
        why = reason if code is None else f"{code} {reason}".rstrip()
        log.warning("lost the broker at %s (%s); connecting again", url, why)
    now = time.monotonic()
    failures = 0 if now - connected_at >= STABLE_SECONDS else before.failures + 1
    return _Outage(now, failures, seconds_in(reason) if code == CloseCode.TOO_MUCH else _hint(link, listener))


def _hint(link: Link[F], listener: Listener[F]) -> float:
    """Return the seconds that a broker which went down asked for, but half of the grace for a resume at most."""
    grace = listener.resume_seconds
    return link.retry_after if grace is None else min(link.retry_after, grace / 2)
