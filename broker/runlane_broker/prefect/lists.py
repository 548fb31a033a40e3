"""What Prefect's command line lists: blocks and artifacts that are kept here, and what there is none of."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from msgspec import Struct

from ..api.routes import Handler, Route
from ..core.core import Core
from ..schemas.base import MAX_LIMIT, Paged
from .blocks import TAG, Blocks, Secrets, shown

_Object: TypeAlias = dict[str, Any]
_ARTIFACT: Final = "artifact"


class KeyFilter(Struct, forbid_unknown_fields=True):
    """Those with one of these keys; those with a key, or with none."""

    any_: list[str] | None = None
    exists_: bool | None = None


class ArtifactFilter(Struct, forbid_unknown_fields=True):
    """Which artifacts."""

    key: KeyFilter | None = None


class ArtifactsFilter(Paged):
    """Which artifacts; they come by key. Filters of their runs are not supported: these must be null."""

    artifacts: ArtifactFilter | None = None
    flow_runs: None = None
    task_runs: None = None


class TypesFilter(Paged):
    """Which block types; they come by slug."""

    block_types: None = None
    block_schemas: None = None


class DocumentsFilter(Paged):
    """Which blocks: those that have a name of their own, and come by it."""

    include_secrets: bool = False
    block_documents: None = None
    block_types: None = None
    block_schemas: None = None


class Lists:
    """The use cases, on one core."""

    def __init__(self, core: Core) -> None:
        self._blocks = Blocks(core)
        self._reader = core.store.kept

    async def artifacts(self, body: ArtifactsFilter) -> list[_Object]:
        """Return artifacts."""
        keys, has_key = _keys(body)
        found = await self._reader.list(_ARTIFACT, body.size, body.offset or 0, names=keys, has_name=has_key)
        return [shown(kept) for kept in found]

    async def latest_artifacts(self, body: ArtifactsFilter) -> list[_Object]:
        """Return the newest artifact of each key."""
        keys, has_key = _keys(body)
        if has_key is False:
            return []
        found = await self._reader.latest(_ARTIFACT, body.size, body.offset or 0, keys)
        return [{**shown(kept), "latest_id": kept.id} for kept in found]

    async def types(self, body: TypesFilter) -> list[_Object]:
        """Return block types."""
        found = await self._reader.list("block_type", body.size, body.offset or 0)
        return [self._blocks.render_type(kept) for kept in found]

    async def documents(self, body: DocumentsFilter) -> list[_Object]:
        """Return blocks."""
        first = body.offset or 0
        named: list[_Object] = []
        start = 0
        while len(named) < first + body.size:
            page = await self._reader.list("block_document", MAX_LIMIT, start)
            named += [
                await self._blocks.render(kept, Secrets(body.include_secrets)) for kept in page if _is_named(kept)
            ]
            start += len(page)
            if len(page) < MAX_LIMIT:
                break
        return named[first : first + body.size]

    async def nothing(self, body: Paged) -> list[_Object]:
        """There is none of these here."""
        return []


def _is_named(kept: Any) -> bool:
    return not shown(kept)["is_anonymous"]


def _keys(body: ArtifactsFilter) -> tuple[list[str] | None, bool | None]:
    key = KeyFilter() if body.artifacts is None or body.artifacts.key is None else body.artifacts.key
    return key.any_, key.exists_


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    lists = Lists(core)

    def route(path: str, handler: Handler, summary: str, body: Any = Paged) -> Route:
        answers = {200: list[_Object]}
        return Route(
            method="POST", path=path, handler=handler, summary=summary, tag=TAG, answers=answers, body=body
        )

    return [
        route("/api/artifacts/filter", lists.artifacts, "List artifacts", ArtifactsFilter),
        route("/api/artifacts/latest/filter", lists.latest_artifacts, "List the newest of keys", ArtifactsFilter),
        route("/api/block_types/filter", lists.types, "List block types", TypesFilter),
        route("/api/block_documents/filter", lists.documents, "List blocks", DocumentsFilter),
        # Limits of tags have routes of their own (`api.concurrency_limits`); there are no others.
        route("/api/v2/concurrency_limits/filter", lists.nothing, "List global limits"),
        route("/api/automations/filter", lists.nothing, "List automations"),
    ]
