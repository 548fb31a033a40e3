"""Limits on how many runs with a tag are RUNNING at once."""

from __future__ import annotations

from runlane.protocol.ids import uuid7

from ..errors import NotFound
from ..storage.operations.flows import Made
from ..storage.operations.tag_limits import DeleteLimit, PutLimit, ResetLimit
from ..storage.store import Store

_MISSING = "Concurrency limit not found"


class TagLimits:
    """What can be done with limits. All raise `StoreUnavailable`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, tag: str, concurrency_limit: int) -> Made:
        """Make a tag's limit, or change it."""
        return await self._store.run(PutLimit(uuid7(), tag, concurrency_limit))

    async def reset(self, tag: str, holders: tuple[str, ...]) -> None:
        """Give a tag's slots to these runs and no others. Raises `NotFound`."""
        if not await self._store.run(ResetLimit(tag, holders)):
            raise NotFound(_MISSING)

    async def delete(self, limit_id: str) -> None:
        """Delete a limit. Raises `NotFound`."""
        if not await self._store.run(DeleteLimit(limit_id)):
            raise NotFound(_MISSING)
