"""`/api/deployments`: flows with where and how their runs are to be executed."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import UNSET

from runlane.protocol.ids import uuid7
from runlane.protocol.states import StateType

from ..clock import to_datetime
from ..core.core import Core
from ..core.flows import run_of
from ..errors import NotFound
from ..schemas.deployments import (
    Deployment,
    DeploymentCreate,
    DeploymentPage,
    DeploymentRunCreate,
    DeploymentUpdate,
    ScheduledRuns,
)
from ..schemas.filters import AnyOrNot, AnyOrNull, Between, Filters, FlowRunFilter, StateOrNot
from ..schemas.flow_runs import FlowRun
from ..schemas.lists import DeploymentList, DeploymentPages, FlowRunFilters, size_of
from ..schemas.runs import FlowRunPolicyCreate
from ..schemas.sorts import FlowRunSort
from ..schemas.states import StateCreate
from ..storage.flow_records import DeploymentRecord, DeploymentValues
from ..storage.records import Creation, NewFlowRun
from .flow_runs import check_created, default_name, object_or_empty
from .listing import Listed, Lists, list_routes
from .proposals import checked_object, proposed_state
from .rendering import render_flow_run
from .routes import Answer, Route

_TAG = "deployments"


class Deployments:
    """The use cases, on one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(self, body: DeploymentCreate) -> Answer:
        """Create a deployment, or change the one of this flow and name."""
        made = await self._core.flows.put_deployment(body.flow_id, body.name, _values(body), body.work_pool_name)
        return Answer(201 if made.created else 200, await self.read(made.id))

    async def read(self, id: str) -> Deployment:
        """Return a deployment."""
        return _shown(await self._core.store.flows.deployment(id))

    async def read_by_name(self, flow_name: str, deployment_name: str) -> Deployment:
        """Return a deployment by its flow's name and its own."""
        return _shown(await self._core.store.flows.deployment_by_name(flow_name, deployment_name))

    async def update(self, id: str, body: DeploymentUpdate) -> None:
        """Change a deployment."""
        await self._core.flows.update_deployment(id, _changes(body))

    async def delete(self, id: str) -> None:
        """Delete a deployment."""
        await self._core.flows.delete_deployment(id)

    async def pause(self, id: str) -> None:
        """Mark a deployment as paused."""
        await self._core.flows.update_deployment(id, {"paused": True})

    async def resume(self, id: str) -> None:
        """Mark a deployment as not paused."""
        await self._core.flows.update_deployment(id, {"paused": False})

    async def create_run(self, id: str, body: DeploymentRunCreate) -> Answer:
        """Create a run of a deployment, or return the one of this idempotency key."""
        self._core.submissions.check_load()
        deployment = await self._core.store.flows.deployment(id)
        if deployment is None:
            raise NotFound("Deployment not found")
        created = await self._core.transitions.create_flow_run(run_of(deployment, _asked(body)))
        check_created(created)
        run = await self._core.store.flow_runs.get(created.id)
        if run is None:
            raise NotFound("Flow run not found")  # deleted meanwhile
        shown = render_flow_run(run, self._core.clock.now())
        return Answer(200 if created.how is Creation.EXISTED else 201, shown)

    async def scheduled_runs(self, body: ScheduledRuns) -> list[FlowRun]:
        """Return the scheduled runs of some deployments."""
        before = None if body.scheduled_before is None else Between(before_=body.scheduled_before)
        wanted = FlowRunFilter(
            deployment_id=AnyOrNull(any_=tuple(map(UUID, body.deployment_ids))),
            state=StateOrNot(type=AnyOrNot(any_=(StateType.SCHEDULED,))),
            next_scheduled_start_time=before,
        )
        sort, size = FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC, size_of(body.limit)
        runs = await self._core.store.flow_runs.list(Filters(flow_runs=wanted), sort, size)
        now = self._core.clock.now()
        return [render_flow_run(run, now) for run in runs]


def _asked(body: DeploymentRunCreate) -> NewFlowRun:
    policy = body.empirical_policy or FlowRunPolicyCreate()
    run_id = uuid7()
    return NewFlowRun(
        id=run_id,
        flow_id="",  # the deployment's
        name=body.name or default_name(run_id),
        initial=proposed_state(body.state or StateCreate(type="SCHEDULED")),
        parameters=checked_object(body.parameters, "parameters"),
        context=checked_object(body.context, "context"),
        job_variables=object_or_empty(body.job_variables, "job_variables"),
        retries=policy.limit,
        retry_delay=policy.delays,
        retry_jitter=policy.retry_jitter_factor or 0.0,
        tags=body.tags,
        labels=body.labels or {},
        idempotency_key=body.idempotency_key,
        parent_task_run_id=body.parent_task_run_id,
        work_queue_name=body.work_queue_name,
    )


def _values(body: DeploymentCreate) -> DeploymentValues:
    return DeploymentValues(
        version=body.version,
        description=body.description,
        entrypoint=body.entrypoint,
        path=body.path,
        tags=body.tags,
        labels=body.labels or {},
        parameters=bytes(body.parameters),
        parameter_openapi_schema=object_or_empty(body.parameter_openapi_schema, "parameter_openapi_schema"),
        job_variables=object_or_empty(body.job_variables, "job_variables"),
        enforce_parameter_schema=body.enforce_parameter_schema,
        paused=body.paused,
        concurrency_limit=body.concurrency_limit,
        work_queue_name=body.work_queue_name,
        work_queue_id=None,
    )


def _changes(body: DeploymentUpdate) -> dict[str, Any]:
    """Return what was given, by column."""
    given = {name: getattr(body, name) for name in body.__struct_fields__}
    return {
        name: bytes(value) if isinstance(value, msgspec.Raw) else value
        for name, value in given.items()
        if value is not UNSET
    }


def _shown(record: DeploymentRecord | None) -> Deployment:
    if record is None:
        raise NotFound("Deployment not found")
    return render_deployment(record)


def render_deployment(record: DeploymentRecord) -> Deployment:
    """Return a deployment as it is shown."""
    values = record.values
    return Deployment(
        id=record.id,
        created=to_datetime(record.created),
        updated=to_datetime(record.updated),
        name=record.name,
        flow_id=record.flow_id,
        version=values.version,
        description=values.description,
        entrypoint=values.entrypoint,
        path=values.path,
        tags=values.tags,
        labels=values.labels,
        parameters=msgspec.Raw(values.parameters),
        parameter_openapi_schema=msgspec.Raw(values.parameter_openapi_schema),
        job_variables=msgspec.Raw(values.job_variables),
        enforce_parameter_schema=values.enforce_parameter_schema,
        paused=values.paused,
        status="READY" if record.queue_status == "READY" else "NOT_READY",
        concurrency_limit=values.concurrency_limit,
        work_pool_name=record.work_pool_name,
        work_queue_name=values.work_queue_name,
        work_queue_id=values.work_queue_id,
        last_polled=None if record.last_polled is None else to_datetime(record.last_polled),
    )


LISTED: Final = Listed(
    path="/api/deployments",
    noun="deployment",
    render=render_deployment,
    shown=Deployment,
    filters=FlowRunFilters,
    listed=DeploymentList,
    paged=DeploymentPages,
    page=DeploymentPage,
)


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    deployments = Deployments(core)
    gone = {404: "There is no such deployment"}
    return [
        Route(
            method="POST",
            path="/api/deployments/",
            handler=deployments.create,
            summary="Create a deployment, or change the one of this flow and name",
            tag=_TAG,
            answers={201: Deployment, 200: Deployment},
            refusals={409: "There is no such flow", 404: "There is no such work pool"},
            body=DeploymentCreate,
        ),
        Route(
            method="GET",
            path="/api/deployments/{id:uuid}",
            handler=deployments.read,
            summary="Read a deployment",
            tag=_TAG,
            answers={200: Deployment},
            refusals=gone,
        ),
        Route(
            method="GET",
            path="/api/deployments/name/{flow_name}/{deployment_name}",
            handler=deployments.read_by_name,
            summary="Read a deployment by its flow's name and its own",
            tag=_TAG,
            answers={200: Deployment},
            refusals=gone,
        ),
        Route(
            method="PATCH",
            path="/api/deployments/{id:uuid}",
            handler=deployments.update,
            summary="Change a deployment",
            tag=_TAG,
            answers={204: None},
            refusals=gone,
            body=DeploymentUpdate,
        ),
        Route(
            method="DELETE",
            path="/api/deployments/{id:uuid}",
            handler=deployments.delete,
            summary="Delete a deployment; its runs stay",
            tag=_TAG,
            answers={204: None},
            refusals=gone,
        ),
        *list_routes(Lists(core.store.lists.deployments, LISTED), LISTED),
        Route(
            method="POST",
            path="/api/deployments/{id:uuid}/create_flow_run",
            handler=deployments.create_run,
            summary="Create a run of a deployment; without a state it is SCHEDULED for now",
            tag=_TAG,
            answers={201: FlowRun, 200: FlowRun},
            refusals={**gone, 409: "There is no such work queue"},
            body=DeploymentRunCreate,
        ),
        Route(
            method="POST",
            path="/api/deployments/get_scheduled_flow_runs",
            handler=deployments.scheduled_runs,
            summary="List the scheduled runs of deployments, the next ones first",
            tag=_TAG,
            answers={200: list[FlowRun]},
            body=ScheduledRuns,
        ),
        *(
            Route(
                method="POST",
                path=f"/api/deployments/{{id:uuid}}/{name}_deployment",
                handler=handler,
                summary=f"{name.capitalize()} a deployment",
                tag=_TAG,
                answers={200: type(None)},
                refusals=gone,
            )
            for name, handler in (("pause", deployments.pause), ("resume", deployments.resume))
        ),
    ]
