"""`/api/concurrency_limits`: how many runs with a tag are RUNNING at once."""

from __future__ import annotations

from ..clock import to_datetime
from ..core.core import Core
from ..errors import NotFound
from ..schemas.base import Paged
from ..schemas.limits import ConcurrencyLimit, LimitCreate, LimitReset
from ..storage.tag_limits import LimitRecord
from .routes import Answer, Route

_TAG = "concurrency_limits"


class ConcurrencyLimits:
    """The use cases, on one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(self, body: LimitCreate) -> Answer:
        """Make a tag's limit, or change it."""
        limit_id, new = await self._core.tag_limits.put(body.tag, body.concurrency_limit)
        return Answer(201 if new else 200, await self.read(limit_id))

    async def read(self, id: str) -> ConcurrencyLimit:
        """Return a limit."""
        return _shown(await self._core.store.tag_limits.get(id))

    async def read_by_tag(self, tag: str) -> ConcurrencyLimit:
        """Return a tag's limit."""
        return _shown(await self._core.store.tag_limits.by_tag(tag))

    async def filter(self, body: Paged) -> list[ConcurrencyLimit]:
        """Return part of the limits."""
        return [_render(one) for one in await self._core.store.tag_limits.list(body.size, body.offset or 0)]

    async def reset(self, tag: str, body: LimitReset) -> None:
        """Say which runs have the slots."""
        await self._core.tag_limits.reset(tag, tuple(dict.fromkeys(body.slot_override or ())))

    async def delete(self, id: str) -> None:
        """Delete a limit."""
        await self._core.tag_limits.delete((await self.read(id)).tag)

    async def delete_by_tag(self, tag: str) -> None:
        """Delete a tag's limit."""
        await self._core.tag_limits.delete(tag)


def _shown(limit: LimitRecord | None) -> ConcurrencyLimit:
    if limit is None:
        raise NotFound("Concurrency limit not found")
    return _render(limit)


def _render(limit: LimitRecord) -> ConcurrencyLimit:
    return ConcurrencyLimit(
        id=limit.id,
        created=to_datetime(limit.created),
        updated=to_datetime(limit.updated),
        tag=limit.tag,
        concurrency_limit=limit.concurrency_limit,
        active_slots=list(limit.holders),
    )


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    limits = ConcurrencyLimits(core)
    by_id, by_tag = "/api/concurrency_limits/{id:uuid}", "/api/concurrency_limits/tag/{tag:path}"
    gone = {404: "There is no such limit"}
    return [
        Route(
            method="POST",
            path="/api/concurrency_limits/",
            handler=limits.create,
            summary="Make a tag's limit, or change it",
            tag=_TAG,
            answers={201: ConcurrencyLimit, 200: ConcurrencyLimit},
            body=LimitCreate,
        ),
        Route(
            method="POST",
            path="/api/concurrency_limits/filter",
            handler=limits.filter,
            summary="List limits by tag",
            tag=_TAG,
            answers={200: list[ConcurrencyLimit]},
            body=Paged,
        ),
        Route(
            method="GET",
            path=by_id,
            handler=limits.read,
            summary="Read a limit",
            tag=_TAG,
            answers={200: ConcurrencyLimit},
            refusals=gone,
        ),
        Route(
            method="DELETE",
            path=by_id,
            handler=limits.delete,
            summary="Delete a limit",
            tag=_TAG,
            answers={204: None},
            refusals=gone,
        ),
        Route(
            method="POST",
            path=f"{by_tag}/reset",
            handler=limits.reset,
            summary="Say which runs have a tag's slots",
            tag=_TAG,
            answers={200: type(None)},
            refusals=gone,
            body=LimitReset,
        ),
        Route(
            method="GET",
            path=by_tag,
            handler=limits.read_by_tag,
            summary="Read a tag's limit",
            tag=_TAG,
            answers={200: ConcurrencyLimit},
            refusals=gone,
        ),
        Route(
            method="DELETE",
            path=by_tag,
            handler=limits.delete_by_tag,
            summary="Delete a tag's limit",
            tag=_TAG,
            answers={204: None},
            refusals=gone,
        ),
    ]
