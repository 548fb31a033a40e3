"""What memory and database can disagree about: found, and told apart from what is merely on its way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from runlane.protocol.states import StateType

from ..clock import Clock
from ..dispatch import Dispatcher, PlaceKind
from ..storage.facts import Facts, RunFacts
from .due import DueClock
from .registry import Registry, Session


class Kind(StrEnum):
    """What is wrong, in words for the log."""

    NOT_HELD = "leased in the database, but memory does not know"
    NOT_LEASED = "held in memory, but not leased in the database"
    NOT_IN_FLIGHT = "held by a session whose slots do not count it"
    NOT_HELD_IN_FLIGHT = "counted in a session's slots, but not held"
    NO_SESSION = "leased to a session that is not there"
    NOT_IN_WINDOW = "due, but neither in the window nor on its way there"
    NOT_WAITING = "in the window, but it does not wait"
    STALLED = "a window that nobody fills"
    OVERLOOKED = "runs wait beside a free slot, and nothing is about to bring them together"
    UNKNOWN_SESSION = "a session that memory does not know"
    DEAD_SESSION = "a session that the database does not know"
    MISCOUNTED = "a session whose reserved slots were counted wrong"
    UNANSWERED = "reserved, but no lease is being written"
    IDLE_SLOT = "has a slot of a concurrency limit, but does not run"


@dataclass(frozen=True, slots=True)
class Difference:
    """One of them: of a run, a session or a task key (`id`). `attempt` is a session's epoch, or a run's."""

    kind: Kind
    id: str
    session_id: str | None = None
    attempt: int = 0
    task_key: str = ""

    def __str__(self) -> str:
        where = "" if self.session_id in (None, self.id) else f", session {self.session_id}"
        key = "" if not self.task_key else f", key {self.task_key}"
        return f"{self.id} (attempt {self.attempt}{where}{key}): {self.kind}"


class Comparison:
    """Compares facts with memory as it is now: what is being written meanwhile counts as a difference."""

    def __init__(self, clock: Clock, registry: Registry, dispatcher: Dispatcher, due: DueClock) -> None:
        self._clock = clock
        self._registry = registry
        self._dispatcher = dispatcher
        self._due = due

    def of_sessions(self, facts: Facts, ids: Iterable[str]) -> Iterator[Difference]:
        """Compare these sessions."""
        for session_id in ids:
            stored, known = facts.sessions.get(session_id), self._registry.get(session_id)
            if stored is not None and known is None:
                yield Difference(Kind.UNKNOWN_SESSION, session_id, session_id, stored.epoch)
            elif known is not None and (stored is None or stored.epoch != known.epoch):
                yield Difference(Kind.DEAD_SESSION, session_id, session_id, known.epoch)

    def of_runs(self, facts: Facts, ids: Iterable[str]) -> Iterator[Difference]:
        """Compare these runs, and the sessions' lists of what they hold, as far as they name them."""
        holders = {run_id: session for session in self._registry for run_id in session.held}
        in_flight = {
            run_id: session_id
            for session_id in self._dispatcher.sessions
            for run_id in self._dispatcher.in_flight(session_id)
        }
        for run_id in ids:
            fact = facts.runs.get(run_id)
            holder = holders.get(run_id)
            if holder is not None:
                yield from self._held(fact, run_id, holder, in_flight.get(run_id))
            elif run_id in in_flight:
                yield Difference(Kind.NOT_HELD_IN_FLIGHT, run_id, in_flight[run_id])
            if fact is not None:
                yield from self._leased(fact, holder)
                yield from self._waiting(fact)
            yield from self._queued(fact, run_id)

    def _held(
        self, fact: RunFacts | None, run_id: str, holder: Session, in_flight_at: str | None
    ) -> Iterator[Difference]:
        held = holder.held[run_id]
        if fact is None or (fact.session_id, fact.attempt) != (holder.id, held.attempt):
            yield Difference(Kind.NOT_LEASED, run_id, holder.id, held.attempt, held.task_key)
        if in_flight_at != holder.id:
            yield Difference(Kind.NOT_IN_FLIGHT, run_id, holder.id, held.attempt, held.task_key)

    def _leased(self, fact: RunFacts, holder: Session | None) -> Iterator[Difference]:
        if fact.session_id is None or (holder is not None and holder.id == fact.session_id):
            return
        session = self._registry.get(fact.session_id)
        if session is None:
            yield Difference(Kind.NO_SESSION, fact.id, fact.session_id, fact.attempt)
        elif session.since:  # one of the broker before this says what it holds when it comes back
            yield Difference(Kind.NOT_HELD, fact.id, fact.session_id, fact.attempt)

    def _waiting(self, fact: RunFacts) -> Iterator[Difference]:
        key = fact.task_key
        if key is None or not self._can_start(fact):
            return
        window = self._dispatcher.queue(key)
        if window is None or not window.complete or window.refilling or fact.id in window:
            return
        if self._dispatcher.place_of(fact.id) is None and not self._due.expects(key, fact.due):
            yield Difference(Kind.NOT_IN_WINDOW, fact.id, None, fact.attempt, key)

    def _can_start(self, fact: RunFacts) -> bool:
        return fact.state is StateType.SCHEDULED and not fact.withheld and fact.due <= self._clock.now()

    def _queued(self, fact: RunFacts | None, run_id: str) -> Iterator[Difference]:
        if fact is not None and fact.state is StateType.SCHEDULED and not fact.withheld:
            return
        place = self._dispatcher.place_of(run_id)
        if place is not None and place.kind is PlaceKind.QUEUED:
            attempt = 0 if fact is None else fact.attempt
            yield Difference(Kind.NOT_WAITING, run_id, None, attempt, place.task_key)
