"""`/api/v2/concurrency_limits`: how Prefect 3 takes slots of limited tags before a task run starts.

A lease on slots is the task run's own, under its id: it ends with the run, and with the worker that is lost. So
there is no time within which it has to be renewed; being asked to is answered all the same.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta, Struct, field

from runlane.protocol.ids import uuid7

from ..api.routes import Answer, Route
from ..core.core import Core
from ..orchestration.facts import SLOT_WAIT_SECONDS
from ..schemas.ids import Id
from .blocks import TAG

_PREFIX: Final = "tag:"
_LEASES: Final = "/api/v2/concurrency_limits"


class Holder(Struct):
    """Who takes slots."""

    type: str
    id: Id


class SlotsWanted(Struct):
    """Slots to be taken."""

    names: Annotated[list[str], Meta(max_length=200)] = field(default_factory=list[str])
    slots: int = 1
    mode: str = "concurrency"
    lease_duration: float | None = None
    holder: Holder | None = None


class SlotsLeft(Struct):
    """The lease that is given back."""

    lease_id: Id


class Renewal(Struct):
    """For how much longer."""

    lease_duration: float | None = None


class TagSlots:
    """The use cases, on one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def take(self, body: SlotsWanted) -> Answer:
        """Take a slot of each tag that is limited. There are no limits but those of tags."""
        holder = body.holder
        tags = [name.removeprefix(_PREFIX) for name in body.names if name.startswith(_PREFIX)]
        if holder is None or holder.type != "task_run" or not tags:
            return Answer(200, {"lease_id": uuid7(), "limits": []})
        taken = await self._core.tag_limits.take(holder.id.lower(), tuple(tags))
        if taken is None:
            return Answer(423, {"detail": "Locked"}, {"Retry-After": f"{SLOT_WAIT_SECONDS / 10:g}"})
        limits = [{"id": limit_id, "name": f"{_PREFIX}{tag}", "limit": slots} for limit_id, tag, slots in taken]
        return Answer(200, {"lease_id": holder.id.lower(), "limits": limits})

    async def leave(self, body: SlotsLeft) -> None:
        """Give a task run's slots back."""
        await self._core.tag_limits.leave(body.lease_id.lower())

    async def renew(self, id: str, body: Renewal) -> None:
        """A lease lasts as long as its run."""


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    slots = TagSlots(core)

    def post(path: str, handler: Any, summary: str, body: Any, answers: dict[int, Any]) -> Route:
        return Route(
            method="POST", path=path, handler=handler, summary=summary, tag=TAG, answers=answers, body=body
        )

    full = {200: dict[str, Any], 423: dict[str, Any]}
    return [
        post(f"{_LEASES}/increment-with-lease", slots.take, "Take slots of tags", SlotsWanted, full),
        post(f"{_LEASES}/decrement-with-lease", slots.leave, "Give slots back", SlotsLeft, {204: None}),
        post(f"{_LEASES}/leases/{{id:uuid}}/renew", slots.renew, "Keep slots", Renewal, {204: None}),
    ]
