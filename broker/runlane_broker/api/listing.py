"""Lists of anything: filtered, counted, by pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ..schemas.lists import size_of
from ..storage.listing import Listing
from .routes import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The types of lists of one kind, and how one of it is shown."""

    path: str
    noun: str
    render: Callable[..., Any]
    shown: type[msgspec.Struct]
    filters: type[msgspec.Struct]
    listed: type[msgspec.Struct]
    paged: type[msgspec.Struct]
    page: type[msgspec.Struct]


class Lists:
    """The use cases, on one list."""

    def __init__(self, listing: Listing[Any], listed: Listed) -> None:
        self._listing = listing
        self._listed = listed

    async def filter(self, body: Any) -> list[Any]:
        """Return part of the list."""
        found = await self._listing.list(body.filters(), body.sort, size_of(body.limit), body.offset or 0)
        return self._shown(found)

    async def count(self, body: Any) -> int:
        """Return how many there are."""
        return await self._listing.count(body.filters())

    async def paginate(self, body: Any) -> Any:
        """Return a page of the list, and how many pages there are."""
        limit, page = size_of(body.limit), body.page or 1
        count = await self._listing.count(body.filters())
        found = await self._listing.list(body.filters(), body.sort, limit, (page - 1) * limit)
        pages = -(-count // limit) if limit else 0
        return self._listed.page(results=self._shown(found), count=count, limit=limit, pages=pages, page=page)

    def _shown(self, found: Sequence[Any]) -> list[Any]:
        return [self._listed.render(one) for one in found]


def list_routes(lists: Lists, listed: Listed) -> list[Route]:
    """Return the routes of a list."""
    tag, noun = listed.path.rpartition("/")[2], listed.noun

    def post(name: str, handler: Any, summary: str, body: Any, answer: Any) -> Route:
        path = f"{listed.path}/{name}"
        return Route(
            method="POST", path=path, handler=handler, summary=summary, tag=tag, answers={200: answer}, body=body
        )

    return [
        post("filter", lists.filter, f"List {noun}s", listed.listed, list[listed.shown]),
        post("count", lists.count, f"Count {noun}s", listed.filters, int),
        post("paginate", lists.paginate, f"List {noun}s by pages", listed.paged, listed.page),
    ]
