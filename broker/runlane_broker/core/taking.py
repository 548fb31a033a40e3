"""Sessions of workers that take runs one at a time and acknowledge each: Prefect's.

They are sessions like all others, with the same leases and lanes. What is different: such a worker knows of no
session and no attempt, lists nothing, sends no beats, and acknowledges a run on receipt, before it starts.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from runlane.protocol.ids import uuid7

from ..clock import Clock
from ..dispatch import Dispatcher
from ..storage.operations.leasing import Release, ReleaseRuns
from ..storage.operations.sessions import OpenSession
from ..storage.operations.taking import AcknowledgeRun, TakeUpSession
from ..storage.records import PREFECT, LeasedRun, Resumption
from ..storage.store import Store
from .dispatching import Dispatching
from .pace import SLOW_SECONDS, Pace
from .ports import TakerPort
from .registry import Held, Registry, Session
from .sessions import Sessions

logger = logging.getLogger("runlane.sessions")

#: Who comes with the same client id within this time of the loss of its connection, or of this broker's start, is
#: the same process: it tries again every 0.5 s, and a fresh one takes longer to load its code. Seconds.
SAME_PROCESS_SECONDS: Final = 1.5

_NOT_SENT: Final = "The run had not been sent yet."
_EXPIRED: Final = "The run expired before it was sent."

#: Called with the session that was opened or taken up, before anything is pushed; or with None: it cannot be now.
Opened: TypeAlias = Callable[["Session | None"], None]


class Subscription:
    """A `Taker`: one session of a worker that acknowledges, and how fast it may be given runs."""

    def __init__(self, session: Session, clock: Clock, dispatcher: Dispatcher, dispatching: Dispatching) -> None:
        self.pace = Pace()
        self.port: TakerPort | None = None
        self._session = session
        self._clock = clock
        self._dispatcher = dispatcher
        self._dispatching = dispatching
        #: What was leased and not sent yet.
        self._ready: deque[LeasedRun] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._slow_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Subscription of {self._session!r}, {self.pace!r}, {len(self._ready)} ready>"

    def push(self, runs: Sequence[LeasedRun]) -> None:
        """Send the first of the runs that were leased, and the others one by one as they are acknowledged."""
        self._ready.extend(runs)
        self.adjust()

    def acknowledged(self) -> str | None:
        """The worker has received what it was sent; None if that was nothing."""
        run_id = self.pace.sent
        self.pace.acknowledge(self._clock.monotonic())
        self.adjust()
        return run_id

    def reported(self, run_id: str) -> None:
        """A state of a run was recorded; the lease goes on. Of one that was not sent somebody else has said it."""
        if all(run.id != run_id for run in self._ready):
            self.pace.report(run_id)
        self.adjust()

    def left(self, run_id: str) -> None:
        """A lease is over."""
        self._ready = deque(run for run in self._ready if run.id != run_id)
        self.pace.leave(run_id, self._clock.monotonic())
        self.adjust()

    def adjust(self) -> None:
        """Send what may be sent, say what else may be leased, and look again when that changes."""
        self._rest()
        if self._session.port is None:
            return
        now = self._clock.monotonic()
        self._send_ready(now)
        ahead = self.pace.ahead(now)
        if not ahead and (not self.pace.keeps(now) or self._is_wanted()):
            self.give_back([run.id for run in self._ready], _NOT_SENT)
        free_at = self.pace.free_at(now)
        free = free_at is not None and free_at <= now
        self._offer(free, ahead)
        if free_at is not None and not free:
            self._timer = asyncio.get_running_loop().call_later(free_at - now, self._pass_over)
        if self._ready and self._slow_timer is None:
            seconds = self.pace.slow_at - now if ahead else SLOW_SECONDS
            self._slow_timer = asyncio.get_running_loop().call_later(seconds, self._look_again)

    def _send_ready(self, now: float) -> None:
        while self._ready and self._may_send(now):
            run = self._ready.popleft()
            if run.expires is not None and run.expires <= self._clock.now():
                self.give_back([run.id], _EXPIRED)
                continue
            assert run.shown is not None, "leased to who reads it as it is shown"
            assert self.port is not None, "pushed to who is connected"
            self.pace.send(run.id, now)
            self.port.task_run(run.shown)

    def _may_send(self, now: float) -> bool:
        free_at = self.pace.free_at(now)
        return free_at is not None and free_at <= now

    def _is_wanted(self) -> bool:
        """Say whether somebody else waits for what is ready."""
        return any(self._dispatcher.has_free_slot(key) for key in {run.task_key for run in self._ready})

    def _offer(self, free: bool, ahead: int) -> None:
        """Let the session have one more run than it was sent, or none; and, once half are gone, some ahead."""
        waiting = len(self._ready) + self._dispatcher.reserved(self._session.id)
        ahead = ahead if waiting <= ahead // 2 else 0
        sent = len(self._session.held) - len(self._ready)
        self._dispatcher.set_limit(self._session.id, sent + free, ahead)
        if free or ahead:
            self._dispatching.wake()

    def give_back(self, run_ids: Sequence[str], reason: str) -> None:
        """Let others have runs that were sent in vain, or not at all. It counts for nothing."""
        releases: list[Release] = []
        for run_id in run_ids:
            held = self._session.held.pop(run_id, None)
            if held is not None:
                self._dispatcher.release(self._session.id, run_id)
                releases.append(Release(run_id, held.attempt, reason))
        if not releases:
            return
        gone = frozenset(run_ids)
        self._ready = deque(run for run in self._ready if run.id not in gone)
        self._dispatching.persist(ReleaseRuns(self._session.id, tuple(releases)), self._dispatching.given_back)

    def cancelled(self, run_id: str) -> None:
        """A run shall stop: that is possible here as long as it was not sent."""
        if any(run.id == run_id for run in self._ready):
            self.give_back([run_id], _NOT_SENT)
            self.adjust()

    def disconnected(self) -> None:
        """The connection is gone, and with it what was not acknowledged."""
        self._rest()
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None
        self.port = None
        sent = self.pace.sent
        if sent in self.pace.acknowledged:  # it has been reported meanwhile, on the other connection
            self.pace.acknowledge(self._clock.monotonic())
        elif sent is not None:
            self.pace.leave(sent, self._clock.monotonic())
            self.give_back([sent], "The worker did not acknowledge the run.")
        self.give_back([run.id for run in self._ready], "The connection broke before the run was sent.")

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass_over(self) -> None:
        self.pace.pass_over(self._clock.monotonic())
        self.adjust()

    def _look_again(self) -> None:
        self._slow_timer = None
        self.adjust()


class Taking:
    """Subscribes workers that acknowledge, takes their sessions up again, and lets them go."""

    def __init__(
        self,
        broker_id: str,
        clock: Clock,
        store: Store,
        dispatcher: Dispatcher,
        dispatching: Dispatching,
        registry: Registry,
        sessions: Sessions,
    ) -> None:
        self._broker_id = broker_id
        self._clock = clock
        self._store = store
        self._dispatcher = dispatcher
        self._dispatching = dispatching
        self._registry = registry
        self._sessions = sessions
        #: Sessions whose connection is gone, by client id, with the time (monotonic) until which they can be taken
        #: up. None: several have this client id, and whose process comes cannot be told.
        self._away: dict[str, tuple[Session | None, float]] = {}

    def __repr__(self) -> str:
        return f"<Taking {len(self._away)} away>"

    # Opening -------------------------------------------------------------------------------------------------

    def subscribe(self, port: TakerPort, client_id: str, keys: Sequence[str], opened: Opened) -> None:
        """Open a session, or take up the one that this very process had a moment ago."""
        earlier = self._take_away(client_id)
        if earlier is None:
            self._open(port, client_id, keys, opened)
            return
        acknowledged = _subscription(earlier).pace.acknowledged
        operation = TakeUpSession(earlier.id, earlier.epoch, self._broker_id, acknowledged)
        self._store.submit(operation, partial(self._taken_up, port, earlier, keys, opened))

    def _take_away(self, client_id: str) -> Session | None:
        session, until = self._away.pop(client_id, (None, 0.0))
        if session is None or self._clock.monotonic() > until:
            return None
        return session if self._registry.get(session.id) is session and session.port is None else None

    def _open(self, port: TakerPort, client_id: str, keys: Sequence[str], opened: Opened) -> None:
        session = Session(uuid7(), 1, client_id)
        operation = OpenSession(session.id, self._broker_id, client_id, b"", PREFECT)
        self._store.submit(operation, partial(self._opened, port, session, keys, opened))

    def _opened(
        self, port: TakerPort, session: Session, keys: Sequence[str], opened: Opened, outcome: Any
    ) -> None:
        if isinstance(outcome, Exception):
            opened(None)
            return
        logger.info("Prefect worker %s subscribed; keys: %d", session.client_id, len(keys))
        self._connect(port, session, Pace(), keys, opened)

    def _taken_up(
        self, port: TakerPort, earlier: Session, keys: Sequence[str], opened: Opened, outcome: Any
    ) -> None:
        if isinstance(outcome, Exception):
            self._keep_away(earlier)
            opened(None)
            return
        if outcome is None:
            self._open(port, earlier.client_id, keys, opened)
            return
        resumption: Resumption = outcome
        session = Session(earlier.id, resumption.epoch, earlier.client_id)
        now = self._clock.monotonic()
        for run in resumption.held:
            session.held[run.id] = Held(run.attempt, run.task_key, now, run.started)
        queued = len(resumption.freed.queued)
        logger.info(
            "Prefect worker %s is back: %d runs resumed, %d never arrived",
            session.client_id,
            len(session.held),
            queued,
        )
        pace = _subscription(earlier).pace
        pace.adopt(frozenset(session.held), resumption.silent, now)
        self._connect(port, session, pace, keys, opened)
        self._dispatching.freed(resumption.freed)

    def _connect(self, port: TakerPort, session: Session, pace: Pace, keys: Sequence[str], opened: Opened) -> None:
        subscription = self._subscription(session)
        subscription.pace = pace
        subscription.port = session.port = port
        session.last_seen = self._clock.monotonic()
        session.since = self._clock.now()
        session.task_keys = tuple(sorted(set(keys)))
        self._registry.add(session)
        held = [(run_id, run.task_key) for run_id, run in session.held.items()]
        self._dispatcher.subscribe(session.id, session.epoch, keys, len(held), held)
        subscription.adjust()
        self._dispatching.wake()  # its keys may be new, whether or not it has a free slot
        opened(session)  # may find its connection gone, and disconnect what is subscribed

    # Living --------------------------------------------------------------------------------------------------

    def acknowledged(self, session: Session) -> bool:
        """The worker has received what it was sent. False, and without effect, if that was nothing."""
        subscription = _subscription(session)
        run_id = subscription.acknowledged()
        held = None if run_id is None else session.held.get(run_id)
        if run_id is not None and held is not None and subscription.pace.may_report:
            self._store.submit(AcknowledgeRun(session.id, run_id, held.attempt), _ignore)
        return run_id is not None

    def left(self, session: Session, run_id: str) -> None:
        """A lease is over."""
        _subscription(session).left(run_id)

    def cancelled(self, session: Session, run_id: str) -> None:
        """A run shall stop."""
        _subscription(session).cancelled(run_id)

    # Ending --------------------------------------------------------------------------------------------------

    def adopt(self, session: Session) -> None:
        """A session of the broker before this one. What it had acknowledged is in the database."""
        self._subscription(session)
        self._keep_away(session)

    def disconnected(self, session: Session) -> None:
        """The connection is gone: what was not acknowledged is given back, the rest waits for the worker."""
        if self._registry.get(session.id) is not session:
            return
        self._sessions.disconnected(session)
        _subscription(session).disconnected()
        self._forget_old()
        self._keep_away(session)

    def _keep_away(self, session: Session) -> None:
        now = self._clock.monotonic()
        _, other_until = self._away.get(session.client_id, (None, -math.inf))
        only = session if now > other_until else None
        self._away[session.client_id] = (only, now + SAME_PROCESS_SECONDS)

    def _forget_old(self) -> None:
        now = self._clock.monotonic()
        self._away = {client: (session, until) for client, (session, until) in self._away.items() if until >= now}

    def _subscription(self, session: Session) -> Subscription:
        """Make what a session of such a worker has beside the session."""
        session.taker = Subscription(session, self._clock, self._dispatcher, self._dispatching)
        return session.taker


def _ignore(outcome: Any) -> None:
    """Should it not have been written, the run may be sent a second time after a restart."""


def _subscription(session: Session) -> Subscription:
    assert isinstance(session.taker, Subscription), "made with the session"
    return session.taker
