"""The sessions of this broker, as its memory has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..clock import Micros
from .ports import SessionPort, Taker


@dataclass(slots=True)
class Held:
    """A run that was pushed to a session. `since` is the monotonic time of the push.

    Of a flow run, `task_key` is its work queue's key.
    """

    attempt: int
    task_key: str
    since: float
    started: bool = False


@dataclass(slots=True, eq=False)
class Session:
    """One worker's subscription. It may outlive its socket: then `port` is None and `grace_until` runs."""

    id: str
    epoch: int
    client_id: str
    port: SessionPort | None = None
    held: dict[str, Held] = field(default_factory=dict[str, Held])
    #: Leases, by run and attempt, that it has given back, and those of which it has told the end; they stand until
    #: this is written. What is said first counts, though its write may have to be tried again.
    given_back: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    finished: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])
    task_keys: tuple[str, ...] = ()
    #: The work queues that it asked for by name, and the keys of those it has got: they may get other names.
    queues: tuple[str, ...] = ()
    queue_keys: frozenset[str] = frozenset()
    since: Micros = 0
    last_seen: float = 0.0
    grace_until: float | None = None
    #: Of a worker that does not speak `runlane.v1`: it owes no beats, nor a word when it starts.
    taker: Taker | None = None
    _then: Callable[[], None] | None = None

    def __repr__(self) -> str:
        where = "connected" if self.port is not None else "away"
        return f"<Session {self.client_id} epoch {self.epoch}, {where}, {len(self.held)} held>"

    def once_written(self, then: Callable[[], None]) -> None:
        """Call this as soon as all that it has said of its leases is written; that may be now."""
        self._then = then
        self.written()

    def written(self) -> None:
        """Some of what it has said is written, or cannot be."""
        if self._then is not None and not self.given_back and not self.finished:
            then, self._then = self._then, None
            then()

    def quiet_since(self) -> float:
        """Return since when a beat is owed: the last sign of life, or when the session became busy if later."""
        busy_since = min((held.since for held in self.held.values()), default=0.0)
        return max(self.last_seen, busy_since)


class Registry:
    """All sessions by id."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    def __repr__(self) -> str:
        away = sum(session.port is None for session in self)
        return f"<Registry {len(self._sessions)} sessions, {away} away>"

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, session_id: str) -> Session | None:
        """Return a session, if it is this broker's."""
        return self._sessions.get(session_id)

    def holder_of(self, run_id: str) -> Session | None:
        """Return the session that a run was pushed to and that has not lost it since. Looks at all of them."""
        return next((session for session in self._sessions.values() if run_id in session.held), None)

    def add(self, session: Session) -> None:
        """Keep a session, in place of an earlier epoch of it."""
        self._sessions[session.id] = session

    def remove(self, session: Session) -> bool:
        """Forget a session; False if it is not (or no longer, at this epoch) here."""
        if self._sessions.get(session.id) is not session:
            return False
        del self._sessions[session.id]
        return True
