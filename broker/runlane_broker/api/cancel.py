"""Runs cancelled, and parked ones queued again: `/api/task_runs/…/cancel` and `…/requeue`, and of flow runs."""

from __future__ import annotations

from typing import Final

from runlane.protocol.states import StateType

from ..core.core import Core
from ..errors import NotFound, Refused
from ..schemas.cancel import CancelledRuns, ChosenRuns, RequeuedRuns
from ..schemas.states import State
from ..storage.records import TransitionOutcome
from ..storage.tables import FLOW_RUN, TASK_RUN, RunKind
from .rendering import render_state
from .routes import Route

_NO_RUN: Final = "There is no such run"


class Cancels:
    """The use cases, for runs of one kind."""

    def __init__(self, core: Core, kind: RunKind) -> None:
        self._cancellations = core.cancellations
        self._kind = kind

    async def cancel(self, id: str) -> State:
        """Cancel a run."""
        (outcome,) = await self._cancellations.cancel([id], self._kind)
        return render_state(self._found(outcome).state, self._kind)

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
        (outcome,) = await self._cancellations.requeue([id], self._kind)
        found = self._found(outcome)
        if not found.wrote:
            raise Refused("not_parked", found.reason or "the run is not parked")
        return render_state(found.state, self._kind)

    async def requeue_many(self, body: ChosenRuns) -> RequeuedRuns:
        """Queue again what the filters take of the parked runs."""
        changed = await self._cancellations.requeue_all(body.filters())
        return RequeuedRuns(requeued=sum(changed.counts.values()), more=changed.more)

    def _found(self, outcome: TransitionOutcome | None) -> TransitionOutcome:
        if outcome is None:
            raise NotFound(f"{'Task' if self._kind is TASK_RUN else 'Flow'} run not found")
        return outcome


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    cancels = Cancels(core, TASK_RUN)
    return [
        *_single(cancels, "task run"),
        *_single(Cancels(core, FLOW_RUN), "flow run"),
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
            path="/api/task_runs/requeue",
            handler=cancels.requeue_many,
            summary="Queue parked task runs again, up to 10,000 of them",
            tag="task_runs",
            answers={200: RequeuedRuns},
            body=ChosenRuns,
        ),
    ]


def _single(cancels: Cancels, noun: str) -> list[Route]:
    tag = f"{noun.replace(' ', '_')}s"
    one = f"/api/{tag}/{{id:uuid}}"
    return [
        Route(
            method="POST",
            path=f"{one}/cancel",
            handler=cancels.cancel,
            summary=f"Cancel a {noun}, and return its state then: one that has ended stays as it is",
            tag=tag,
            answers={200: State},
            refusals={404: _NO_RUN},
        ),
        Route(
            method="POST",
            path=f"{one}/requeue",
            handler=cancels.requeue,
            summary=f"Queue a parked {noun} again, and return its state then",
            tag=tag,
            answers={200: State},
            refusals={404: _NO_RUN, 409: "The run is not parked"},
        ),
    ]
