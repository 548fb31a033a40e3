"""Blocks: where clients say in which storage their results lie. Here they mean nothing."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, TypeAlias, cast

import msgspec
from msgspec import Meta, Struct, field

from runlane.protocol.ids import uuid7

from ..api.routes import Answer, Handler, Route
from ..clock import to_datetime
from ..core.core import Core
from ..errors import Conflict
from ..schemas.base import MAX_LIMIT
from ..storage.kept import KeptObject

#: What the routes are listed under.
TAG: Final = "prefect"
_Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1000)]
_Object: TypeAlias = dict[str, Any]
#: What stands in place of a secret.
_OBSCURED: Final = "*" * 8


class TypeCreate(Struct):
    """A kind of block."""

    name: _Text
    slug: _Text
    logo_url: str | None = None
    documentation_url: str | None = None
    description: str | None = None
    code_example: str | None = None


class TypeUpdate(Struct):
    """What is new about a kind of block. Its name and its slug stay."""

    logo_url: str | None = None
    documentation_url: str | None = None
    description: str | None = None
    code_example: str | None = None


class SchemaCreate(Struct):
    """What the blocks of a type look like."""

    block_type_id: str
    fields: _Object = field(default_factory=dict[str, Any])
    capabilities: list[str] = field(default_factory=list[str])
    version: str = "non-versioned"


class DocumentCreate(Struct):
    """A block."""

    block_type_id: str
    block_schema_id: str
    name: str | None = None
    data: _Object = field(default_factory=dict[str, Any])
    is_anonymous: bool = False


class DocumentUpdate(Struct):
    """What is new in a block."""

    block_schema_id: str | None = None
    data: _Object = field(default_factory=dict[str, Any])
    merge_existing_data: bool = True


class Secrets(Struct):
    """Whether secrets are shown."""

    include_secrets: bool = False


def _data(body: Struct) -> _Object:
    return msgspec.structs.asdict(body)


def shown(kept: KeptObject) -> _Object:
    """Return an object as it is shown."""
    times = {"created": to_datetime(kept.created), "updated": to_datetime(kept.updated)}
    return {"id": kept.id, **times, **msgspec.json.decode(kept.data)}


class Blocks:
    """The use cases of blocks, on one core."""

    def __init__(self, core: Core) -> None:
        self._keeping = core.keeping
        self._reader = core.store.kept

    # Types ---------------------------------------------------------------------------------------------------

    async def create_type(self, body: TypeCreate) -> _Object:
        """Register a type."""
        return self.render_type(await self._keeping.add("block_type", body.slug, _data(body)))

    async def update_type(self, id: str, body: TypeUpdate) -> None:
        """Describe a type anew."""
        await self._keeping.change("block_type", id, _data(body))

    async def type_by_slug(self, slug: str) -> _Object:
        """Return a type."""
        return self.render_type(await self._keeping.named("block_type", slug))

    def render_type(self, kept: KeptObject) -> _Object:
        """Return a type as it is shown."""
        return {**shown(kept), "is_protected": False}

    # Schemas -------------------------------------------------------------------------------------------------

    async def create_schema(self, body: SchemaCreate) -> Answer:
        """Register a schema, or return the one that is there."""
        checksum = checksum_of(body.fields)
        try:
            kept = await self._keeping.add("block_schema", checksum, {**_data(body), "checksum": checksum})
        except Conflict:
            return Answer(200, await self.schema_by_checksum(checksum))
        return Answer(201, await self._schema(kept))

    async def schema_by_checksum(self, checksum: str) -> _Object:
        """Return a schema."""
        return await self._schema(await self._keeping.named("block_schema", checksum))

    async def _schema(self, kept: KeptObject) -> _Object:
        schema = shown(kept)
        return {
            **schema,
            "block_type": self.render_type(await self._keeping.get("block_type", schema["block_type_id"])),
        }

    # Documents -----------------------------------------------------------------------------------------------

    async def create_document(self, body: DocumentCreate) -> _Object:
        """Keep a block."""
        await self._keeping.get("block_schema", body.block_schema_id)
        await self._keeping.get("block_type", body.block_type_id)
        name = body.name or f"anonymous-{uuid7()}"
        kept = await self._keeping.add("block_document", name, {**_data(body), "name": name}, body.block_type_id)
        return await self.render(kept, Secrets(include_secrets=True))

    async def update_document(self, id: str, body: DocumentUpdate) -> None:
        """Keep other data in a block."""
        known = msgspec.json.decode((await self._keeping.get("block_document", id)).data)
        data = {**known["data"], **body.data} if body.merge_existing_data else body.data
        schema_id = body.block_schema_id or known["block_schema_id"]
        await self._keeping.change("block_document", id, {"data": data, "block_schema_id": schema_id})

    async def delete_document(self, id: str) -> None:
        """Keep a block no more."""
        await self._keeping.drop("block_document", id)

    async def document(self, id: str, query: Secrets) -> _Object:
        """Return a block."""
        return await self.render(await self._keeping.get("block_document", id), query)

    async def document_by_name(self, slug: str, name: str, query: Secrets) -> _Object:
        """Return a block of a type."""
        of_type = await self._reader.named("block_type", slug)
        parent = "" if of_type is None else of_type.id
        return await self.render(await self._keeping.named("block_document", name, parent), query)

    async def documents_of_type(self, slug: str, query: Secrets) -> list[_Object]:
        """Return the blocks of a type, as many as a list may have."""
        of_type = await self._keeping.named("block_type", slug)
        found = await self._reader.list("block_document", MAX_LIMIT, parent=of_type.id)
        return [await self.render(kept, query) for kept in found]

    async def render(self, kept: KeptObject, query: Secrets) -> _Object:
        """Return a block as it is shown."""
        document = shown(kept)
        schema = await self._schema(await self._keeping.get("block_schema", document["block_schema_id"]))
        block_type = schema["block_type"]
        if not query.include_secrets:
            secrets = schema["fields"].get("secret_fields") or ()
            document["data"] = obscured(document["data"], [path.split(".") for path in secrets])
        return {
            **document,
            "block_schema": schema,
            "block_type": block_type,
            "block_type_name": block_type["name"],
            "block_document_references": {},
        }


def obscured(value: Any, paths: list[list[str]]) -> Any:
    """Return data without what stands at these paths; `*` is any key."""
    if not isinstance(value, dict):
        return value
    members: dict[str, Any] = dict(value)  # pyright: ignore[reportUnknownArgumentType]
    for name, member in members.items():
        rests = [path[1:] for path in paths if path and path[0] in (name, "*")]
        if any(not rest for rest in rests):
            members[name] = None if member is None else _OBSCURED
        elif rests:
            members[name] = obscured(member, rests)
    return members


def checksum_of(fields: _Object) -> str:
    """Return the name by which clients ask for a schema again: a digest of all but which fields are secret."""
    text = json.dumps([[_without_secrets(fields)], {}], sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        members = cast("_Object", value)
        return {name: _without_secrets(member) for name, member in members.items() if name != "secret_fields"}
    return [_without_secrets(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    blocks = Blocks(core)
    by_slug = "/api/block_types/slug/{slug}"
    gone = {404: "There is no such thing"}

    def route(method: str, path: str, handler: Handler, summary: str, *statuses: int, **more: Any) -> Route:
        answers = {status: None if status == 204 else _Object for status in statuses or (200,)}
        return Route(
            method=method,
            path=path,
            handler=handler,
            summary=summary,
            tag=TAG,
            answers=answers,
            refusals=gone,
            **more,
        )

    return [
        route("POST", "/api/block_types/", blocks.create_type, "Register a block type", 201, body=TypeCreate),
        route("PATCH", "/api/block_types/{id:uuid}", blocks.update_type, "Describe a type", 204, body=TypeUpdate),
        route("GET", by_slug, blocks.type_by_slug, "Read a block type"),
        route("GET", f"{by_slug}/block_documents", blocks.documents_of_type, "List its blocks", query=Secrets),
        route(
            "GET",
            f"{by_slug}/block_documents/name/{{name}}",
            blocks.document_by_name,
            "Read a block",
            query=Secrets,
        ),
        route(
            "POST",
            "/api/block_schemas/",
            blocks.create_schema,
            "Register a block schema",
            201,
            200,
            body=SchemaCreate,
        ),
        route("GET", "/api/block_schemas/checksum/{checksum}", blocks.schema_by_checksum, "Read a block schema"),
        route("POST", "/api/block_documents/", blocks.create_document, "Keep a block", 201, body=DocumentCreate),
        route("GET", "/api/block_documents/{id:uuid}", blocks.document, "Read a block", query=Secrets),
        route(
            "PATCH", "/api/block_documents/{id:uuid}", blocks.update_document, "Change", 204, body=DocumentUpdate
        ),
        route("DELETE", "/api/block_documents/{id:uuid}", blocks.delete_document, "Delete a block", 204),
    ]
