"""Submitting runs: one transaction, each run with its own outcome, and the hand-off."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias

from runlane.protocol.errors import ErrorCode
from runlane.protocol.messages import NewRun

from ..clock import Clock, to_micros
from ..dispatch import Dispatcher, Reservation
from ..errors import Overloaded
from ..storage.operations.creating import CreateRuns
from ..storage.records import SCHEDULED_LANE, Creation, LeasedRun, NewRunRecord, QueuedRecord
from ..storage.run_records import RunRecord
from ..storage.store import Store
from .dispatching import Dispatching, queued_run
from .waiting import Waiting

#: Writes that may wait for their commit before new runs are put off.
MAX_WAITING: Final = 10_000
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024

Done: TypeAlias = Callable[[Any], None]
#: What was reserved for the runs that are due, by index; None: the run goes through its window.
Plan: TypeAlias = dict[int, Reservation | None]


def payload_hash(task_key: str, parameters: bytes) -> bytes:
    """Return what tells a resubmitted run from another one with its id."""
    digest = hashlib.blake2b(task_key.encode(), digest_size=16)
    digest.update(b"\0")
    digest.update(parameters)
    return digest.digest()


def new_run(run: NewRun, now: int) -> NewRunRecord:
    """Return a submitted run as it is stored; `now` in microseconds UTC."""
    delay = run.retry_delay
    parameters = bytes(run.parameters)
    return NewRunRecord(
        id=run.id,
        task_key=run.task_key,
        name=run.name or run.task_key,
        dynamic_key=run.id,
        parameters=parameters,
        payload_hash=payload_hash(run.task_key, parameters),
        priority=run.priority,
        due=now if run.scheduled_time is None else to_micros(run.scheduled_time),
        expires=None if run.expires is None else to_micros(run.expires),
        retries=run.retries,
        retry_delay=delay if isinstance(delay, tuple) else (delay,),
        retry_jitter=run.retry_jitter,
        timeout=run.timeout,
        tags=run.tags,
        headers=run.headers,
        idempotency_key=run.idempotency_key,
    )


def conflict_code(how: Creation) -> ErrorCode | None:
    """Return the error code of a refused run, None for one that is there now."""
    if how is Creation.ID_CONFLICT:
        return ErrorCode.ID_CONFLICT
    if how is Creation.IDEMPOTENCY_CONFLICT:
        return ErrorCode.IDEMPOTENCY_CONFLICT
    return None


class Submissions:
    """Creates runs. Where a free slot waits for a run, its lease goes into the same commit."""

    def __init__(
        self, clock: Clock, store: Store, dispatcher: Dispatcher, dispatching: Dispatching, waiting: Waiting
    ) -> None:
        self._clock = clock
        self._store = store
        self._dispatcher = dispatcher
        self._dispatching = dispatching
        self._waiting = waiting
        #: Set while the broker goes down: new runs are put off.
        self.draining = False

    def check_load(self) -> None:
        """Raise `Overloaded` while too much waits for its commit, or the broker goes down."""
        if self.draining:
            raise Overloaded("the broker is going down", retry_after=2.0)
        if self._store.waiting >= MAX_WAITING or self._store.waiting_bytes >= MAX_WAITING_BYTES:
            raise Overloaded("too many writes are waiting", retry_after=0.2)

    def submit(self, runs: Sequence[NewRunRecord], done: Done, *, shows: bool = False) -> None:
        """Create runs; `done` gets the outcome of each, in order, after the commit, or the exception.

        `shows`: with each that was created, as it is shown.
        """
        plan = self._hand_off(runs)
        records = tuple(self._with_holder(run, plan.get(i)) for i, run in enumerate(runs))
        self._store.submit(CreateRuns(records, shows), partial(self._created, records, plan, done))

    def _with_holder(self, run: NewRunRecord, reservation: Reservation | None) -> NewRunRecord:
        if reservation is None:
            return run
        return replace(run, holder=self._dispatching.holder(reservation.session_id, reservation.epoch))

    def _hand_off(self, runs: Sequence[NewRunRecord]) -> Plan:
        """Reserve waiting slots for the runs that rank first; expect the others in their windows."""
        now = self._clock.now()
        plan: Plan = {}
        for i in sorted(range(len(runs)), key=lambda i: (-runs[i].priority, runs[i].due, runs[i].id)):
            run = runs[i]
            if not run.dispatched or run.upstream or run.due > now:
                continue
            expired = run.expires is not None and run.expires <= now
            plan[i] = None if expired else self._dispatcher.hand_off(queued_run(_queued(run)))
            if plan[i] is None:
                self._dispatcher.expect(run.task_key)
        return plan

    def _created(self, runs: Sequence[NewRunRecord], plan: Plan, done: Done, outcomes: Any) -> None:
        failed = isinstance(outcomes, Exception)
        pushes: dict[str, list[LeasedRun]] = {}
        for i, run in enumerate(runs):
            how = Creation.EXISTED if failed else outcomes[i].how
            reservation = plan.get(i)
            if reservation is not None:
                self._settle(run, reservation, how, None if failed else outcomes[i].shown, pushes)
                continue
            if not failed and outcomes[i].waits_for:
                self._waiting.note(outcomes[i].waits_for)
            elif how is Creation.CREATED and run.dispatched:
                self._dispatching.queue(_queued(run))
            if i in plan:
                self._dispatcher.arrived(run.task_key)
        try:
            done(outcomes)
        finally:
            for session_id, leased in pushes.items():
                self._dispatching.push(session_id, leased)
            self._dispatching.wake()

    def _settle(
        self,
        run: NewRunRecord,
        reservation: Reservation,
        how: Creation,
        shown: RunRecord | None,
        pushes: dict[str, list[LeasedRun]],
    ) -> None:
        """The slot was reserved: push, or give the slot back (and queue the run, if it is there)."""
        if how is not Creation.LEASED:
            self._dispatcher.abort(reservation, requeue=how is Creation.CREATED)
            return
        leased = LeasedRun(run.id, 1, run.task_key, run.parameters, run.timeout, run.expires, run.headers, shown)
        if self._dispatcher.confirm(reservation):
            pushes.setdefault(reservation.session_id, []).append(leased)
        else:
            reason = "The connection broke before the run was sent."
            self._dispatching.give_back(reservation.session_id, [leased], reason)


def _queued(run: NewRunRecord) -> QueuedRecord:
    return QueuedRecord(run.id, run.task_key, run.priority, SCHEDULED_LANE, run.due)
