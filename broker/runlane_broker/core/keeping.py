"""Objects that clients keep with the broker and get back, by kind and name, and the lines of their logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from runlane.protocol.ids import uuid7

from ..errors import Conflict, NotFound
from ..storage.kept import KeptObject
from ..storage.operations.keeping import DropObject, KeepLog, KeepObject, LogLine, ReplaceObject
from ..storage.store import Store

_encode = msgspec.json.Encoder().encode


class Keeping:
    """What can be done with what is kept. All raise `StoreUnavailable`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, kind: str, name: str, data: Mapping[str, Any], parent: str = "") -> KeptObject:
        """Keep an object. Raises `Conflict` if another one has its name."""
        object_id = uuid7()
        if not await self._store.run(KeepObject(object_id, kind, parent, name, _encode(data))):
            raise Conflict(f"There is another {kind.replace('_', ' ')} with this name.")
        return await self.get(kind, object_id)

    async def get(self, kind: str, object_id: str) -> KeptObject:
        """Return an object. Raises `NotFound`."""
        return self._found(kind, await self._store.kept.get(kind, object_id))

    async def named(self, kind: str, name: str, parent: str | None = None) -> KeptObject:
        """Return the newest object of a name. Raises `NotFound`."""
        return self._found(kind, await self._store.kept.named(kind, name, parent))

    async def change(self, kind: str, object_id: str, changes: Mapping[str, Any]) -> KeptObject:
        """Replace some fields of an object. Raises `NotFound`."""
        known = await self.get(kind, object_id)
        data = _encode({**msgspec.json.decode(known.data), **changes})
        if not await self._store.run(ReplaceObject(object_id, kind, data)):
            self._found(kind, None)
        return await self.get(kind, object_id)

    async def drop(self, kind: str, object_id: str) -> None:
        """Keep an object no more. Raises `NotFound`."""
        if not await self._store.run(DropObject(object_id, kind)):
            self._found(kind, None)

    async def log(self, lines: Sequence[LogLine]) -> None:
        """Keep lines of logs."""
        await self._store.run(KeepLog(tuple(lines)))

    def _found(self, kind: str, found: KeptObject | None) -> KeptObject:
        if found is None:
            raise NotFound(f"{kind.replace('_', ' ').capitalize()} not found")
        return found
