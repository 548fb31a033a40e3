"""Every route keeps to what it declares: the tests are made of the route table, and of one example of each."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import httpx
import msgspec
import pytest
from openapi_spec_validator import validate

from runlane.protocol.ids import uuid7
from runlane_broker.access import PUBLIC
from runlane_broker.api.openapi import openapi_document
from runlane_broker.api.routes import HEALTH, Route
from runlane_broker.app import api_routes
from runlane_broker.core.core import Core
from runlane_broker.prefect.routes import prefect_routes
from runlane_broker.schemas.base import MAX_LIMIT, Error, InvalidRequest, Parameters
from tests.edges.harness import Host

from .examples import EXAMPLES, Example


class _Nothing:
    """Stands in for a core: routes are declared without asking it anything."""

    def __getattr__(self, name: str) -> Any:
        return _Nothing()

    def __call__(self, *_: object) -> Any:
        return _Nothing()


CORE = cast("Core", _Nothing())
ROUTES = {f"{route.method} {route.template}": route for route in api_routes(CORE)}
#: Which are described, too, and held to what Prefect's clients need (tests/prefect).
OF_PREFECT = {f"{route.method} {route.template}": route for route in prefect_routes(CORE)}
VERSIONED = [name for name, route in ROUTES.items() if route.tag != HEALTH]
WITH_ID = [name for name, route in ROUTES.items() if "uuid" in route.parameters.values()]
WITH_BODY = [name for name, route in ROUTES.items() if route.body is not None]


def path_of(route: Route, example: Example) -> str:
    return route.template.format(**example.path)


def ask(host: Host, route: Route, example: Example, **options: Any) -> httpx.Response:
    """Send an example, or what `options` say in its place."""
    if "content" not in options and example.body is not None:
        options["content"] = msgspec.json.encode(example.body)
    path = options.pop("path", path_of(route, example))
    return host.http.request(route.method, path, params=dict(example.query) or None, **options)


def rows(host: Host) -> dict[str, int]:
    """How many rows each table has, but for those that count commits."""
    with closing(sqlite3.connect(f"file:{host.path}?mode=ro", uri=True)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}


def refused(answer: httpx.Response, status: int) -> Any:
    """Check the form of a refusal, and return it."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    return msgspec.json.decode(answer.content, type=InvalidRequest if status == 422 else Error)


# What is declared -----------------------------------------------------------------------------------------------


def test_every_route_has_an_example_and_every_example_a_route() -> None:
    assert set(EXAMPLES) == set(ROUTES)


def test_the_openapi_document_is_valid_and_complete(broker: Host) -> None:
    document = broker.http.get("/api/openapi.json").json()
    validate(document)
    assert not re.search(r'"pattern":"[^"]*(\\\\Z|\$\$)"', json.dumps(document, separators=(",", ":")))
    described = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert described == set(ROUTES) | set(OF_PREFECT)
    operations = [
        operation["operationId"] for methods in document["paths"].values() for operation in methods.values()
    ]
    assert len(operations) == len(set(operations))


def test_the_names_of_components_are_plain_and_lead_somewhere() -> None:
    document = openapi_document([*ROUTES.values(), *OF_PREFECT.values()], "0")
    schemas = document["components"]["schemas"]
    assert {"AnyOfText", "State", "StateFilter"} <= set(schemas)
    for name, schema in schemas.items():
        assert re.fullmatch("[A-Za-z][A-Za-z0-9]*", name)
        assert schema["title"] == name
    text = json.dumps(document)
    assert set(re.findall(r'"#/components/schemas/([^"]*)"', text)) <= set(schemas)
    assert "name" in schemas["StateFilter"]["properties"]
    assert "timestamp" in schemas["State"]["properties"]


def test_the_document_says_what_became_of_a_state() -> None:
    answers = openapi_document(list(ROUTES.values()), "0")["paths"]["/api/task_runs/{id}/set_state"]["post"][
        "responses"
    ]
    assert answers["200"]["description"].startswith("No state was written")
    assert answers["201"]["description"].startswith("A state was written")


@pytest.mark.parametrize("runs", ["task_runs", "flow_runs"])
def test_a_body_with_a_field_that_is_needed_is_needed(broker: Host, runs: str) -> None:
    paths = openapi_document(list(ROUTES.values()), "0")["paths"]
    assert paths[f"/api/{runs}/history"]["post"]["requestBody"]["required"]
    assert not paths[f"/api/{runs}/filter"]["post"]["requestBody"]["required"]
    error = refused(broker.http.post(f"/api/{runs}/history"), 422)
    assert (error.detail[0].loc, error.detail[0].msg) == (["body"], "a body is needed")


def test_the_document_says_which_routes_are_public() -> None:
    document = openapi_document(list(ROUTES.values()), "0")
    public = {
        path for path, methods in document["paths"].items() for said in methods.values() if "security" in said
    }
    assert public == PUBLIC


def test_the_page_needs_nothing_from_elsewhere(broker: Host) -> None:
    page = broker.http.get("/api/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "openapi.json" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text


# What is answered -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROUTES)
def test_an_example(broker: Host, name: str) -> None:
    """It is answered as declared; a second time, too, or as the example says."""
    route, example = ROUTES[name], EXAMPLES[name](broker)
    first, second = ask(broker, route, example), ask(broker, route, example)
    for answer, status in ((first, example.status), (second, example.again or example.status)):
        assert answer.status_code == status, answer.text
        if status in route.answers:
            check_answer(route, answer)
        else:
            refused(answer, status)
    if first.status_code == 201 and second.status_code == 200 and isinstance(first.json(), dict):
        assert second.json()["id"] == first.json()["id"]


def check_answer(route: Route, answer: httpx.Response) -> None:
    type_ = route.answers[answer.status_code]
    if type_ is None:
        assert answer.content == b""
    elif route.media_type == "application/json":
        assert answer.headers["content-type"] == "application/json"
        msgspec.json.decode(answer.content, type=type_)


@pytest.mark.parametrize("name", [name for name in ROUTES if name.startswith("GET ")])
def test_head(broker: Host, name: str) -> None:
    route, example = ROUTES[name], EXAMPLES[name](broker)
    answer = broker.http.head(path_of(route, example), params=dict(example.query) or None)
    assert answer.status_code == example.status
    assert answer.content == b""


# What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VERSIONED)
def test_a_version_that_is_none_or_too_old(broker: Host, name: str) -> None:
    route, example = ROUTES[name], EXAMPLES[name](broker)
    before = rows(broker)
    for version in ("0.7.0", "0.8", "x", "", "0.8.4.1", "0.8.٤", "9" * 100):
        error = refused(ask(broker, route, example, headers={"X-PREFECT-API-VERSION": version.encode()}), 400)
        assert "version" in error.detail.lower()
    assert rows(broker) == before
    assert ask(broker, route, example, headers={"X-PREFECT-API-VERSION": "0.8.4"}).is_success


@pytest.mark.parametrize("name", WITH_ID)
def test_ids_that_there_are_not(broker: Host, name: str) -> None:
    route, example = ROUTES[name], EXAMPLES[name](broker)
    ids = [parameter for parameter, kind in route.parameters.items() if kind == "uuid"]
    before = rows(broker)
    for parameter in ids:
        for wrong in ("x", "0", "%00", "0" * 37, "İ" * 36, "..%2f", uuid7()[:-1], f"{uuid7()}%0A"):
            path = route.template.format(**{**example.path, parameter: wrong})
            assert ask(broker, route, example, path=path).status_code in (404, 405)
        path = route.template.format(**{**example.path, parameter: uuid7()})
        answer = ask(broker, route, example, path=path)
        assert refused(answer, 404).detail
    assert rows(broker) == before


@pytest.mark.parametrize("name", ROUTES)
def test_a_method_that_there_is_not(broker: Host, name: str) -> None:
    route, example = ROUTES[name], EXAMPLES[name](broker)
    path = path_of(route, example)
    answer = broker.http.request("PROPFIND", path)
    refused(answer, 405)
    others = {other.method for other in ROUTES.values() if other.template == route.template}
    assert others <= set(answer.headers["allow"].split(", "))


@pytest.mark.parametrize("name", WITH_BODY)
def test_bodies_that_are_none(broker: Host, name: str) -> None:
    route, example = ROUTES[name], EXAMPLES[name](broker)
    before = rows(broker)
    bodies = [b"x", b"[]", b"1", b'"x"', b"{", b"\xff", b"\xef\xbb\xbf{}"]
    if not route.body_is_optional:
        bodies += [b"", b" ", b"null"]
    for body in bodies:
        error = refused(ask(broker, route, example, content=body), 422)
        assert error.detail[0].loc == ["body"]
        assert error.exception_detail == error.detail
        assert error.exception_message == "Invalid request received."
    assert rows(broker) == before


@pytest.mark.parametrize("name", WITH_BODY)
def test_a_body_that_is_too_large(broker: Host, name: str) -> None:
    route, example = ROUTES[name], EXAMPLES[name](broker)
    before = rows(broker)
    body = msgspec.json.encode(example.body)
    error = refused(ask(broker, route, example, content=body.ljust(route.max_bytes + 1)), 413)
    assert str(route.max_bytes) in error.detail
    assert rows(broker) == before
    assert ask(broker, route, example, content=body.ljust(route.max_bytes)).is_success


@pytest.mark.parametrize("name", WITH_BODY)
def test_what_a_body_says_of_its_type_does_not_matter(broker: Host, name: str) -> None:
    route, example = ROUTES[name], EXAMPLES[name](broker)
    assert ask(broker, route, example, headers={"Content-Type": "text/plain"}).is_success
    again = ask(broker, route, example, headers={"Content-Type": ""})
    assert again.status_code == (example.again or example.status)


@pytest.mark.parametrize("name", WITH_BODY)
def test_a_key_that_there_is_not(broker: Host, name: str) -> None:
    route, example = ROUTES[name], EXAMPLES[name](broker)
    body = {**(example.body or {}), "colour": 1}
    if issubclass(route.body, Parameters):
        assert ask(broker, route, example, content=msgspec.json.encode(body)).is_success
        return
    before = rows(broker)
    error = refused(ask(broker, route, example, content=msgspec.json.encode(body)), 422)
    assert error.detail[0].loc == ["body", "colour"]
    assert error.detail[0].type == "extra_forbidden"
    assert rows(broker) == before


@pytest.mark.parametrize("name", [name for name in WITH_BODY if ROUTES[name].body_is_optional])
def test_a_body_that_is_absent(broker: Host, name: str) -> None:
    route, example = ROUTES[name], EXAMPLES[name](broker)
    for body in (b"", b" ", b"null", b"{}"):
        answer = ask(broker, route, example, content=body)
        assert answer.is_success, answer.text


def kinds_of(type_: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    """Yield what a field may be."""
    match type_:
        case msgspec.inspect.UnionType(types=types):
            for one in types:
                yield from kinds_of(one)
        case msgspec.inspect.Metadata(type=inner):
            yield from kinds_of(inner)
        case _:
            yield type_


def wrong_values(name: str) -> Iterator[tuple[str, Any]]:
    """Yield fields of a route's body with values that none of them takes."""
    type_ = msgspec.inspect.type_info(ROUTES[name].body)
    assert isinstance(type_, msgspec.inspect.StructType)
    for one in type_.fields:
        kinds = list(kinds_of(one.type))
        if any(isinstance(kind, msgspec.inspect.RawType | msgspec.inspect.AnyType) for kind in kinds):
            continue
        objects = (msgspec.inspect.StructType, msgspec.inspect.DictType)
        yield one.encode_name, 1.5e300 if any(isinstance(kind, objects) for kind in kinds) else {"x": 1}
        if not any(isinstance(kind, msgspec.inspect.NoneType) for kind in kinds):
            yield one.encode_name, None


@pytest.mark.parametrize("name", WITH_BODY)
def test_fields_of_another_type(broker: Host, name: str) -> None:
    route, example = ROUTES[name], EXAMPLES[name](broker)
    before = rows(broker)
    tried = list(wrong_values(name))
    assert tried
    for place, value in tried:
        body = {**(example.body or {}), place: value}
        error = refused(ask(broker, route, example, content=msgspec.json.encode(body)), 422)
        assert error.detail[0].loc[:2] == ["body", place], error
    assert rows(broker) == before


@pytest.mark.parametrize("name", WITH_BODY)
def test_text_with_a_nul(broker: Host, name: str) -> None:
    """Wherever a field takes any text, none with a NUL gets in."""
    route, example = ROUTES[name], EXAMPLES[name](broker)
    before = rows(broker)
    for one in msgspec.structs.fields(route.body):
        kinds = kinds_of(msgspec.inspect.type_info(one.type))
        if any(isinstance(kind, msgspec.inspect.StrType) for kind in kinds):
            body = {**(example.body or {}), one.encode_name: "a\0b"}
            error = refused(ask(broker, route, example, content=msgspec.json.encode(body)), 422)
            assert error.detail[0].loc == ["body", one.encode_name]
    assert rows(broker) == before


LISTS = [name for name in WITH_BODY if "limit" in {one.name for one in msgspec.structs.fields(ROUTES[name].body)}]


@pytest.mark.parametrize("name", LISTS)
def test_how_many(broker: Host, name: str) -> None:
    route, example = ROUTES[name], EXAMPLES[name](broker)
    for limit in (None, 0, 1, MAX_LIMIT):
        body = {**(example.body or {}), "limit": limit}
        assert ask(broker, route, example, content=msgspec.json.encode(body)).is_success
    for limit, message in (
        (MAX_LIMIT + 1, "Invalid limit: must be less than or equal to 200."),
        (-1, "Invalid limit: must be greater than or equal to 0."),
        (2**63 - 1, "Invalid limit: must be less than or equal to 200."),
    ):
        body = {**(example.body or {}), "limit": limit}
        error = refused(ask(broker, route, example, content=msgspec.json.encode(body)), 422)
        assert error.detail[0].loc == ["body", "limit"]
        assert error.detail[0].msg == message


OFFSETS = [name for name in LISTS if "offset" in {one.name for one in msgspec.structs.fields(ROUTES[name].body)}]


@pytest.mark.parametrize("name", OFFSETS)
def test_from_where(broker: Host, name: str) -> None:
    route, example = ROUTES[name], EXAMPLES[name](broker)
    for offset in (None, 0, 1_000_000):
        body = {**(example.body or {}), "offset": offset}
        assert ask(broker, route, example, content=msgspec.json.encode(body)).is_success
    for offset in (-1, 2**31, 2**63, 10**30, 1.5, "1"):
        body = {**(example.body or {}), "offset": offset}
        error = refused(ask(broker, route, example, content=msgspec.json.encode(body)), 422)
        assert error.detail[0].loc == ["body", "offset"]


@pytest.mark.parametrize("name", [name for name, route in ROUTES.items() if route.template.endswith("/")])
def test_a_path_without_its_slash(broker: Host, name: str) -> None:
    route, example = ROUTES[name], EXAMPLES[name](broker)
    path = path_of(route, example)
    answer = ask(broker, route, example, path=path.rstrip("/"))
    assert refused(answer, 307).detail == f"use {path}"
    assert answer.headers["location"].partition("?")[0].endswith(path)
