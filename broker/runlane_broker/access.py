"""Who may come in: one ASGI middleware in front of everything, which denies by default.

Decides on `scope["path"]` and the headers alone, never on a URL derived from them. A socket without a valid
header may still prove itself with its first frame: the gateway asks `Access.allows`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .settings import is_loopback

#: Open to anybody: they tell nothing but "alive", "ready", the version, and what the API is like.
PUBLIC: Final = frozenset(
    {
        "/livez",
        "/readyz",
        "/api/version",
        "/api/health",
        "/api/ready",
        "/api/openapi.json",
        "/api/docs",
    }
)
#: Sockets that ask for the token in their first frame.
SOCKETS: Final = frozenset(
    {
        "/api/task_runs/subscriptions/scheduled",
        "/api/task_runs/submissions",
        "/api/events/in",
        "/api/events/out",
    }
)
#: The key in `scope["state"]` under which the gateway finds whether the header's token was right.
AUTHENTICATED: Final = "runlane_authenticated"
#: Names of this machine that are known by heart.
_NAMES: Final = 64


class Access:
    """The one shared token, kept as a digest. Without one everybody on this machine may come in."""

    def __init__(self, token: str | None) -> None:
        self._digest = None if token is None else _digest(token)

    @property
    def is_open(self) -> bool:
        """Whether no token is needed."""
        return self._digest is None

    def allows(self, token: str | None) -> bool:
        """Say whether this token opens the door. Takes the same time whatever the token."""
        return self._digest is None or hmac.compare_digest(_digest(token or ""), self._digest)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class AccessMiddleware:
    """Refuses what `Access` does not allow, and what a foreign web page could have sent."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        # Who asks often asks by the same name: to take it apart each time takes longer than all else here.
        self._is_ours = lru_cache(_NAMES)(_is_loopback)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        if (reason := self._foreign(headers)) is not None:
            await _refuse(scope, receive, send, 403, reason)
            return
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send, headers)
        elif scope["path"] in PUBLIC or self._access.allows(_token(headers)):
            await self._app(scope, receive, send)
        else:
            await _refuse(scope, receive, send, 401, "Unauthorized")

    async def _socket(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str]) -> None:
        token = _token(headers)
        authenticated = token is not None and not self._access.is_open and self._access.allows(token)
        if not authenticated and not self._access.is_open and scope["path"] not in SOCKETS:
            await _refuse(scope, receive, send, 401, "Unauthorized")
            return
        scope.setdefault("state", {})[AUTHENTICATED] = authenticated
        await self._app(scope, receive, send)

    def _foreign(self, headers: Mapping[str, str]) -> str | None:
        """Return why a browser's request is refused: another site's page, or a name that is not ours."""
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None and _authority(origin) != host:
            return "Origin not allowed"
        if self._access.is_open and not self._is_ours(host):
            return "Host not allowed"
        return None


def _authority(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    """Say whether the name in a request's head is one of this machine's own, with or without a port."""
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _token(headers: Mapping[str, str]) -> str | None:
    """Return the token that a request shows: as it is, or as Prefect's clients show their auth string."""
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return shown.strip()
    return _decoded(shown.strip()) if scheme.lower() == "basic" else None


def _decoded(shown: str) -> str | None:
    try:
        return base64.b64decode(shown, validate=True).decode()
    except ValueError:
        return None


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, reason: str) -> None:
    """Answer in place of the app; a socket gets the same answer in place of its upgrade."""
    challenge = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    await JSONResponse({"detail": reason, "exception_message": reason}, status, challenge)(scope, receive, send)
