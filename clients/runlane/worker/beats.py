"""Signs of life, both ways."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from ..protocol.messages import Beat
from ..transport import Link

log: Final = logging.getLogger("runlane.worker")

#: Beats of the broker that may be missing before the connection counts as dead.
MISSED_BEATS: Final = 3
#: Seconds of delay of the own timer after which the silence may be the own process's.
_PAUSED_SECONDS: Final = 1.0


class Beats:
    """Sends a beat every `busy_seconds` while runs are held, else every `idle_beat_seconds`.

    A broker that says nothing, not even the echo of three beats, has its connection broken. Whether runs are
    held is looked at every `busy_seconds`: so the first run after an idle time brings its beat soon enough.
    """

    def __init__(self, link: Link[Any], busy_seconds: float, is_busy: Callable[[], bool]) -> None:
        self._link = link
        self._is_busy = is_busy
        self._busy_seconds = max(0.01, busy_seconds)
        self._idle_seconds = max(self._busy_seconds, link.welcome.idle_beat_seconds)
        self._n = 0
        self._echoes: dict[int, float] = {}  # beats without an echo, and when they were sent; oldest first
        self._sent_at = self._quiet_since = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + self._busy_seconds
        self._timer = self._loop.call_at(self._due, self._tick)

    def stop(self) -> None:
        """Beat no more."""
        self._timer.cancel()

    def beat(self) -> None:
        """Send a beat now."""
        self._n = (self._n + 1) % 2**31
        self._sent_at = self._echoes[self._n] = time.monotonic()
        if len(self._echoes) > MISSED_BEATS:
            del self._echoes[next(iter(self._echoes))]
        self._link.send(Beat(n=self._n))

    def sent_at(self, echo: Beat) -> float | None:
        """Return when the beat was sent that this is the echo of, if it is one of the last few."""
        return self._echoes.pop(echo.n, None)

    def _tick(self) -> None:
        now = time.monotonic()
        if self._loop.time() - self._due > _PAUSED_SECONDS:
            self._quiet_since = now  # this process was paused: what came meanwhile is still to be read
        interval = self._busy_seconds if self._is_busy() else self._idle_seconds
        silence = now - max(self._link.heard_at, self._quiet_since)
        if silence > MISSED_BEATS * interval:
            log.warning("the broker has been silent for %.1f s", silence)
            self._link.abort()
            return
        # Half a tick of tolerance, so that a timer which is a little early does not skip a whole interval.
        if now - self._sent_at >= interval - self._busy_seconds / 2:
            self.beat()
        self._due = self._loop.time() + self._busy_seconds
        self._timer = self._loop.call_at(self._due, self._tick)
