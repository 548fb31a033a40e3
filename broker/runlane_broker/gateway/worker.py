"""The worker socket: subscriptions up, runs down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from starlette.websockets import WebSocket

from runlane.protocol import codec
from runlane.protocol import messages as m
from runlane.protocol.closing import CloseCode
from runlane.protocol.conversation import worker_conversation
from runlane.protocol.limits import MAX_LIMIT

from ..access import Access
from ..core.core import Core
from ..core.registry import Session
from ..errors import Refused
from .connection import Connection, Handler, logger, stranger

#: What a report costs that comes too late. A worker that was lost is told which runs are not its own any more.
_VAIN_REPORT = 4.0
#: For how many a report counts, while it waits, of a run that the session does not hold: it is repeated, or in
#: vain. A worker has eight of those under way at most, for everybody waits for the commit that they are part of.
_STRANGE_WEIGHT = 4 * MAX_LIMIT // 8


class WorkerConnection(Connection):
    """A worker's connection; to the core it is a `SessionPort`."""

    #: All that an honest worker can have to say of the runs it holds, repeats included.
    unprocessed_limit = 4 * MAX_LIMIT

    def __init__(self, socket: WebSocket, core: Core, access: Access) -> None:
        super().__init__(socket, core, access, worker_conversation(), codec.WORKER_UP)
        self._session: Session | None = None
        self._gone = False

    # Up ----------------------------------------------------------------------------------------------------

    async def _take(self, text: str) -> None:
        self._lives()
        await super()._take(text)

    def on_unheard(self) -> None:
        """It isn't silent: it is not read."""
        self._lives()

    def _lives(self) -> None:
        if self._session is not None:
            self._core.sessions.seen(self._session)

    def _on_subscribe(self, frame: m.Subscribe, _size: int) -> None:
        self._core.sessions.subscribe(self, frame, self._opened)

    def _opened(self, session: Session | None, answer: m.Subscribed | Exception) -> None:
        if isinstance(answer, Refused):
            self.send(m.Error(code=answer.code, message=answer.message, frame="subscribe", field=answer.field))
            self.close(CloseCode.PROTOCOL_VIOLATION, f"subscribe was refused: {answer.message}")
            return
        if session is None or isinstance(answer, Exception):
            self.close(CloseCode.OVERLOADED, "the database cannot be written now")
            return
        if self._gone:
            self._core.sessions.disconnected(session)
            return
        self._session = session
        self.send(answer)

    def _on_started(self, frame: m.Started, size: int) -> None:
        self._core.reports.started(self._subscribed(), frame, self.hold(size, self._weight(frame)))

    def _on_progress(self, frame: m.Progress, _size: int) -> None:
        self._core.reports.progress(self._subscribed(), frame)

    def _on_finished(self, frame: m.Finished, size: int) -> None:
        self._core.reports.finished(self._subscribed(), frame, self.hold(size, self._weight(frame)))

    def _weight(self, frame: m.Started | m.Finished) -> int:
        held = self._subscribed().held.get(frame.id)
        return 1 if held is not None and held.attempt == frame.attempt else _STRANGE_WEIGHT

    def _on_release(self, frame: m.Release, size: int) -> None:
        self._core.reports.released(self._subscribed(), frame.runs, self.hold(size))

    def _on_limit(self, frame: m.SetLimit, _size: int) -> None:
        self._core.sessions.set_limit(self._subscribed(), frame.limit)

    def _on_quit(self, _frame: m.Quit, _size: int) -> None:
        if self._session is not None:
            self._core.sessions.quit(self._session)
        self.close(CloseCode.NORMAL, "goodbye")

    def _subscribed(self) -> Session:
        assert self._session is not None, "the conversation lets nothing through before `subscribed`"
        return self._session

    handlers: ClassVar[Mapping[type[m.Frame], Handler]] = {
        m.Auth: Connection.on_auth,
        m.Subscribe: _on_subscribe,
        m.Beat: Connection.on_beat,
        m.Started: _on_started,
        m.Progress: _on_progress,
        m.Finished: _on_finished,
        m.Release: _on_release,
        m.SetLimit: _on_limit,
        m.Quit: _on_quit,
    }

    # Down: SessionPort -------------------------------------------------------------------------------------

    def runs(self, runs: Sequence[m.PushedRun]) -> None:
        """Push leased runs."""
        self._talk.become_known()
        self.send(m.Runs(runs=tuple(runs)))

    def recorded(self, run_id: str, attempt: int, *, gone: bool = False) -> None:
        """Tell that a report is committed."""
        self.send(m.Recorded(runs=(m.RecordedRun(id=run_id, attempt=attempt, gone=gone),)))
        if gone:
            self.in_vain(_VAIN_REPORT)
        else:
            self.of_use()

    def lease_lost(self, run_id: str, attempt: int) -> None:
        """Tell that a lease is over."""
        self.send(m.LeaseLost(id=run_id, attempt=attempt))
        self.in_vain(_VAIN_REPORT)

    def cancel(self, run_id: str, attempt: int, grace_seconds: float) -> None:
        """Ask to stop a run."""
        self.send(m.CancelRun(id=run_id, attempt=attempt, grace_seconds=grace_seconds))

    def draining(self, retry_after: float) -> None:
        """Tell that the broker goes down."""
        self.send(m.Draining(retry_after_seconds=retry_after))

    def close(self, code: CloseCode, reason: str) -> None:
        """Close; what is not ordinary is worth a line."""
        if self._closing is None and code not in (CloseCode.NORMAL, CloseCode.RESTART):
            client = stranger(self._socket) if self._session is None else self._session.client_id
            logger.warning("closing %s: %d %s", client, code, reason)
        super().close(code, reason)

    # Life --------------------------------------------------------------------------------------------------

    def on_congested(self) -> None:
        """Push nothing more for now."""
        if self._session is not None:
            self._core.sessions.set_congested(self._session, congested=True)

    def on_clear(self) -> None:
        """Push again."""
        if self._session is not None:
            self._core.sessions.set_congested(self._session, congested=False)

    def on_closed(self) -> None:
        """The session may come back on another connection."""
        self._gone = True
        if self._session is not None:
            self._core.sessions.disconnected(self._session)
