"""Reports: what workers say of the runs they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from runlane.protocol import messages as m
from runlane.protocol.errors import ErrorCode, FrameRefused
from runlane.protocol.limits import MAX_MESSAGE_BYTES
from runlane.protocol.payloads import check_payload
from runlane.protocol.states import StateName, StateType

from ..clock import Clock
from ..dispatch import Dispatcher
from ..orchestration.decisions import Proposed
from ..storage.operations.leasing import FinishRun, Release, ReleaseRuns, StartRun
from ..storage.records import Freed, Reported, Verdict
from .dispatching import Dispatching
from .hub import Hub, Progress
from .ports import CANCEL_GRACE_SECONDS
from .registry import Session

#: Called when a report needs no more attention.
Settled = Callable[[], None]

#: Bytes of result and error together: with the rest of the frame they must fit into one message.
MAX_OUTCOME_BYTES: Final = MAX_MESSAGE_BYTES - 128 * 1024


class Reports:
    """Writes reports under the fence and tells the worker its verdict."""

    def __init__(self, clock: Clock, dispatcher: Dispatcher, dispatching: Dispatching, hub: Hub) -> None:
        self._clock = clock
        self._dispatcher = dispatcher
        self._dispatching = dispatching
        self._hub = hub

    def started(self, session: Session, frame: m.Started, settled: Settled) -> None:
        """A run has begun. No answer, unless the lease is over or a cancel is on its way."""
        if self._is_given_back(session, frame.id, frame.attempt, settled):
            return
        held = session.held.get(frame.id)
        if held is not None and held.attempt == frame.attempt:
            held.started = True
        operation = StartRun(session.id, frame.id, frame.attempt, self._clock.now())
        self._dispatching.persist(operation, partial(self._start_written, session, frame, settled))

    def _start_written(self, session: Session, frame: m.Started, settled: Settled, outcome: Any) -> None:
        settled()
        if session.port is None:
            return
        if outcome is Verdict.LEASE_LOST:
            self._drop(session, frame.id, frame.attempt)
            session.port.lease_lost(frame.id, frame.attempt)
            self._dispatching.wake()  # its slot is free; and the run itself may have waited for no more than this
        elif outcome is Verdict.CANCELLING:
            session.port.cancel(frame.id, frame.attempt, CANCEL_GRACE_SECONDS)

    def progress(self, session: Session, frame: m.Progress) -> None:
        """A run is further. Kept in memory, for a lease that is held."""
        held = session.held.get(frame.id)
        if held is not None and held.attempt == frame.attempt:
            self._hub.progressed(frame.id, Progress(frame.current, frame.total, frame.message))

    def finished(self, session: Session, frame: m.Finished, settled: Settled) -> None:
        """A run has ended. Its slot is free at once; the next lease goes into the same commit as this report."""
        if self._is_given_back(session, frame.id, frame.attempt, settled):
            return
        session.finished[frame.id, frame.attempt] += 1
        self._drop(session, frame.id, frame.attempt)
        operation = _finish(session.id, frame, self._clock.now())
        self._dispatching.persist(operation, partial(self._finish_written, session, frame, settled))
        self._dispatching.wake()

    def _finish_written(self, session: Session, frame: m.Finished, settled: Settled, outcome: Any) -> None:
        settled()
        session.finished[frame.id, frame.attempt] -= 1
        if not session.finished[frame.id, frame.attempt]:
            del session.finished[frame.id, frame.attempt]
            session.written()
        if not isinstance(outcome, Reported):
            return  # the worker keeps the report and sends it again
        if session.port is not None:
            if outcome.verdict is Verdict.LEASE_LOST:
                session.port.lease_lost(frame.id, frame.attempt)
            else:
                session.port.recorded(frame.id, frame.attempt, gone=outcome.verdict is Verdict.GONE)
        if outcome.final is not None:
            self._dispatching.free_slot(outcome.final.task_key)
            self._hub.finished(outcome.final)
        if outcome.queued is not None:
            self._dispatching.free_slot(outcome.queued.task_key)
            self._hub.forget_progress(frame.id)
            self._dispatching.queue(outcome.queued)

    def released(self, session: Session, runs: Sequence[m.ReleasedRun], settled: Settled) -> None:
        """Runs are given back. What is said of them from now on comes too late, be the database away or not.

        So does this, for those of which the end has been told. A delay is answered, for it must not be forgotten:
        where all else fails the run is queued again, but at once.
        """
        runs = [run for run in runs if (run.id, run.attempt) not in session.finished]
        releases = tuple(
            Release(run.id, run.attempt, run.reason or "The worker gave the run back.", run.delay) for run in runs
        )
        leases = {(run.id, run.attempt) for run in runs}
        # A worker that has no verdict yet says it again.
        postponed = {
            (run.id, run.attempt): self._holds(session, run) or (run.id, run.attempt) in session.given_back
            for run in runs
            if run.delay is not None
        }
        for lease in leases:
            self._drop(session, *lease)
        session.given_back |= leases

        def written(outcome: Any) -> None:
            settled()
            session.given_back -= leases
            session.written()
            if isinstance(outcome, Freed):
                self._dispatching.freed(outcome)
                self._answer(session, postponed)

        self._dispatching.persist(ReleaseRuns(session.id, releases), written)
        self._dispatching.wake()

    def _holds(self, session: Session, run: m.ReleasedRun) -> bool:
        held = session.held.get(run.id)
        return held is not None and held.attempt == run.attempt

    def _answer(self, session: Session, postponed: Mapping[tuple[str, int], bool]) -> None:
        """Tell the worker to forget what it has postponed: it is so, or was so before, or the lease is over."""
        if session.port is None:
            return
        for lease, held in postponed.items():
            if held:
                session.port.recorded(*lease)
            else:
                session.port.lease_lost(*lease)

    def _is_given_back(self, session: Session, run_id: str, attempt: int, settled: Settled) -> bool:
        """Refuse a report of what has been given back: the row may not say so yet, as a write is tried again."""
        if (run_id, attempt) not in session.given_back:
            return False
        settled()
        if session.port is not None:
            session.port.lease_lost(run_id, attempt)
        return True

    def _drop(self, session: Session, run_id: str, attempt: int) -> None:
        """The session holds this lease no more."""
        held = session.held.get(run_id)
        if held is not None and held.attempt == attempt:
            del session.held[run_id]
            self._dispatcher.release(session.id, run_id)


def _finish(session_id: str, frame: m.Finished, at: int) -> FinishRun:
    """Return the report as it is written. What is too large to be kept is a failure, told as such."""
    state = frame.state
    proposed = Proposed(StateType(state.type), state.name or "", state.message)
    result, error = _payload(frame.result), _payload(frame.error)
    try:
        check_payload(frame.result, "result")
        check_payload(frame.error, "error")
        _check_together(frame)
    except FrameRefused as exc:
        proposed = Proposed(StateType.FAILED, StateName.RESULT_TOO_LARGE, exc.message)
        return FinishRun(session_id, frame.id, frame.attempt, at, proposed, retriable=False)
    return FinishRun(
        session_id, frame.id, frame.attempt, at, proposed, result, error, frame.retriable, frame.retry_after
    )


def _check_together(frame: m.Finished) -> None:
    """Refuse what could not be pushed to a watcher in one message."""
    size = len(bytes(frame.result)) + len(bytes(frame.error))
    if size > MAX_OUTCOME_BYTES:
        message = f"result and error have {size} bytes together; at most {MAX_OUTCOME_BYTES}"
        raise FrameRefused(ErrorCode.TOO_LARGE, message)


def _payload(raw: msgspec.Raw) -> bytes | None:
    return bytes(raw) or None
