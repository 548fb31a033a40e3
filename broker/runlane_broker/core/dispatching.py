"""The dispatch cycle: reserve, commit, confirm, push; refill windows; wake when runs come due.

Event-driven: whoever changes something that might let a run start calls `wake`, and one cycle runs before the
event loop waits again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from runlane.protocol.closing import CloseCode
from runlane.protocol.messages import PushedRun

from ..clock import Clock
from ..dispatch import Dispatcher, PoolSettings, QueuedRun, QueueSettings, RefillTicket, Reservation
from ..errors import StoreUnavailable
from ..storage.operations.base import Operation
from ..storage.operations.leasing import LeaseRuns, Release, ReleaseRuns
from ..storage.queue_records import ServedPool, is_queue_key, split_queue_key
from ..storage.records import (
    PREFECT,
    FinalRun,
    Freed,
    Holder,
    LeasedRun,
    PushedFlow,
    QueuedRecord,
    Refusal,
)
from ..storage.store import Store
from ..storage.tables import FLOW_RUN, TASK_RUN
from .due import DueClock
from .held_back import HeldBack
from .hub import Hub
from .registry import Held, Registry
from .unserved import Unserved

#: Seconds until a write that must happen is tried again while the database cannot be written.
RETRY_SECONDS = 0.5


class Dispatching:
    """Moves runs from the windows to the sessions."""

    def __init__(
        self,
        broker_id: str,
        clock: Clock,
        store: Store,
        dispatcher: Dispatcher,
        hub: Hub,
        registry: Registry,
        unserved: Unserved,
    ) -> None:
        self._broker_id = broker_id
        self._clock = clock
        self._store = store
        self._dispatcher = dispatcher
        self._hub = hub
        self._registry = registry
        self._unserved = unserved
        self._due = DueClock(clock, self._came_due)
        self._held_back = HeldBack(clock, dispatcher, self._due)
        self._cycle_handle: asyncio.Handle | None = None
        self._held_off = 0  # how often it wakes by itself, in a moment
        self._refills: set[asyncio.Task[None]] = set()
        self._stopped = True
        self._closed = False

    # What others call ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to dispatch."""
        self._stopped = False
        self.wake()

    def stop(self) -> None:
        """Lease nothing more. What is being leased still arrives."""
        self._stopped = True
        self._due.stop()
        if self._cycle_handle is not None:
            self._cycle_handle.cancel()
            self._cycle_handle = None

    async def close(self) -> None:
        """Stop, wait for the reads under way, and write nothing more."""
        self.stop()
        self._closed = True
        for task in tuple(self._refills):
            task.cancel()
        await asyncio.gather(*self._refills, return_exceptions=True)

    def wake(self) -> None:
        """Something may have become possible: run a cycle soon, once."""
        if self._cycle_handle is None and not self._stopped:
            self._cycle_handle = asyncio.get_running_loop().call_soon(self._cycle)

    def overlooked_keys(self) -> list[str]:
        """Return the keys whose runs could be given out, though no cycle is about to: always none."""
        is_awake = self._cycle_handle is not None or self._held_off > 0
        return [] if is_awake or self._stopped else self._dispatcher.overlooked_keys()

    def time_changed(self) -> None:
        """The wall clock was set, by somebody who knows: what has come due by that is dispatched now."""
        self._due.time_changed()

    @property
    def due(self) -> DueClock:
        """What wakes it when runs come due, to look at."""
        return self._due

    def holder(self, session_id: str, epoch: int) -> Holder:
        """Return a session of this broker as lease statements want it."""
        session = self._registry.get(session_id)
        takes = session is not None and session.taker is not None
        return Holder(session_id, self._broker_id, epoch, PREFECT if takes else None)

    def queue(self, run: QueuedRecord) -> None:
        """A committed run waits: put it into its window, or wait for its time."""
        if run.due <= self._clock.now():
            self._dispatcher.enqueue(queued_run(run))
            self.wake()
            if not self._dispatcher.has_demand(run.task_key) and not is_queue_key(run.task_key):
                self._unserved.note(run.task_key)
        elif self._dispatcher.has_demand(run.task_key):
            self._due.note(run.task_key, run.due)

    def free_slot(self, key: str) -> None:
        """A run takes its slot no more: whoever waits for one of its queue, its pool or a filter may go on."""
        if is_queue_key(key):
            self._dispatcher.free_slot(split_queue_key(key)[0], key)
            self._held_back.release()
            self.wake()

    def set_pools(self, pools: Iterable[ServedPool]) -> None:
        """Pools or queues have changed, these among them; and maybe one with a filter, which nobody serves."""
        for pool in pools:
            self._dispatcher.set_pool(pool_settings(pool))
        self._held_back.release()
        self.wake()

    def claimed(self, key: str, run_id: str, until: int) -> None:
        """Somebody who polls has claimed a run of a work queue: it is nobody else's until then."""
        self._dispatcher.remove(key, run_id)
        if self._dispatcher.has_demand(key):
            self._due.note(key, until)

    def freed(self, freed: Freed) -> None:
        """Runs lost their lease: queue them again, tell the watchers of those that ended."""
        for run in freed.queued:
            self.free_slot(run.task_key)
            self._hub.forget_progress(run.id)
            self.queue(run)
        for run in freed.final:
            self.free_slot(run.task_key)
            self._hub.finished(run)

    def persist(self, operation: Operation[Any], done: Callable[[Any], None]) -> None:
        """Write what must be written, however long the database cannot be; while the broker drains, too."""
        self._store.submit(operation, partial(self._persisted, operation, done))

    def _persisted(self, operation: Operation[Any], done: Callable[[Any], None], outcome: Any) -> None:
        if isinstance(outcome, StoreUnavailable) and not self._closed:
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._persist_again, operation, done, outcome)
        else:
            done(outcome)

    def _persist_again(
        self, operation: Operation[Any], done: Callable[[Any], None], outcome: StoreUnavailable
    ) -> None:
        if self._closed:
            done(outcome)
        else:
            self.persist(operation, done)

    def push(self, session_id: str, runs: Sequence[LeasedRun]) -> None:
        """Send confirmed leases to their session."""
        session = self._registry.get(session_id)
        assert session is not None, "a confirmed lease has a session"
        assert session.port is not None, "a confirmed lease has a connected session"
        now, seen = self._clock.now(), self._clock.monotonic()
        for run in runs:
            session.held[run.id] = Held(run.attempt, run.task_key, seen)
        if session.taker is not None:
            session.taker.push(runs)
            return
        for chunk in _chunks(runs):
            session.port.runs([_pushed(run, now) for run in chunk])

    def give_back(self, session_id: str, runs: Sequence[LeasedRun], reason: str) -> None:
        """A lease was committed for a session that is gone: nothing was pushed, nothing counts."""
        releases = tuple(Release(run.id, run.attempt, reason) for run in runs)
        self.persist(ReleaseRuns(session_id, releases), self.given_back)

    # The cycle -----------------------------------------------------------------------------------------------

    def _cycle(self) -> None:
        self._cycle_handle = None
        by_session: dict[tuple[str, int, bool], list[Reservation]] = {}
        for reservation in self._dispatcher.assign():
            whose = reservation.session_id, reservation.epoch, is_queue_key(reservation.run.task_key)
            by_session.setdefault(whose, []).append(reservation)
        for (session_id, epoch, of_queues), reservations in by_session.items():
            run_ids = tuple(reservation.run.id for reservation in reservations)
            kind = FLOW_RUN if of_queues else TASK_RUN
            lease = LeaseRuns(self.holder(session_id, epoch), run_ids, kind)
            self._store.submit(lease, partial(self._leased, reservations))
        for key, ticket, limit in self._dispatcher.refills_wanted():
            self._spawn(self._refill(key, ticket, limit))

    def _leased(self, reservations: list[Reservation], outcomes: Any) -> None:
        if isinstance(outcomes, Exception):
            for reservation in reservations:
                self._dispatcher.abort(reservation)
            self._hold_off()
            return
        session_id = reservations[0].session_id
        arrived: list[LeasedRun] = []
        stranded: list[LeasedRun] = []
        for reservation, outcome in zip(reservations, outcomes, strict=True):
            if isinstance(outcome, LeasedRun):
                (arrived if self._dispatcher.confirm(reservation) else stranded).append(outcome)
            else:
                self._not_leased(reservation, outcome)
        if arrived:
            self.push(session_id, arrived)
        if stranded:
            self.give_back(session_id, stranded, "The connection broke before the run was sent.")
        self.wake()

    def _not_leased(self, reservation: Reservation, outcome: FinalRun | Refusal) -> None:
        key = reservation.run.task_key
        self._dispatcher.abort(reservation, requeue=outcome in _STAYS_QUEUED)
        if isinstance(outcome, FinalRun):
            self._hub.finished(outcome)
        elif outcome is Refusal.TAKEN:
            self._dispatcher.mark_due(key)  # it may wait for another time now
        elif outcome is Refusal.QUEUE_CLOSED:
            self._dispatcher.shut_queue(key)
        elif outcome is Refusal.POOL_CLOSED:
            self._dispatcher.shut_pool(key)
        elif outcome is Refusal.HELD_BACK:
            self._dispatcher.reload(key)  # others of the window may be held back, too
        elif outcome is Refusal.SESSION_MOVED:
            self._dispatcher.disconnect(reservation.session_id, reservation.epoch)
            session = self._registry.get(reservation.session_id)
            if session is not None and session.epoch == reservation.epoch and session.port is not None:
                session.port.close(CloseCode.SUPERSEDED, "this session was resumed elsewhere")

    def given_back(self, outcome: Any) -> None:
        """Queue again what `ReleaseRuns` has freed."""
        if isinstance(outcome, Freed):
            self.freed(outcome)

    def _hold_off(self) -> None:
        """The database cannot be written: leases stay as they are, new ones wait a moment."""
        if not self._stopped:
            self._held_off += 1
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._held_off -= 1
        self.wake()

    # Refills and due runs ------------------------------------------------------------------------------------

    def _spawn(self, refill: Any) -> None:
        task = asyncio.get_running_loop().create_task(refill)
        self._refills.add(task)
        task.add_done_callback(self._refills.discard)

    async def _refill(self, key: str, ticket: RefillTicket, limit: int) -> None:
        left_out = self._held_back.reading()
        try:
            refill = await self._store.refill(key, self._clock.now(), limit)
        except BaseException as exc:  # whatever it was, the key must not wait for this read for ever
            self._dispatcher.abandon_refill(key, ticket)
            if not isinstance(exc, StoreUnavailable):
                raise
            self._hold_off()
            return
        self._dispatcher.apply_refill(key, ticket, [queued_run(run) for run in refill.queued], limit)
        if self._dispatcher.has_demand(key):
            self._due.note(key, refill.next_due)
        if refill.holds_back:
            left_out(key)
        self.wake()

    def _came_due(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._dispatcher.mark_due(key)
        self.wake()


#: Refusals that are not about the run itself.
_STAYS_QUEUED: Final = frozenset({Refusal.SESSION_MOVED, Refusal.LATER, Refusal.QUEUE_CLOSED, Refusal.POOL_CLOSED})


def pool_settings(pool: ServedPool) -> PoolSettings:
    """Return a work pool as the dispatcher wants it."""
    queues = (QueueSettings(queue.key, queue.place, queue.is_paused, queue.limit) for queue in pool.queues)
    return PoolSettings(pool.id, tuple(queues), pool.is_paused, pool.limit)


def queued_run(run: QueuedRecord) -> QueuedRun:
    """Return a waiting run as the dispatcher wants it."""
    return QueuedRun(run.id, run.task_key, run.priority, run.lane, run.due)


def _pushed(run: LeasedRun, now: int) -> PushedRun:
    if run.flow is not None:
        return _pushed_flow_run(run, run.flow)
    return PushedRun(
        id=run.id,
        attempt=run.attempt,
        task_key=run.task_key,
        parameters=msgspec.Raw(run.parameters),
        timeout=run.timeout,
        expires_in=None if run.expires is None else max(run.expires - now, 0) / 1_000_000,
        headers=run.headers,
    )


def _pushed_flow_run(run: LeasedRun, flow: PushedFlow) -> PushedRun:
    return PushedRun(
        id=run.id,
        attempt=run.attempt,
        kind="flow",
        parameters=msgspec.Raw(run.parameters),
        name=flow.run_name,
        flow_id=flow.id,
        flow_name=flow.name,
        deployment_id=flow.deployment_id,
        work_queue=flow.work_queue,
        tags=flow.tags,
    )


#: Parameters and headers in one `runs` frame, in bytes: well below the message limit, whatever else it holds.
_CHUNK_BYTES = 256 * 1024


def _chunks(runs: Iterable[LeasedRun]) -> Iterator[list[LeasedRun]]:
    """Split runs so that each frame stays below the message limit."""
    chunk: list[LeasedRun] = []
    size = 0
    for run in runs:
        needed = len(run.parameters) + 512
        if run.headers:
            needed += len(msgspec.json.encode(run.headers))
        if run.flow is not None:
            needed += len(msgspec.json.encode(run.flow))
        if chunk and size + needed > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(run)
        size += needed
    if chunk:
        yield chunk
