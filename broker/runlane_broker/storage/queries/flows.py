"""Statements on flows and deployments: the writer's, and what the edges read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Delete, Insert, Select, Update, delete, insert, select, update
from sqlalchemy.sql.base import Executable

from ..tables import deployment, flow, work_pool, work_queue
from .base import param

#: What stays when a deployment is changed.
_FIXED = frozenset({"id", "flow_id", "name", "created"})


def insert_flow() -> Insert:
    """Insert a flow."""
    return insert(flow).values({c.name: param(c.name) for c in flow.c})


def find_flow() -> Executable:
    """Return the id of the flow with a name."""
    return select(flow.c.id).where(flow.c.name == param("name"))


def has_flow() -> Executable:
    """Return a row if there is a flow."""
    return select(flow.c.id).where(flow.c.id == param("id"))


def update_flow() -> Update:
    """Change a flow's tags."""
    return update(flow).where(flow.c.id == param("id")).values(tags=param("tags"), updated=param("updated"))


def delete_flow() -> Delete:
    """Delete a flow, with its deployments and runs."""
    return delete(flow).where(flow.c.id == param("id"))


def insert_deployment() -> Insert:
    """Insert a deployment."""
    return insert(deployment).values({c.name: param(c.name) for c in deployment.c})


def find_deployment() -> Executable:
    """Return a flow's deployment with a name."""
    d = deployment.c
    return select(deployment).where(d.flow_id == param("flow_id"), d.name == param("name"))


def get_deployment() -> Executable:
    """Return a deployment's row."""
    return select(deployment).where(deployment.c.id == param("id"))


def update_deployment() -> Update:
    """Write a deployment anew."""
    values = {c.name: param(c.name) for c in deployment.c if c.name not in _FIXED}
    return update(deployment).where(deployment.c.id == param("id")).values(values)


def delete_deployment() -> Delete:
    """Delete a deployment; its runs stay, without one."""
    return delete(deployment).where(deployment.c.id == param("id"))


# Reading -----------------------------------------------------------------------------------------------------


def read_flows() -> Select[Any]:
    """Return all flows."""
    return select(flow)


def read_deployments() -> Select[Any]:
    """Return all deployments, with their queues and pools."""
    return (
        select(
            deployment,
            flow.c.name.label("flow_name"),
            work_pool.c.name.label("work_pool_name"),
            work_queue.c.last_polled,
            work_queue.c.status.label("queue_status"),
        )
        .join(flow, flow.c.id == deployment.c.flow_id)
        .outerjoin(work_queue, work_queue.c.id == deployment.c.work_queue_id)
        .outerjoin(work_pool, work_pool.c.id == work_queue.c.work_pool_id)
    )
