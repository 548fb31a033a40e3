"""One question over a broker's HTTP API, from sync code: what commands and small programs need."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from .config import ClientSection
from .errors import RunlaneError

#: Seconds that an answer may take.
PATIENCE: Final = 10.0
_MAX_ANSWER: Final = 16 * 1024 * 1024


class RequestRefused(RunlaneError):
    """The broker will not do it; `status` is HTTP's, and the message what the broker says."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotReached(RunlaneError):
    """No broker answers; what was asked for may have been done."""


def ask(client: ClientSection, method: str, path: str, body: Any = None, patience: float = PATIENCE) -> Any:
    """Return the JSON that a path below `/api` answers with. Raises `RequestRefused`, and `NotReached`."""
    request = Request(f"{client.url}/api{path}", method=method)  # noqa: S310  (`Url` has seen to http)
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if client.token is not None:
        request.add_unredirected_header("Authorization", f"Bearer {client.token}")
    try:
        with urlopen(request, timeout=patience) as response:  # noqa: S310
            data = response.read(_MAX_ANSWER)
        return json.loads(data) if data else None
    except HTTPError as exc:
        with exc:
            if exc.code == 401:
                raise RequestRefused(exc.code, f"{client.url}: {wanted_token(client)}") from None
            raise RequestRefused(exc.code, _detail(exc.read(_MAX_ANSWER)) or exc.reason) from None
    except (URLError, OSError, HTTPException, ValueError) as exc:
        raise NotReached(f"{client.url}: {not_reached(exc)}") from exc


def wanted_token(client: ClientSection) -> str:
    """Return what the broker's 401 means: it does not know that a wrong token and none are not the same."""
    wrong = "none is set: --token-file, RUNLANE_TOKEN_FILE" if client.token is None else "not the one that is set"
    return f"wants a token, {wrong}"


def not_reached(exc: Exception) -> str:
    """Return in words why nobody answers."""
    reason: object = exc.reason if isinstance(exc, URLError) else exc
    if isinstance(reason, TimeoutError):
        text = "no answer in time"
    elif isinstance(reason, OSError) and reason.strerror:
        text = reason.strerror
    else:
        text = str(reason) or type(reason).__name__
    return f"cannot be reached: {text}"


def _detail(data: bytes) -> str | None:
    """Return what an error says of itself."""
    try:
        detail: Any = json.loads(data)["detail"]
    except (ValueError, KeyError, TypeError):
        return None
    if isinstance(detail, str):
        return detail
    try:
        return "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in detail)
    except (KeyError, TypeError):
        return None
