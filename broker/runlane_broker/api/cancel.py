"""Task runs cancelled, and parked ones queued again: `/api/task_runs/…/cancel` and `…/requeue`."""

from __future__ import annotations

from typing import Final

from runlane.protocol.states import StateType

from ..core.core import Core
from ..errors import NotFound, Refused
from ..schemas.cancel import CancelledRuns, ChosenRuns, RequeuedRuns
from ..schemas.states import State
from ..storage.records import TransitionOutcome
from ..storage.tables import TASK_RUN
from .rendering import render_state
from .routes import Route

_NO_RUN: Final = "There is no such task run"


class Cancels:
    """The use cases."""

    def __init__(self, core: Core) -> None:
        self._cancellations = core.cancellations

    async def cancel(self, id: str) -> State:
        """Cancel a run."""
        (outcome,) = await self._cancellations.cancel([id])
        return render_state(_found(outcome).state, TASK_RUN)

    async def cancel_many(self, body: ChosenRuns) -> CancelledRuns:
        """Cancel what the filters take."""
        changed = await self._cancellations.cancel_all(body.filters())
        return CancelledRuns(
            cancelled=changed.counts.get(StateType.CANCELLED, 0),
            cancelling=changed.counts.get(StateType.CANCELLING, 0),
            more=changed.more,
        )

    async def requeue(self, id: str) -> State:
        """Queue a parked run again."""
        (outcome,) = await self._cancellations.requeue([id])
        if not _found(outcome).wrote:
            raise Refused("not_parked", _found(outcome).reason or "the run is not parked")
        return render_state(_found(outcome).state, TASK_RUN)

    async def requeue_many(self, body: ChosenRuns) -> RequeuedRuns:
        """Queue again what the filters take of the parked runs."""
        changed = await self._cancellations.requeue_all(body.filters())
        return RequeuedRuns(requeued=sum(changed.counts.values()), more=changed.more)


def _found(outcome: TransitionOutcome | None) -> TransitionOutcome:
    if outcome is None:
        raise NotFound("Task run not found")
    return outcome


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    cancels = Cancels(core)
    one = "/api/task_runs/{id:uuid}"
    return [
        Route(
            method="POST",
            path=f"{one}/cancel",
            handler=cancels.cancel,
            summary="Cancel a task run, and return its state then: one that has ended stays as it is",
            tag="task_runs",
            answers={200: State},
            refusals={404: _NO_RUN},
        ),
        Route(
            method="POST",
            path="/api/task_runs/cancel",
            handler=cancels.cancel_many,
            summary="Cancel task runs, up to 10,000 of them",
            tag="task_runs",
            answers={200: CancelledRuns},
            body=ChosenRuns,
        ),
        Route(
            method="POST",
            path=f"{one}/requeue",
            handler=cancels.requeue,
            summary="Queue a parked task run again, and return its state then",
            tag="task_runs",
            answers={200: State},
            refusals={404: _NO_RUN, 409: "The run is not parked"},
        ),
        Route(
            method="POST",
            path="/api/task_runs/requeue",
            handler=cancels.requeue_many,
            summary="Queue parked task runs again, up to 10,000 of them",
            tag="task_runs",
            answers={200: RequeuedRuns},
            body=ChosenRuns,
        ),
    ]
