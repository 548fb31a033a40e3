"""Flows and deployments: made, changed, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..flow_records import DeploymentValues
from ..queries import flows as q
from ..tables import deployment
from ..transaction import Transaction
from .base import Operation
from .queues import resolve_queue

_encode = msgspec.json.Encoder().encode
_COLUMNS = tuple(column.name for column in deployment.c)


@dataclass(frozen=True, slots=True)
class Made:
    """What there is now, and whether it is new."""

    id: str
    created: bool


@dataclass(frozen=True, slots=True)
class CreateFlow(Operation[Made]):
    """Make a flow, unless there is one with this name."""

    id: str
    name: str
    tags: tuple[str, ...]
    labels: Mapping[str, Any]

    def execute(self, tx: Transaction) -> Made:
        """Insert it, or find it."""
        existing = tx.row(q.find_flow, {"name": self.name})
        if existing is not None:
            return Made(existing[0], created=False)
        row = {
            "id": self.id,
            "name": self.name,
            "tags": _text(self.tags),
            "labels": _text(self.labels),
            "created": tx.now,
            "updated": tx.now,
        }
        tx.run(q.insert_flow, row)
        return Made(self.id, created=True)


@dataclass(frozen=True, slots=True)
class UpdateFlow(Operation[bool]):
    """Give a flow other tags; False if there is none."""

    id: str
    tags: tuple[str, ...]

    def execute(self, tx: Transaction) -> bool:
        """Write them."""
        return tx.run(q.update_flow, {"id": self.id, "tags": _text(self.tags), "updated": tx.now}) > 0


@dataclass(frozen=True, slots=True)
class PutDeployment(Operation[Made | None]):
    """Make a deployment, or change the one that its flow has under this name; None if there is no such flow.

    Raises `NotFound` for a pool that there is not.
    """

    id: str
    flow_id: str
    name: str
    values: DeploymentValues
    work_pool_name: str | None = None

    def execute(self, tx: Transaction) -> Made | None:
        """Insert or update it."""
        if tx.row(q.has_flow, {"id": self.flow_id}) is None:
            return None
        values = {**_columns(self.values), **_queue(tx, self.work_pool_name, self.values.work_queue_name)}
        found = tx.row(q.find_deployment, {"flow_id": self.flow_id, "name": self.name})
        if found is not None:
            old = dict(zip(_COLUMNS, found, strict=True))
            tx.run(q.update_deployment, {**old, **values, "updated": tx.now})
            return Made(old["id"], created=False)
        fixed = {"id": self.id, "flow_id": self.flow_id, "name": self.name, "created": tx.now, "updated": tx.now}
        tx.run(q.insert_deployment, {**fixed, **values})
        return Made(self.id, created=True)


@dataclass(frozen=True, slots=True)
class UpdateDeployment(Operation[bool]):
    """Change what is given of a deployment (columns by name, and `work_pool_name`); False if there is none.

    Raises `NotFound` for a pool that there is not.
    """

    id: str
    changes: Mapping[str, Any]

    def execute(self, tx: Transaction) -> bool:
        """Write it anew."""
        found = tx.row(q.get_deployment, {"id": self.id})
        if found is None:
            return False
        old = dict(zip(_COLUMNS, found, strict=True))
        changes = _as_columns(self.changes)
        pool = changes.pop("work_pool_name", None)
        if pool is not None or "work_queue_name" in changes:
            changes.update(_queue(tx, pool, changes.get("work_queue_name")))
        tx.run(q.update_deployment, {**old, **changes, "updated": tx.now})
        return True


@dataclass(frozen=True, slots=True)
class DeleteDeployment(Operation[bool]):
    """Delete a deployment; False if there is none. Its runs stay."""

    id: str

    def execute(self, tx: Transaction) -> bool:
        """Delete it."""
        return tx.run(q.delete_deployment, {"id": self.id}) > 0


def _queue(tx: Transaction, pool: str | None, queue: str | None) -> dict[str, Any]:
    """Return the columns that name a queue, which is made if need be. Raises `NotFound` for its pool."""
    if pool is None and queue is None:
        return {"work_queue_name": None, "work_queue_id": None}
    queue_id, name = resolve_queue(tx, pool, queue)
    return {"work_queue_name": name, "work_queue_id": queue_id}


def _columns(values: DeploymentValues) -> dict[str, Any]:
    return _as_columns({name: getattr(values, name) for name in values.__slots__})


def _as_columns(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _text(value) if name in ("tags", "labels") else value for name, value in values.items()}


def _text(value: Any) -> str:
    return _encode(value).decode()
