"""`/api/flow_runs` and `/api/flow_run_states`."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UnsetType

from runlane.protocol.ids import uuid7

from ..core.core import Core
from ..errors import Conflict
from ..schemas.base import is_given
from ..schemas.flow_runs import FlowRun, FlowRunCreate, FlowRunPage, FlowRunsAfter, FlowRunUpdate
from ..schemas.lists import FlowRunCursor, FlowRunFilters, FlowRunHistory, FlowRunList, FlowRunPages
from ..schemas.runs import FlowRunPolicyCreate
from ..schemas.states import StateCreate, StateOfFlowRun
from ..storage.records import Created, Creation, NewFlowRun
from ..storage.tables import FLOW_RUN
from .proposals import checked_object, proposed_state
from .rendering import render_flow_run
from .routes import Answer, Route
from .runs import Kind, Runs, run_routes


def _changes(body: FlowRunUpdate) -> dict[str, Any]:
    """Return what is to be changed, by column. Raises `Invalid`."""
    columns = {
        "name": body.name,
        "tags": body.tags,
        "flow_version": body.flow_version,
        "infrastructure_pid": body.infrastructure_pid,
        "parameters": _object_or_none(body.parameters, "parameters"),
        "job_variables": _object_or_none(body.job_variables, "job_variables"),
    }
    if (policy := body.empirical_policy) is not None:
        columns |= {
            "retries": policy.limit,
            "retry_delay": policy.delays,
            "retry_jitter": policy.retry_jitter_factor or 0.0,
        }
    return {name: value for name, value in columns.items() if value is not None}


def _object_or_none(payload: msgspec.Raw | UnsetType, field: str) -> bytes | None:
    return checked_object(payload, field) if is_given(payload) else None


KIND: Final = Kind(
    runs=FLOW_RUN,
    path="/api/flow_runs",
    states_path="/api/flow_run_states",
    noun="flow run",
    render=render_flow_run,
    shown=FlowRun,
    update=FlowRunUpdate,
    changes=_changes,
    filters=FlowRunFilters,
    listed=FlowRunList,
    paged=FlowRunPages,
    page=FlowRunPage,
    followed=FlowRunCursor,
    follows=FlowRunsAfter,
    history=FlowRunHistory,
    states_of=StateOfFlowRun,
)


class FlowRuns(Runs):
    """The use cases that only flow runs have."""

    async def create(self, body: FlowRunCreate) -> Answer:
        """Create a run, or return the one of this flow and idempotency key."""
        self._core.submissions.check_load()
        created = await self._core.transitions.create_flow_run(_record(body))
        check_created(created)
        return Answer(200 if created.how is Creation.EXISTED else 201, await self.read(created.id))

    async def lateness(self, body: FlowRunFilters) -> float | None:
        """Return how late runs are on average, in seconds; null if there are none."""
        return await self._core.store.flow_runs.lateness(self._core.clock.now(), body.filters())


def check_created(created: Created) -> None:
    """Raise `Conflict` for a run that was not created, and was not there."""
    if created.how is Creation.PARENT_MISSING:
        raise Conflict(created.missing or "There is no such flow, deployment or work pool.")
    if created.how not in (Creation.CREATED, Creation.EXISTED):
        raise Conflict("There is another run with this id.")


def default_name(run_id: str) -> str:
    """Return the name of a run that was given none."""
    return f"run-{run_id[-8:]}"


def object_or_empty(payload: msgspec.Raw, field: str) -> bytes:
    """Return an object's bytes, those of an empty one for null. Raises `Invalid`."""
    return _object_or_none(payload, field) or b"{}"


def _record(body: FlowRunCreate) -> NewFlowRun:
    policy = body.empirical_policy or FlowRunPolicyCreate()
    run_id = body.id or uuid7()
    return NewFlowRun(
        id=run_id,
        flow_id=body.flow_id,
        name=body.name or default_name(run_id),
        initial=proposed_state(body.state or StateCreate(type="PENDING")),
        parameters=checked_object(body.parameters, "parameters"),
        context=checked_object(body.context, "context"),
        job_variables=object_or_empty(body.job_variables, "job_variables"),
        retries=policy.limit,
        retry_delay=policy.delays,
        retry_jitter=policy.retry_jitter_factor or 0.0,
        tags=body.tags,
        labels=body.labels or {},
        idempotency_key=body.idempotency_key,
        deployment_id=body.deployment_id,
        parent_task_run_id=body.parent_task_run_id,
        work_pool_name=body.work_pool_name,
        work_queue_name=body.work_queue_name,
        flow_version=body.flow_version,
    )


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    runs = FlowRuns(core, KIND)
    return [
        Route(
            method="POST",
            path="/api/flow_runs/",
            handler=runs.create,
            summary="Create a flow run",
            tag="flow_runs",
            answers={201: FlowRun, 200: FlowRun},
            refusals={
                409: "No such flow, deployment or work pool; another run has this id; or there is no slot",
                404: "There is no such work pool",
            },
            body=FlowRunCreate,
        ),
        Route(
            method="POST",
            path="/api/flow_runs/lateness",
            handler=runs.lateness,
            summary="Return how late flow runs are on average, in seconds",
            tag="flow_runs",
            answers={200: float | None},
            body=FlowRunFilters,
        ),
        *run_routes(runs, KIND),
    ]
