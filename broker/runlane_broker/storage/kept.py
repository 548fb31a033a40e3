"""Reading what clients keep here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select

from .operations.keeping import LogLine
from .queries.kept import newest_ids, read_log_lines, read_objects
from .runs import Reading
from .tables import kept_object, log_line


@dataclass(frozen=True, slots=True)
class KeptObject:
    """An object as it was kept. `data` is a JSON object; times in microseconds UTC."""

    id: str
    parent: str
    name: str
    data: bytes
    created: int
    updated: int


class KeptReader:
    """What is kept. All raise `StoreUnavailable`."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def get(self, kind: str, object_id: str) -> KeptObject | None:
        """Return an object."""
        return _first(await self._objects(_of(kind).where(kept_object.c.id == object_id)))

    async def named(self, kind: str, name: str, parent: str | None = None) -> KeptObject | None:
        """Return the newest object of a name."""
        query = _of(kind).where(kept_object.c.name == name)
        if parent is not None:
            query = query.where(kept_object.c.parent == parent)
        return _first(await self._objects(query.order_by(kept_object.c.id.desc()).limit(1)))

    async def list(
        self,
        kind: str,
        limit: int,
        offset: int = 0,
        parent: str | None = None,
        names: Sequence[str] | None = None,
        has_name: bool | None = None,
    ) -> Sequence[KeptObject]:
        """Return part of the objects of a kind, by name. What is None is not asked."""
        query = _of(kind) if parent is None else _of(kind).where(kept_object.c.parent == parent)
        if names is not None:
            query = query.where(kept_object.c.name.in_(names))
        if has_name is not None:
            query = query.where(kept_object.c.name != "" if has_name else kept_object.c.name == "")
        order = (kept_object.c.name, kept_object.c.id)
        return await self._objects(query.order_by(*order).limit(limit).offset(offset))

    async def latest(
        self, kind: str, limit: int, offset: int = 0, names: Sequence[str] | None = None
    ) -> Sequence[KeptObject]:
        """Return the newest object of each name, by name; `names` are those that are asked for."""
        newest = newest_ids(kind)
        if names is not None:
            newest = newest.where(kept_object.c.name.in_(names))
        query = read_objects().where(kept_object.c.id.in_(newest))
        return await self._objects(query.order_by(kept_object.c.name).limit(limit).offset(offset))

    async def log(
        self,
        limit: int,
        offset: int = 0,
        *,
        task_run_ids: Sequence[str] | None = None,
        flow_run_ids: Sequence[str] | None = None,
        from_level: int | None = None,
        after: int | None = None,
        before: int | None = None,
        descending: bool = False,
    ) -> Sequence[LogLine]:
        """Return part of the lines that all of this is true of, by time. What is None is not asked."""
        line = log_line.c
        conditions = (
            None if task_run_ids is None else line.task_run_id.in_(task_run_ids),
            None if flow_run_ids is None else line.flow_run_id.in_(flow_run_ids),
            None if from_level is None else line.level >= from_level,
            None if after is None else line.timestamp >= after,
            None if before is None else line.timestamp <= before,
        )
        query = read_log_lines().where(*(one for one in conditions if one is not None))
        order = (line.timestamp.desc(), line.id.desc()) if descending else (line.timestamp, line.id)
        async with self._reading() as connection:
            rows = (await connection.execute(query.order_by(*order).limit(limit).offset(offset))).all()
        return [LogLine(**{name: getattr(row, name) for name in LogLine.__slots__}) for row in rows]

    async def _objects(self, query: Select[Any]) -> Sequence[KeptObject]:
        async with self._reading() as connection:
            rows = (await connection.execute(query)).all()
        return [KeptObject(r.id, r.parent, r.name, r.data, r.created, r.updated) for r in rows]


def _of(kind: str) -> Select[Any]:
    return read_objects().where(kept_object.c.kind == kind)


def _first(found: Sequence[KeptObject]) -> KeptObject | None:
    return found[0] if found else None
