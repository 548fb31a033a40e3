"""Sessions: subscribe, resume, disconnect, lose, quit."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from runlane.protocol.closing import CloseCode
from runlane.protocol.ids import uuid7
from runlane.protocol.messages import HeldRun, Subscribe, Subscribed

from ..clock import Clock
from ..dispatch import Dispatcher
from ..errors import StoreUnavailable
from ..settings import Settings
from ..storage.operations.leasing import Release, ReleaseRuns
from ..storage.operations.sessions import EndSession, OpenSession, ResumeSession, hash_token
from ..storage.queue_records import QueueChange, Served
from ..storage.records import Freed, Resumption, SessionRecord
from ..storage.store import Store
from .dispatching import Dispatching, pool_settings
from .ports import CANCEL_GRACE_SECONDS, SessionPort
from .registry import Held, Registry, Session

logger = logging.getLogger("runlane.sessions")

#: Called with the session and the answer to send before anything is pushed, or with an exception.
Opened = Callable[["Session | None", "Subscribed | Exception"], None]


class Sessions:
    """Who serves which keys, and what becomes of a session that breaks."""

    def __init__(
        self,
        broker_id: str,
        settings: Settings,
        clock: Clock,
        store: Store,
        dispatcher: Dispatcher,
        dispatching: Dispatching,
        registry: Registry,
        queue_changes: Callable[[Iterable[QueueChange]], None],
    ) -> None:
        self._broker_id = broker_id
        self._settings = settings
        self._clock = clock
        self._store = store
        self._dispatcher = dispatcher
        self._dispatching = dispatching
        self._registry = registry
        self._queue_changes = queue_changes

    # Opening -------------------------------------------------------------------------------------------------

    def subscribe(self, port: SessionPort, frame: Subscribe, opened: Opened) -> None:
        """Open a session, or take up the one that the frame names.

        `opened` sends its `Subscribed` before it returns: runs are pushed right after. A session that cannot be
        resumed (unknown, ended, wrong token) is replaced by a new one, and all it held is lost. A work queue that
        is not there is refused (`Refused`), and nothing is opened; one that is resumed goes on without it.
        """
        if frame.session is None or frame.resume_token is None:
            self._open(port, frame, opened)
            return
        running = tuple((run.id, run.attempt) for run in frame.running)
        operation = ResumeSession(frame.session, self._broker_id, frame.resume_token, running, frame.queues)
        self._store.submit(operation, partial(self._resumed, port, frame, frame.resume_token, opened))

    def _open(self, port: SessionPort, frame: Subscribe, opened: Opened) -> None:
        token = secrets.token_urlsafe(16)
        operation = OpenSession(uuid7(), self._broker_id, frame.client_id, hash_token(token), queues=frame.queues)
        answer = Subscribed(session=operation.session_id, resume_token=token, lost=frame.running)
        session = Session(operation.session_id, 1, frame.client_id)
        self._store.submit(operation, partial(self._opened, port, frame, session, answer, opened))

    def _opened(
        self,
        port: SessionPort,
        frame: Subscribe,
        session: Session,
        answer: Subscribed,
        opened: Opened,
        outcome: Any,
    ) -> None:
        if isinstance(outcome, Exception):
            opened(None, outcome)
            return
        served = len(frame.keys) + len(frame.queues)
        logger.info("worker %s subscribed; limit %d, keys: %d", session.client_id, frame.limit, served)
        self._connect(port, frame, session, answer, outcome, opened)

    def _resumed(self, port: SessionPort, frame: Subscribe, token: str, opened: Opened, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            opened(None, outcome)
            return
        if outcome is None:
            self._open(port, frame, opened)
            return
        assert frame.session is not None, "only named sessions are resumed"
        resumption: Resumption = outcome
        self._supersede(frame.session)
        session = Session(frame.session, resumption.epoch, frame.client_id)
        now = self._clock.monotonic()
        for run in resumption.held:
            session.held[run.id] = Held(run.attempt, run.task_key, now, run.started)
        answer = Subscribed(
            session=session.id,
            resume_token=token,  # the same: this answer may be lost, and then the worker knows no other
            resumed=(*(run.id for run in resumption.held), *resumption.reported),
            lost=tuple(HeldRun(id=run_id, attempt=attempt) for run_id, attempt in resumption.lost),
        )
        logger.info(
            "worker %s is back: %d runs resumed, %d lost, %d never arrived",
            session.client_id,
            len(answer.resumed),
            len(answer.lost),
            len(resumption.freed.queued),
        )
        for name in resumption.served.gone:
            logger.warning("worker %s serves a work queue that is gone: %s", session.client_id, name)
        self._connect(port, frame, session, answer, resumption.served, opened)
        for run in resumption.held:
            if run.cancelling and session.port is not None:  # it may have been told, or not have heard it
                session.port.cancel(run.id, run.attempt, CANCEL_GRACE_SECONDS)
        self._dispatching.freed(resumption.freed)

    def _supersede(self, session_id: str) -> None:
        """The session has come back: an old socket that still seems alive is not."""
        earlier = self._registry.get(session_id)
        if earlier is not None and earlier.port is not None:
            port, earlier.port = earlier.port, None
            port.close(CloseCode.SUPERSEDED, "this session was resumed on another connection")

    def _connect(
        self,
        port: SessionPort,
        frame: Subscribe,
        session: Session,
        answer: Subscribed,
        served: Served,
        opened: Opened,
    ) -> None:
        session.port = port
        session.last_seen = self._clock.monotonic()
        session.since = self._clock.now()
        session.task_keys = tuple(sorted(set(frame.keys)))
        session.queues = tuple(sorted(set(frame.queues)))
        session.queue_keys = frozenset(served.keys)
        self._registry.add(session)
        held = [(run_id, run.task_key) for run_id, run in session.held.items()]
        keys, pools = (*frame.keys, *served.keys), map(pool_settings, served.pools)
        self._dispatcher.subscribe(session.id, session.epoch, keys, frame.limit, held, pools)
        self._queue_changes(served.changes)
        opened(session, answer)  # may find its connection gone, and disconnect what is subscribed
        self._dispatching.wake()

    # Living --------------------------------------------------------------------------------------------------

    def seen(self, session: Session) -> None:
        """A frame came."""
        session.last_seen = self._clock.monotonic()

    def set_limit(self, session: Session, limit: int) -> None:
        """The worker's slots changed."""
        self._dispatcher.set_limit(session.id, limit)
        self._dispatching.wake()

    def set_congested(self, session: Session, *, congested: bool) -> None:
        """The connection does (not) take what it is sent: push nothing more until it does."""
        if congested:
            self._dispatcher.pause(session.id)
        else:
            self._dispatcher.unpause(session.id)
            self._dispatching.wake()

    # Ending --------------------------------------------------------------------------------------------------

    def disconnected(self, session: Session) -> None:
        """The socket is gone, for whatever reason: the session has the grace to come back."""
        if self._registry.get(session.id) is not session:
            return
        session.port = None
        session.grace_until = self._clock.monotonic() + self._settings.timers.resume
        self._dispatcher.disconnect(session.id, session.epoch)

    def quit(self, session: Session) -> None:
        """The worker ends its session: all it holds is given back at once, and counts for nothing."""
        self._end(session, "The worker quit.", lost=False)

    def lose(self, session: Session) -> None:
        """The session did not come back."""
        self._end(session, "The worker was lost.", lost=True)

    def shut(self, session: Session, reason: str) -> None:
        """Close an unresponsive connection; from now on nothing is pushed to it, not even what it gives up."""
        self._dispatcher.disconnect(session.id, session.epoch)
        if session.port is not None:
            session.port.close(CloseCode.UNRESPONSIVE, reason)

    def deaf(self, session: Session) -> None:
        """The worker was sent runs and says nothing of them: close, and give those runs to others."""
        timeout = self._settings.timers.start
        now = self._clock.monotonic()
        late = [(i, run) for i, run in session.held.items() if not run.started and now - run.since >= timeout]
        self.shut(session, f"a run was not started within {timeout:g} s")
        reason = f"The worker did not start the run within {timeout:g} s."
        for run_id, _ in late:
            del session.held[run_id]
            self._dispatcher.release(session.id, run_id)
        releases = tuple(Release(run_id, run.attempt, reason) for run_id, run in late)
        self._dispatching.persist(ReleaseRuns(session.id, releases), self._freed)

    def adopt(self, record: SessionRecord) -> Session:
        """A session of the broker before this one: it has the grace from now on, never from its last beat."""
        return self._expect_back(record.id, record.epoch, record.client_id)

    def _expect_back(self, session_id: str, epoch: int, client_id: str) -> Session:
        """Wait for a session that says itself, when it comes back, what it holds."""
        session = Session(session_id, epoch, client_id)
        session.grace_until = self._clock.monotonic() + self._settings.timers.resume
        self._registry.add(session)
        return session

    def _end(self, session: Session, reason: str, *, lost: bool) -> None:
        if not self._registry.remove(session):
            return
        session.port = None
        self._dispatcher.end_session(session.id)
        operation = EndSession(session.id, session.epoch, reason, lost, self._settings.max_losses)
        write = self._store.submit if lost else self._dispatching.persist
        # A report whose write is tried again comes first: what it says has happened.
        session.once_written(partial(write, operation, partial(self._ended, session, lost)))

    def _ended(self, session: Session, lost: bool, outcome: Any) -> None:
        if lost and isinstance(outcome, StoreUnavailable):
            self._keep_waiting(session)
            return
        if isinstance(outcome, Freed):
            held = bool(outcome.queued or outcome.final)
            what = "quit" if not lost else "was lost" if held else "has left without a word"
            level = logging.WARNING if lost and held else logging.INFO
            counts = len(outcome.queued), len(outcome.final)
            logger.log(
                level,
                "worker %s %s; runs it still held: %d queued again, %d ended",
                session.client_id,
                what,
                *counts,
            )
        for run in outcome.final if isinstance(outcome, Freed) else ():
            logger.warning("run %s of %s is %s: %s", run.id, run.task_key, run.name, run.message)
        self._freed(outcome)

    def _keep_waiting(self, session: Session) -> None:
        """The database was away: its end was not written, and the session may have been unable to come back."""
        if self._registry.get(session.id) is None:
            self._expect_back(session.id, session.epoch, session.client_id)

    def renew_graces(self) -> None:
        """The database is back: who could not resume meanwhile has the whole grace from now."""
        for session in self._registry:
            if session.grace_until is not None:
                session.grace_until = self._clock.monotonic() + self._settings.timers.resume

    def _freed(self, outcome: Any) -> None:
        if isinstance(outcome, Freed):
            self._dispatching.freed(outcome)
        self._dispatching.wake()
