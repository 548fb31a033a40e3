"""Routes as data: what each takes, does and answers.

Starlette's routes, the OpenAPI document and the contract tests are all made of these. A handler is called with
what its route declares, by keyword: the parameters of the path, then `body`, `query` and `headers`. It returns
the answer's body, in an `Answer` where that has another status than the first one declared.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import Receive, Scope, Send

from ..schemas.base import Error, Parameters
from .parsing import MAX_BODY_BYTES, check_version, decode_body, decode_query, read_body
from .rendering import json

Handler: TypeAlias = Callable[..., Awaitable[Any]]

#: Of health no version is asked, nor anything else.
HEALTH: Final = "health"
_PARAMETER: Final = re.compile(r"\{(\w+)(?::(\w+))?\}")


@dataclass(frozen=True, slots=True)
class Answer:
    """A body with a status of its own."""

    status: int
    body: Any = None
    headers: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path.

    `path` names its parameters as Starlette does; one that is an id (`{id:uuid}`) arrives as canonical text, and
    anything else in its place is not found. `body` and `query` are types: a body of `Parameters` may be absent,
    unless a field of it is required.
    `answers` are the types of the bodies by status, None for none; the first is that of a plain return.
    `refusals` say when the route's own errors happen; those of all routes go without saying. `headers` are
    request headers that the handler is given by name.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    answers: Mapping[int, Any]
    refusals: Mapping[int, str] = field(default_factory=dict[int, str])
    body: Any = None
    query: type[msgspec.Struct] | None = None
    headers: tuple[str, ...] = ()
    max_bytes: int = MAX_BODY_BYTES
    media_type: str = "application/json"

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it."""
        return _PARAMETER.sub(r"{\1}", self.path)

    @property
    def parameters(self) -> dict[str, str]:
        """The kinds of the path's parameters by name: `uuid`, or `str`."""
        return {name: kind or "str" for name, kind in _PARAMETER.findall(self.path)}

    @property
    def body_is_optional(self) -> bool:
        """Whether the whole body may be absent: none of its fields is needed."""
        if not (isinstance(self.body, type) and issubclass(self.body, Parameters)):
            return False
        return not any(field.required for field in msgspec.structs.fields(self.body))


class Endpoint:
    """Parse, one call, render."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._status = next(iter(route.answers))
        self._decoder = None if route.body is None else msgspec.json.Decoder(route.body)

    async def answer(self, request: Request) -> Response:
        """Answer a request."""
        route = self._route
        if route.tag != HEALTH:
            check_version(request.headers.get("x-prefect-api-version"))
        given: dict[str, Any] = {name: str(value) for name, value in request.path_params.items()}
        if any("\0" in value for value in given.values()):
            raise HTTPException(404, "Not Found")
        if self._decoder is not None:
            data = await read_body(request, route.max_bytes)
            if route.body_is_optional and data.strip() in (b"", b"null"):
                data = b"{}"
            given["body"] = decode_body(data, self._decoder)
        if route.query is not None:
            given["query"] = decode_query(request.query_params, route.query)
        if route.headers:
            given["headers"] = {name: request.headers.get(name) for name in route.headers}
        result = await route.handler(**given)
        return self._render(result if isinstance(result, Answer) else Answer(self._status, result))

    def _render(self, answer: Answer) -> Response:
        if self._route.answers[answer.status] is None:
            return Response(status_code=answer.status, headers=answer.headers)
        if self._route.media_type != "application/json":
            return Response(answer.body, answer.status, answer.headers, self._route.media_type)
        return json(answer.body, answer.status, answer.headers)


class Path:
    """All methods of one path, as an ASGI application: Starlette's own way to a function is longer."""

    def __init__(self, methods: Mapping[str, Endpoint]) -> None:
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. What goes wrong is rendered by who has called."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        response = await self._methods[method].answer(Request(scope, receive, send))
        await response(scope, receive, send)


def starlette_routes(routes: Sequence[Route]) -> list[StarletteRoute]:
    """Return the routes as Starlette's, one for each path, so that a wrong method is told all the right ones.

    After them come those that lead to these: the same paths with a slash too many or too few.
    """
    paths: dict[str, dict[str, Endpoint]] = {}
    for route in routes:
        methods = paths.setdefault(route.path, {})
        assert route.method not in methods, f"{route.method} {route.path} is there twice"
        methods[route.method] = Endpoint(route)
    return [
        *(StarletteRoute(path, Path(methods), methods=[*methods]) for path, methods in paths.items()),
        *(StarletteRoute(_other(path), _elsewhere, methods=[*methods]) for path, methods in paths.items()),
    ]


async def _elsewhere(request: Request) -> Response:
    """Say where to ask instead: not every client follows a redirection by itself."""
    path = _other(request.url.path)
    message = f"use {path}"
    location = str(request.url.replace(path=path))
    return json(Error(detail=message, exception_message=message), 307, {"Location": location})


def _other(path: str) -> str:
    """Return a path with the slash at its end that it lacks, or without the one that it has."""
    return path[:-1] if path.endswith("/") else f"{path}/"
