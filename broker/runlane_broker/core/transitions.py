"""States set over HTTP, and runs created, changed and deleted: what follows once it is committed.

What a write means for a run's holder, its window and its watchers is carried out in the callback of the commit
itself, so that it comes in the order of the commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ..dispatch import Dispatcher
from ..orchestration.decisions import Proposed
from ..storage.operations.base import Operation
from ..storage.operations.changing import ChangeRun
from ..storage.operations.creating_flow_runs import CreateFlowRun
from ..storage.operations.deleting import DeleteFlow, DeleteRun
from ..storage.operations.reporting import Recorded, RecordReports
from ..storage.operations.transitions import SetState
from ..storage.records import Change, Created, Lease, NewFlowRun, NewRunRecord, TransitionOutcome
from ..storage.store import Store
from ..storage.tables import RunKind
from .dispatching import Dispatching
from .hub import Hub
from .ports import CANCEL_GRACE_SECONDS
from .registry import Registry, Session
from .submit import Submissions
from .writing import resolve, write

T = TypeVar("T")


class Transitions:
    """What somebody asks for who neither executes runs nor waits for them on a socket.

    Everything here raises `StoreUnavailable` while the database cannot be written; nothing was done then.
    """

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        dispatching: Dispatching,
        hub: Hub,
        registry: Registry,
        submissions: Submissions,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._dispatching = dispatching
        self._hub = hub
        self._registry = registry
        self._submissions = submissions

    async def create_task_runs(self, runs: Sequence[NewRunRecord], *, shows: bool = False) -> tuple[Created, ...]:
        """Create task runs in one transaction; the outcome of each, in order. Who is due is dispatched.

        `shows`: with each that was created, as it is shown.
        """
        future: asyncio.Future[tuple[Created, ...]] = asyncio.get_running_loop().create_future()
        self._submissions.submit(runs, lambda outcome: resolve(future, outcome), shows=shows)
        return await future

    async def create_flow_run(self, run: NewFlowRun) -> Created:
        """Create a flow run. If it waits in a work queue it is pushed to who serves that."""
        return await write(self._store, CreateFlowRun(run), self._created)

    def _created(self, created: Created) -> None:
        if created.queued is not None:
            self._dispatching.queue(created.queued)

    async def set_state(
        self, kind: RunKind, run_id: str, proposed: Proposed, *, force: bool = False
    ) -> TransitionOutcome | None:
        """Ask for a state of a run; None: there is no such run. See `SetState`."""
        return await self.write(SetState(kind, run_id, proposed, force), _change_of)

    async def change(self, kind: RunKind, run_id: str, changes: Mapping[str, Any]) -> bool:
        """Change what is given of a run, by column; False: there is no such run. See `ChangeRun`."""
        return await self._store.run(ChangeRun(kind, run_id, changes))

    async def delete(self, kind: RunKind, run_id: str) -> bool:
        """Delete a run and all that is its own, a flow run with its task runs; False: there is no such run.

        It cannot start afterwards. Who holds it is told that the lease is over, who watches it that it ended.
        """
        return await self.write(DeleteRun(kind, run_id), lambda changes: changes or ()) is not None

    async def delete_flow(self, flow_id: str) -> bool:
        """Delete a flow with its deployments and all runs, in the same way; False: there is no such flow."""
        return await self.write(DeleteFlow(flow_id), lambda changes: changes or ()) is not None

    async def record(self, operation: RecordReports) -> Recorded:
        """Record what a client has reported."""
        return await self.write(operation, lambda recorded: recorded.changes)

    def settle(self, changes: Iterable[Change]) -> None:
        """Carry out what committed changes mean for the rest of the broker."""
        for change in changes:
            self._settle(change)
        self._dispatching.wake()

    def _settle(self, change: Change) -> None:
        if change.unqueued:
            self._dispatcher.remove(change.task_key, change.run_id)
        if change.frees_slot:
            self._dispatching.free_slot(change.task_key)
        if change.to_stop is not None:
            self._stop(change.run_id, change.to_stop)
        if change.ended is not None:
            self._end_lease(change.run_id, change.ended)
        if change.kept is not None:
            self._reported(change.run_id, change.kept)
        if change.final is not None:
            self._hub.finished(change.final)
        if change.queued is not None:
            self._hub.forget_progress(change.run_id)
            self._dispatching.queue(change.queued)

    def _stop(self, run_id: str, lease: Lease) -> None:
        session = self._holder(run_id, lease)
        if session is not None and session.port is not None:
            session.port.cancel(run_id, lease.attempt, CANCEL_GRACE_SECONDS)

    def _reported(self, run_id: str, lease: Lease) -> None:
        session = self._holder(run_id, lease)
        if session is not None and session.taker is not None:
            session.taker.reported(run_id)

    def _end_lease(self, run_id: str, lease: Lease) -> None:
        """Free the slot, and tell the worker. One that is away hears of it when it comes back."""
        session = self._holder(run_id, lease)
        if session is None:
            return
        del session.held[run_id]
        self._dispatcher.release(session.id, run_id)
        if session.port is not None:
            session.port.lease_lost(run_id, lease.attempt)

    def _holder(self, run_id: str, lease: Lease) -> Session | None:
        """Return who holds a lease, unless its end has been reported meanwhile."""
        session = self._registry.get(lease.session_id)
        held = None if session is None else session.held.get(run_id)
        return session if held is not None and held.attempt == lease.attempt else None

    async def write(self, operation: Operation[T], changes: Callable[[T], Iterable[Change]]) -> T:
        """Write; carry out the changes that `changes` finds in the outcome; return it."""
        return await write(self._store, operation, lambda outcome: self.settle(changes(outcome)))

    def submit(
        self, operation: Operation[T], changes: Callable[[T], Iterable[Change]], done: Callable[[Any], None]
    ) -> None:
        """Write in the same way; `done` gets the outcome, or the exception."""

        def written(outcome: Any) -> None:
            try:
                if not isinstance(outcome, Exception):
                    self.settle(changes(outcome))
            finally:
                done(outcome)

        self._store.submit(operation, written)


def _change_of(outcome: TransitionOutcome | None) -> tuple[Change, ...]:
    return () if outcome is None or outcome.change is None else (outcome.change,)
