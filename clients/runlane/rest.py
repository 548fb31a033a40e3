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
            raise RequestRefused(exc.code, _detail(exc.read(_MAX_ANSWER)) or exc.reason) from None
    except (URLError, OSError, HTTPException, ValueError) as exc:
        raise NotReached(f"{client.url} cannot be reached: {exc}") from exc


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
