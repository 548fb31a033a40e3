"""Reading flows and deployments, one at a time. (Lists are read where all lists are.)"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.base import Executable

from .flow_records import DeploymentRecord, FlowRecord, deployment_record, flow_record
from .queries import flows as q
from .tables import deployment, flow


class FlowReader:
    """What is known of a flow or a deployment. All raise `StoreUnavailable`."""

    def __init__(self, reading: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._reading = reading

    async def flow(self, flow_id: str) -> FlowRecord | None:
        """Return a flow."""
        row = await self._row(q.read_flows().where(flow.c.id == flow_id))
        return None if row is None else flow_record(row)

    async def flow_by_name(self, name: str) -> FlowRecord | None:
        """Return the flow with a name."""
        row = await self._row(q.read_flows().where(flow.c.name == name))
        return None if row is None else flow_record(row)

    async def deployment(self, deployment_id: str) -> DeploymentRecord | None:
        """Return a deployment."""
        row = await self._row(q.read_deployments().where(deployment.c.id == deployment_id))
        return None if row is None else deployment_record(row)

    async def deployment_by_name(self, flow_name: str, name: str) -> DeploymentRecord | None:
        """Return the deployment with a name, of the flow with a name."""
        query = q.read_deployments().where(flow.c.name == flow_name, deployment.c.name == name)
        row = await self._row(query)
        return None if row is None else deployment_record(row)

    async def _row(self, query: Executable) -> Any:
        async with self._reading() as connection:
            return (await connection.execute(query)).one_or_none()
