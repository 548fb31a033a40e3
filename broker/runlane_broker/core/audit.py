"""The auditor: memory and database compared, and what differs set right. There should never be anything.

Memory runs ahead of the database by what is being written, and a read beside the writer lies behind it by what has
been committed since. So what a first look finds is only suspected; it is looked at again, twice, by operations of
the writer. Their callbacks come in the order of the commits, so that the database is seen as memory has heard of
it, and what was being written at the first of the two is written at the second: what both find is wrong.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from itertools import islice
from typing import Any, Final

from runlane.protocol.states import StateType

from ..clock import Clock
from ..dispatch import Dispatcher, Reservation
from ..storage.facts import Facts, RunFacts
from ..storage.operations.audit import FreeIdleSlots, LookAt
from ..storage.operations.leasing import Release, ReleaseRuns
from ..storage.records import Change, Lease, SessionRecord
from ..storage.store import Store
from .differences import Comparison, Difference, Kind
from .dispatching import RETRY_SECONDS, Dispatching
from .registry import Registry
from .sessions import Sessions
from .transitions import Transitions
from .writing import resolve

logger = logging.getLogger("runlane.audit")

#: Windows that are compared in a pass; the next pass goes on behind them.
KEYS: Final = 50
#: Runs and sessions that are looked at twice in a pass, so that no lease waits long behind it.
SUSPECTS: Final = 200
#: Seconds between the two looks: what is not written, because the database is away, is tried again by then.
SETTLING: Final = 2 * RETRY_SECONDS

_LOST_SIGHT: Final = "The broker had lost sight of the lease."


class Audit:
    """Compares and repairs."""

    def __init__(
        self,
        clock: Clock,
        store: Store,
        registry: Registry,
        dispatcher: Dispatcher,
        dispatching: Dispatching,
        sessions: Sessions,
        transitions: Transitions,
    ) -> None:
        self._clock = clock
        self._store = store
        self._registry = registry
        self._dispatcher = dispatcher
        self._dispatching = dispatching
        self._sessions = sessions
        self._transitions = transitions
        self._compare = Comparison(clock, registry, dispatcher, dispatching.due)
        self._last_key = ""
        self._failures = 0

    async def run(self, *, settling: float = SETTLING) -> list[Difference]:
        """Look at everything (but for more windows than `KEYS`) and return what was wrong, and is set right.

        Each has been logged as a warning. Raises `StoreUnavailable`.
        """
        if self._was_away():
            return []
        found = [Difference(Kind.OVERLOOKED, key, task_key=key) for key in self._dispatching.overlooked_keys()]
        reserved = self._dispatcher.reservations()
        suspects = await self._suspects()
        if suspects or reserved:
            first = await self._look(suspects, lambda now: None)
            unanswered = self._unanswered(reserved)
            if first:
                await asyncio.sleep(settling)
                if self._was_away():
                    return []
                found += await self._look(first, lambda now, first=first: self._repair(now & first)) & first
            found += unanswered
        found += self._of_memory()
        found += await self._idle_slots()
        for difference in found:
            logger.warning("%s; it was set right", difference)
        if found:
            self._dispatching.wake()
        return found

    def _was_away(self) -> bool:
        """Say whether the database has refused anything since this was last asked.

        Reports are dropped then, and their runs forgotten: workers repeat them within seconds. Until they have,
        memory and database differ, and rightly so; the next pass sees what is left.
        """
        before, self._failures = self._failures, self._store.failures
        return self._failures != before

    # Looking -------------------------------------------------------------------------------------------------

    async def _suspects(self) -> set[Difference]:
        """Compare everything with what a read beside the writer finds."""
        facts = await self._store.facts.leases()
        ids = set(facts.runs)
        for key in self._next_keys():
            ids |= await self._read_window(key, facts)
        for session in self._registry:
            ids.update(session.held, self._dispatcher.in_flight(session.id))
        sessions = {session.id for session in self._registry} | set(facts.sessions)
        found = [*self._compare.of_sessions(facts, sessions), *self._compare.of_runs(facts, ids)]
        return set(found[:SUSPECTS])

    def _next_keys(self) -> list[str]:
        """Return the next keys in turn."""
        keys = sorted(self._dispatcher.demanded_keys())
        later = list(islice((key for key in keys if key > self._last_key), KEYS))
        self._last_key = later[-1] if len(later) == KEYS else ""
        return later

    async def _read_window(self, key: str, facts: Facts) -> set[str]:
        """Read what should be in a window, if all of its key should be; return what should be and what is."""
        window = self._dispatcher.queue(key)
        if window is None or not window.complete:
            return set()
        waiting = (await self._store.refill(key, self._clock.now(), window.size + 1)).queued
        for run in waiting:
            facts.runs.setdefault(run.id, RunFacts(run.id, StateType.SCHEDULED, None, 0, run.due, key))
        return {run.id for run in waiting} | {run.id for run in window}

    async def _look(
        self, suspects: Collection[Difference], then: Callable[[set[Difference]], None]
    ) -> set[Difference]:
        """Look again, in step with the writer; `then` is called with the finds before anything else happens."""
        future: asyncio.Future[set[Difference]] = asyncio.get_running_loop().create_future()
        sessions = {one.id for one in suspects if one.session_id == one.id}
        runs = {one.id for one in suspects} - sessions

        def looked(outcome: Any) -> None:
            if isinstance(outcome, Facts):
                found = {*self._compare.of_sessions(outcome, sessions), *self._compare.of_runs(outcome, runs)}
                then(found)
                outcome = found
            resolve(future, outcome)

        self._store.submit(LookAt(tuple(sessions), tuple(runs)), looked)
        return await future

    # Setting right -------------------------------------------------------------------------------------------

    def _repair(self, differences: Collection[Difference]) -> None:
        for difference in differences:
            self._repair_one(difference)

    def _repair_one(self, it: Difference) -> None:
        """The database is the truth; a lease that memory has lost sight of is over, and its run starts again."""
        holder = it.session_id or ""
        match it.kind:
            case Kind.NOT_LEASED:
                self._end_hold(it)
            case Kind.NOT_HELD | Kind.NO_SESSION | Kind.NOT_IN_FLIGHT:
                self._end_hold(it)
                release = ReleaseRuns(holder, (Release(it.id, it.attempt, _LOST_SIGHT),))
                self._dispatching.persist(release, self._dispatching.given_back)
            case Kind.NOT_HELD_IN_FLIGHT:
                self._dispatcher.release(holder, it.id)
            case Kind.NOT_IN_WINDOW:
                self._dispatcher.mark_due(it.task_key)
            case Kind.NOT_WAITING:
                self._dispatcher.remove(it.task_key, it.id)
            case Kind.UNKNOWN_SESSION:
                self._sessions.adopt(SessionRecord(it.id, it.attempt, f"of session {it.id}"))
            case Kind.DEAD_SESSION:
                self._end_session(it.id)
            case _:
                raise AssertionError(f"{it.kind} is not found by comparing")

    def _end_hold(self, it: Difference) -> None:
        """Free the slot, and tell the worker."""
        session = self._registry.get(it.session_id or "")
        if session is None:
            return
        if it.id in session.held:
            self._transitions.settle([Change(it.id, it.task_key, ended=Lease(session.id, it.attempt))])
        elif session.port is not None:
            session.port.lease_lost(it.id, it.attempt)

    def _end_session(self, session_id: str) -> None:
        """The worker comes back, and gets a new session."""
        session = self._registry.get(session_id)
        if session is not None:
            self._sessions.shut(session, "the session is not known any more")
            self._sessions.quit(session)

    # What memory or database say of themselves ---------------------------------------------------------------

    def _unanswered(self, reserved: Collection[Reservation]) -> list[Difference]:
        """Give up reservations whose lease should have been written before the look that is just over."""
        standing = set(map(id, self._dispatcher.reservations()))
        found = [reservation for reservation in reserved if id(reservation) in standing]
        for reservation in found:
            self._dispatcher.abort(reservation)
        return [Difference(Kind.UNANSWERED, it.run.id, it.session_id, it.epoch, it.run.task_key) for it in found]

    def _of_memory(self) -> list[Difference]:
        stalled = self._dispatcher.stalled_keys()
        for key in stalled:
            self._dispatcher.mark_due(key)
        return [
            *(Difference(Kind.STALLED, key, task_key=key) for key in stalled),
            *(Difference(Kind.MISCOUNTED, session_id, session_id) for session_id in self._dispatcher.recount()),
        ]

    async def _idle_slots(self) -> list[Difference]:
        idle = await self._store.facts.idle_slots()
        freed = await self._store.run(FreeIdleSlots(idle)) if idle else ()
        return [Difference(Kind.IDLE_SLOT, run_id) for run_id in freed]
