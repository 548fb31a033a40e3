"""Flows and deployments: made, changed, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runlane.protocol.ids import uuid7

from ..errors import Conflict, NotFound
from ..storage.flow_records import DeploymentValues
from ..storage.operations.flows import (
    CreateFlow,
    DeleteDeployment,
    DeleteFlow,
    Made,
    PutDeployment,
    UpdateDeployment,
    UpdateFlow,
)
from ..storage.store import Store


class Flows:
    """What can be done with flows and deployments. All raise `StoreUnavailable`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, name: str, tags: tuple[str, ...], labels: Mapping[str, Any]) -> Made:
        """Make a flow, or find the one with this name, which stays as it is."""
        return await self._store.run(CreateFlow(uuid7(), name, tags, labels))

    async def update(self, flow_id: str, tags: tuple[str, ...]) -> None:
        """Give a flow other tags. Raises `NotFound`."""
        if not await self._store.run(UpdateFlow(flow_id, tags)):
            raise NotFound("Flow not found")

    async def delete(self, flow_id: str) -> None:
        """Delete a flow with its deployments and runs. Raises `NotFound`."""
        if not await self._store.run(DeleteFlow(flow_id)):
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
