"""Lists of anything: filtered, sorted, counted, by offset or by cursor."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Select
from sqlalchemy.ext.asyncio import AsyncConnection

from runlane.protocol.ids import is_id

from ..errors import Invalid
from ..schemas.filters import ALL, Filters
from .filters import Source, conditions, driving
from .queries.base import param
from .queries.listing import Order, count_rows, count_up_to, order_of, page_absent, page_present
from .unindexed import unindexed

R_co = TypeVar("R_co", covariant=True)
Reading: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncConnection]]


class Place(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Behind which row a list goes on. `key` is null for a row that has nothing to sort by."""

    sort: str
    key: int | str | None
    id: str


class Listing(Generic[R_co]):
    """What there is of one kind. `rows` reads whole rows, `record` makes records of them.

    Ids are found first, so that what is skipped or sorted is narrow, and often stands in an index. All raise
    `StoreUnavailable`.
    """

    #: So many rows are not sorted for a page. To find out whether there are takes milliseconds.
    many = 20_000

    def __init__(
        self,
        source: Source,
        default: StrEnum,
        reading: Reading,
        rows: Select[Any],
        record: Callable[[Any], R_co],
    ) -> None:
        self._source = source
        self._default = default
        self._reading = reading
        # Built once: to build it, and to name what it builds, takes longer than to execute it.
        self._those = rows.where(source.table.c.id.in_(param("ids", expanding=True)))
        self._record = record

    async def list(
        self, filters: Filters = ALL, sort: StrEnum | None = None, limit: int = 200, offset: int = 0
    ) -> list[R_co]:
        """Return part of what the filters take."""
        sort = sort or self._default
        order = order_of(self._source.table, sort)
        async with self._reading() as connection:
            where = await self._where(connection, filters)
            places = await self._by_offset(connection, where, order, sort, limit, offset)
            return await self._records(connection, places)

    async def count(self, filters: Filters = ALL) -> int:
        """Return how many the filters take."""
        async with self._reading() as connection:
            return await self._count(connection, conditions(self._source, filters))

    async def cursor(
        self, filters: Filters = ALL, sort: StrEnum | None = None, limit: int = 200, cursor: str | None = None
    ) -> tuple[list[R_co], str | None]:
        """Return what follows a cursor, and the cursor of what follows that, if anything does.

        However long the list is, going on takes as long as beginning. Raises `Invalid` for what is no cursor of
        this sort.
        """
        sort = sort or self._default
        order = order_of(self._source.table, sort)
        after = None if cursor is None else _decode(cursor, sort, order)
        async with self._reading() as connection:
            where = await self._where(connection, filters)
            places = await self._by_cursor(connection, where, order, sort, limit + 1, after)
            more, places = len(places) > limit, places[:limit]
            records = await self._records(connection, places)
        return records, _encode(places[-1]) if more and places else None

    async def _where(self, connection: AsyncConnection, filters: Filters) -> list[ColumnElement[bool]]:
        """Return the conditions of a page.

        Where many rows meet them, those of a page are found sooner in the order of the list than by the
        conditions, whose rows would all have to be sorted.
        """
        where, found_by = conditions(self._source, filters), driving(self._source, filters)
        if not found_by:
            return where
        count = (await connection.execute(count_up_to(self._source.table, found_by, self.many))).scalar_one()
        return where if count < self.many else [unindexed(condition) for condition in where]

    # Places ----------------------------------------------------------------------------------------------

    async def _by_offset(
        self,
        connection: AsyncConnection,
        where: Sequence[ColumnElement[bool]],
        order: Order,
        sort: StrEnum,
        limit: int,
        offset: int,
    ) -> Sequence[Place]:
        query = page_present(self._source.table, where, order).limit(limit).offset(offset)
        places = await _present(connection, query, sort)
        if order.present is None or len(places) == limit:
            return places
        skipped = 0
        if offset and not places:
            skipped = offset - await self._count(connection, [*where, order.present])
        rest = page_absent(self._source.table, where, order).limit(limit - len(places)).offset(skipped)
        return [*places, *await _absent(connection, rest, sort)]

    async def _by_cursor(
        self,
        connection: AsyncConnection,
        where: Sequence[ColumnElement[bool]],
        order: Order,
        sort: StrEnum,
        limit: int,
        after: Place | None,
    ) -> Sequence[Place]:
        table = self._source.table
        places: list[Place] = []
        if after is None or after.key is not None:
            query = page_present(table, where, order, after and (after.key, after.id)).limit(limit)
            places = await _present(connection, query, sort)
            after = None
        if order.present is None or len(places) == limit:
            return places
        rest = page_absent(table, where, order, after and after.id).limit(limit - len(places))
        return [*places, *await _absent(connection, rest, sort)]

    async def _count(self, connection: AsyncConnection, where: Sequence[ColumnElement[bool]]) -> int:
        return (await connection.execute(count_rows(self._source.table, where))).scalar_one()

    async def _records(self, connection: AsyncConnection, places: Sequence[Place]) -> list[R_co]:
        """Return the records in their order; what has been deleted since is left out."""
        ids = [place.id for place in places]
        if not ids:
            return []
        rows = {row.id: row for row in await connection.execute(self._those, {"ids_": ids})}
        return [self._record(rows[id_]) for id_ in ids if id_ in rows]


async def _present(connection: AsyncConnection, query: Select[*tuple[Any, ...]], sort: StrEnum) -> list[Place]:
    return [Place(sort.value, row.key, row.id) for row in await connection.execute(query)]


async def _absent(connection: AsyncConnection, query: Select[*tuple[Any, ...]], sort: StrEnum) -> list[Place]:
    return [Place(sort.value, None, row.id) for row in await connection.execute(query)]


# Cursors -----------------------------------------------------------------------------------------------------


def _encode(place: Place) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def _decode(cursor: str, sort: StrEnum, order: Order) -> Place:
    """Return the place that a cursor names. Raises `Invalid`."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        place = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=Place)
    except (UnicodeEncodeError, binascii.Error, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise Invalid("This is no cursor.", "cursor") from exc
    fits = order.present is not None if place.key is None else isinstance(place.key, order.key.type.python_type)
    if not fits or place.sort != sort.value or not _storable(place):
        raise Invalid("This is no cursor of this list and sort.", "cursor")
    return place


def _storable(place: Place) -> bool:
    key = place.key
    return is_id(place.id) and ("\0" not in key if isinstance(key, str) else key is None or abs(key) < 2**63)
