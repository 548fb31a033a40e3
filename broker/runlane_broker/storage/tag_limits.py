"""Reading the limits by tag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select

from .queries.tag_limits import read_limits, read_slots
from .runs import Reading
from .tables import concurrency_limit, concurrency_slot


@dataclass(frozen=True, slots=True)
class LimitRecord:
    """A limit, with the task runs that have its slots. Times in microseconds UTC."""

    id: str
    tag: str
    concurrency_limit: int
    created: int
    updated: int
    holders: tuple[str, ...]


class LimitReader:
    """What is known of the limits. All raise `StoreUnavailable`."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def get(self, limit_id: str) -> LimitRecord | None:
        """Return a limit."""
        found = await self._read(read_limits().where(concurrency_limit.c.id == limit_id))
        return found[0] if found else None

    async def by_tag(self, tag: str) -> LimitRecord | None:
        """Return a tag's limit."""
        found = await self._read(read_limits().where(concurrency_limit.c.tag == tag))
        return found[0] if found else None

    async def list(self, limit: int, offset: int) -> Sequence[LimitRecord]:
        """Return part of the limits, by tag."""
        return await self._read(read_limits().order_by(concurrency_limit.c.tag).limit(limit).offset(offset))

    async def _read(self, query: Select[Any]) -> Sequence[LimitRecord]:
        async with self._reading() as connection:
            rows = (await connection.execute(query)).all()
            ids = [row.id for row in rows]
            slots = (
                await connection.execute(read_slots().where(concurrency_slot.c.concurrency_limit_id.in_(ids)))
            ).all()
        holders: dict[str, list[str]] = {}
        for slot in slots:
            holders.setdefault(slot.concurrency_limit_id, []).append(slot.task_run_id)
        return [
            LimitRecord(r.id, r.tag, r.concurrency_limit, r.created, r.updated, tuple(holders.get(r.id, ())))
            for r in rows
        ]
