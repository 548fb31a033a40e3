"""Limits on how many runs with a tag are RUNNING at once."""

from __future__ import annotations

from runlane.protocol.ids import uuid7

from ..errors import NotFound
from ..storage.operations.limits import DeleteLimit, FreeTagSlots, ResetLimit, SetLimit, TakeTagSlots
from ..storage.store import Store

_MISSING = "Concurrency limit not found"


class TagLimits:
    """What can be done with limits. All raise `StoreUnavailable`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, tag: str, slots: int) -> tuple[str, bool]:
        """Make a tag's limit, or change it; return its id and whether it is new."""
        return await self._store.run(SetLimit(uuid7(), tag, slots))

    async def reset(self, tag: str, holders: tuple[str, ...]) -> None:
        """Give a tag's slots to these runs and no others. Raises `NotFound`."""
        if not await self._store.run(ResetLimit(tag, holders)):
            raise NotFound(_MISSING)

    async def take(self, run_id: str, tags: tuple[str, ...]) -> tuple[tuple[str, str, int], ...] | None:
        """Take a slot of each of these tags that is limited; None where one is full.

        Returns the limits by id, tag and number of slots. What a run has already it does not take twice.
        """
        return await self._store.run(TakeTagSlots(run_id, tags))

    async def leave(self, run_id: str) -> None:
        """Give all slots of a run back."""
        await self._store.run(FreeTagSlots(run_id))

    async def delete(self, tag: str) -> None:
        """Limit a tag no more. Raises `NotFound`."""
        if not await self._store.run(DeleteLimit(tag)):
            raise NotFound(_MISSING)
