"""Flows and deployments: made, changed, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from runlane.protocol.ids import uuid7

from ..errors import Conflict, NotFound
from ..storage.flow_records import DeploymentRecord, DeploymentValues
from ..storage.operations.flows import (
    CreateFlow,
    DeleteDeployment,
    Made,
    PutDeployment,
    UpdateDeployment,
    UpdateFlow,
)
from ..storage.records import NewFlowRun
from ..storage.store import Store
from .transitions import Transitions

_objects = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def run_of(deployment: DeploymentRecord, asked: NewFlowRun) -> NewFlowRun:
    """Return the run of a deployment that was asked for: what the deployment says, and over it what was asked."""
    values = deployment.values
    return replace(
        asked,
        flow_id=deployment.flow_id,
        deployment_id=deployment.id,
        parameters=_merged(values.parameters, asked.parameters),
        job_variables=_merged(values.job_variables, asked.job_variables),
        tags=tuple(dict.fromkeys((*values.tags, *asked.tags))),
        labels={**values.labels, "prefect.deployment.id": deployment.id, **asked.labels},
        work_pool_name=deployment.work_pool_name,
        work_queue_name=asked.work_queue_name or values.work_queue_name,
        flow_version=asked.flow_version or values.version,
    )


def _merged(below: bytes, above: bytes) -> bytes:
    """Merge two JSON objects; their values pass through as they are."""
    return below if above == b"{}" else _encode({**_objects(below), **_objects(above)})


class Flows:
    """What can be done with flows and deployments. All raise `StoreUnavailable`."""

    def __init__(self, store: Store, transitions: Transitions) -> None:
        self._store = store
        self._transitions = transitions

    async def create(self, name: str, tags: tuple[str, ...], labels: Mapping[str, Any]) -> Made:
        """Make a flow, or find the one with this name, which stays as it is."""
        return await self._store.run(CreateFlow(uuid7(), name, tags, labels))

    async def update(self, flow_id: str, tags: tuple[str, ...]) -> None:
        """Give a flow other tags. Raises `NotFound`."""
        if not await self._store.run(UpdateFlow(flow_id, tags)):
            raise NotFound("Flow not found")

    async def delete(self, flow_id: str) -> None:
        """Delete a flow with its deployments and runs. Raises `NotFound`."""
        if not await self._transitions.delete_flow(flow_id):
            raise NotFound("Flow not found")

    async def put_deployment(self, flow_id: str, name: str, values: DeploymentValues, pool: str | None) -> Made:
        """Make a flow's deployment, or change the one of this name.

        Raises `Conflict` without the flow, `NotFound` without the work queue.
        """
        made = await self._store.run(PutDeployment(uuid7(), flow_id, name, values, pool))
        if made is None:
            raise Conflict(f"There is no flow {flow_id}.")
        return made

    async def update_deployment(self, deployment_id: str, changes: Mapping[str, Any]) -> None:
        """Change what is given. Raises `NotFound`."""
        if not await self._store.run(UpdateDeployment(deployment_id, changes)):
            raise NotFound("Deployment not found")

    async def delete_deployment(self, deployment_id: str) -> None:
        """Delete a deployment; its runs stay. Raises `NotFound`."""
        if not await self._store.run(DeleteDeployment(deployment_id)):
            raise NotFound("Deployment not found")
