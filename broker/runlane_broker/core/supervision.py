"""Deadlines of sessions: silence, deafness, and the end of the grace."""

from __future__ import annotations

from dataclasses import dataclass

from ..clock import Clock
from ..settings import Timers
from ..storage.store import Store
from .registry import Registry, Session
from .sessions import Sessions

#: A pass that comes so much too late (in seconds) means that this process was stopped, not its peers.
_PAUSED = 1.0


@dataclass(frozen=True, slots=True)
class Swept:
    """What a pass found."""

    silent: int = 0
    deaf: int = 0
    lost: int = 0
    paused: bool = False


class Supervision:
    """Looks at all sessions' deadlines, every `sweep` seconds."""

    def __init__(self, timers: Timers, clock: Clock, store: Store, registry: Registry, sessions: Sessions) -> None:
        self._timers = timers
        self._store = store
        self._clock = clock
        self._registry = registry
        self._sessions = sessions
        self._last = clock.monotonic()

    def sweep(self) -> Swept:
        """Close what is silent or deaf, end what did not come back.

        After a pause of this very process all deadlines move by the gap, and nothing else is done: frames that
        came meanwhile are read before the next pass.
        """
        now = self._clock.monotonic()
        gap = now - self._last - self._timers.sweep
        self._last = now
        if gap > _PAUSED:
            for session in self._registry:
                _postpone(session, gap)
            return Swept(paused=True)
        # A taker owes nothing while it is connected, and there may be many that idle.
        owing = (session for session in self._registry if session.port is None or session.taker is None)
        counts = [self._look(session, now) for session in owing]
        return Swept(counts.count("silent"), counts.count("deaf"), counts.count("lost"))

    def _look(self, session: Session, now: float) -> str | None:
        if session.port is None:
            if self._store.available and session.grace_until is not None and now >= session.grace_until:
                self._sessions.lose(session)
                return "lost"
            return None
        silent = self._timers.silent if session.held else self._timers.idle_silent
        if now - session.quiet_since() >= silent:
            self._sessions.shut(session, f"no frame for {silent:g} s")
            return "silent"
        if any(not run.started and now - run.since >= self._timers.start for run in session.held.values()):
            self._sessions.deaf(session)
            return "deaf"
        return None


def _postpone(session: Session, gap: float) -> None:
    session.last_seen += gap
    if session.grace_until is not None:
        session.grace_until += gap
    for run in session.held.values():
        run.since += gap
