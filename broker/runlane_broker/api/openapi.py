"""The API's own description: the OpenAPI document, made of the routes and their types, and a page to read it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any, Final, cast

import msgspec

from ..access import PUBLIC
from ..schemas.base import Error, InvalidRequest
from ..schemas.ids import ID_PATTERN
from ..schemas.states import OrchestrationResult
from .routes import HEALTH, Route

OPENAPI_PATH: Final = "/api/openapi.json"
DOCS_PATH: Final = "/api/docs"
_REF_BEGINS: Final = "#/components/schemas/"
_REF: Final = _REF_BEGINS + "{name}"
_GENERIC: Final = re.compile(r"(?P<name>[A-Za-z0-9]+)_(?P<of>.+)_")
_TAG: Final = "about"


def routes(described: Sequence[Route], version: str) -> list[Route]:
    """Return the routes that describe these ones, and themselves."""

    async def openapi() -> msgspec.Raw:
        return document

    async def docs() -> bytes:
        return page

    own = [
        Route(
            method="GET",
            path=OPENAPI_PATH,
            handler=openapi,
            summary="Return this document",
            tag=_TAG,
            answers={200: dict[str, Any]},
        ),
        Route(
            method="GET",
            path=DOCS_PATH,
            handler=docs,
            summary="Show this document as a page",
            tag=_TAG,
            answers={200: str},
            media_type="text/html",
        ),
    ]
    document = msgspec.Raw(msgspec.json.encode(openapi_document([*described, *own], version)))
    page = files("runlane_broker.api").joinpath("docs.html").read_bytes()
    return own


def openapi_document(described: Sequence[Route], version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these routes."""
    types = list(_types(described))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    named = {name: _component_name(name) for name in components}
    assert len({*named.values()}) == len(named), "two components have one name"
    components = {named[name]: {**schema, "title": named[name]} for name, schema in components.items()}
    _rename((schemas, components), named)
    schema_of = {_key(type_): schema for type_, schema in zip(types, schemas, strict=True)}
    _to_ecma(schemas)
    _to_ecma(components)
    paths: dict[str, dict[str, Any]] = {}
    for route in described:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, schema_of, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Runlane", "version": version},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in described)],
    }


def _types(described: Sequence[Route]) -> Iterator[Any]:
    yield Error
    yield InvalidRequest
    for route in described:
        yield from (type_ for type_ in (route.body, route.query) if type_ is not None)
        yield from (type_ for type_ in route.answers.values() if type_ is not None)


def _key(type_: Any) -> str:
    """Types such as unions cannot always be hashed; their text tells them apart."""
    return repr(type_)


def _component_name(name: str) -> str:
    """Return a name of letters and digits for what msgspec names after Python's modules and generic arguments."""
    generic = _GENERIC.fullmatch(name)
    if generic is not None:
        argument = "Text" if generic["of"].startswith("typing.Annotated_str_") else generic["of"]
        return generic["name"] + argument.rpartition(".")[2]
    module, _, plain = name.rpartition(".")
    return f"{plain}Filter" if module.endswith(".filters") else plain


def _rename(schema: Any, named: dict[str, str]) -> None:
    """Have all references say the new names, in place."""
    if isinstance(schema, (list, tuple)):
        for item in schema:  # pyright: ignore[reportUnknownVariableType]
            _rename(item, named)
    if not isinstance(schema, dict):
        return
    said = cast("dict[str, Any]", schema)
    for key, item in said.items():
        if isinstance(item, str) and item.startswith(_REF_BEGINS):
            said[key] = _REF_BEGINS + named[item.removeprefix(_REF_BEGINS)]
        else:
            _rename(item, named)


def _to_ecma(schema: Any) -> None:
    """Rewrite patterns, in place, as JSON Schema knows them; that of an id is a format there."""
    if isinstance(schema, list):
        for item in schema:  # pyright: ignore[reportUnknownVariableType]
            _to_ecma(item)
    if not isinstance(schema, dict):
        return
    said = cast("dict[str, Any]", schema)
    if said.get("pattern") == ID_PATTERN:
        del said["pattern"]
        said["format"] = "uuid"
    elif isinstance(said.get("pattern"), str):
        said["pattern"] = re.sub(r"\\Z$", "$", said["pattern"])
    for item in said.values():
        _to_ecma(item)


def _operation(route: Route, schema_of: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.template}").strip("_"),
        "summary": route.summary,
        "tags": [route.tag],
        "responses": {str(status): body for status, body in sorted(_responses(route, schema_of).items())},
    }
    if parameters := [*_path_parameters(route), *_query_parameters(route, schema_of, components)]:
        operation["parameters"] = parameters
    if route.body is not None:
        content = {"application/json": {"schema": schema_of[_key(route.body)]}}
        operation["requestBody"] = {"required": not route.body_is_optional, "content": content}
    if route.path in PUBLIC:
        operation["security"] = []
    return operation


def _responses(route: Route, schema_of: dict[str, Any]) -> dict[int, Any]:
    responses: dict[int, Any] = {}
    for status, reason in _refusals(route).items():
        type_ = InvalidRequest if status == 422 else Error
        responses[status] = _response(reason, schema_of[_key(type_)])
    for status, type_ in route.answers.items():
        schema = None if type_ is None else schema_of[_key(type_)]
        meaning = _OF_STATE if type_ is OrchestrationResult else _MEANING
        responses[status] = _response(meaning.get(status, "Done"), schema, route.media_type)
    return responses


_MEANING: Final = {
    200: "Done, or there already",
    201: "Created",
    204: "Done",
    503: "Not now",
}
_OF_STATE: Final = {
    200: "No state was written; the status says why: REJECT, WAIT or ABORT",
    201: "A state was written: the one asked for, or, with REJECT, another one in its place",
}


def _refusals(route: Route) -> dict[int, str]:
    """Return the route's own refusals, and those that go without saying."""
    refusals: dict[int, str] = {}
    if route.path not in PUBLIC:
        refusals[401] = "The token is missing or wrong"
    if route.tag not in (HEALTH, _TAG):
        refusals[400] = "The API version asked for is none, or too old"
        refusals[503] = "The database cannot be used now, too much waits, or the broker goes down: come back"
    if route.body is not None:
        refusals[413] = f"The body has more than {route.max_bytes} bytes"
    if route.body is not None or route.query is not None:
        refusals[422] = "Something in the request is wrong: it is said where"
    if "uuid" in route.parameters.values():
        refusals[404] = "There is no such thing"
    return {**refusals, **route.refusals}


def _response(description: str, schema: Any, media_type: str = "application/json") -> dict[str, Any]:
    if schema is None:
        return {"description": description}
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _path_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name, kind in route.parameters.items():
        schema = {"type": "string", "format": "uuid"} if kind == "uuid" else {"type": "string"}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(
    route: Route, schema_of: dict[str, Any], components: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    if route.query is None:
        return
    schema = components[schema_of[_key(route.query)]["$ref"].rpartition("/")[2]]
    for name, property_ in schema["properties"].items():
        required = name in schema.get("required", ())
        yield {"name": name, "in": "query", "required": required, "schema": property_}
