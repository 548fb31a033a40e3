"""Settings of the client: read once, when a client or a worker is made, and handed on.

RUNLANE_URL         the broker, http:// or https:// (or ws://, wss://); a path in front of /api is kept
RUNLANE_TOKEN       the bearer token, or
RUNLANE_TOKEN_FILE  a file that holds it
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from .errors import SettingsError

DEFAULT_URL: Final = "http://127.0.0.1:4200"

_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_SOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}
_SCHEDULED: Final = "/api/task_runs/subscriptions/scheduled"
_SUBMISSIONS: Final = "/api/task_runs/submissions"


@dataclass(frozen=True)
class Settings:
    """Where the broker is, and the token to show it. Raises `SettingsError` when the URL is none."""

    url: str = DEFAULT_URL
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _normalised(self.url))


def load_settings(
    environ: Mapping[str, str] | None = None, *, url: str | None = None, token: str | None = None
) -> Settings:
    """Read the settings from the environment; `url` and `token` go first. Raises `SettingsError`."""
    env = os.environ if environ is None else environ
    return Settings(
        url=url or env.get("RUNLANE_URL") or DEFAULT_URL, token=token if token is not None else _token(env)
    )


def worker_url(settings: Settings) -> str:
    """Return the URL of the socket that workers subscribe at."""
    return _socket_url(settings, _SCHEDULED)


def submission_url(settings: Settings) -> str:
    """Return the URL of the socket that producers submit at."""
    return _socket_url(settings, _SUBMISSIONS)


def _socket_url(settings: Settings, path: str) -> str:
    scheme, _, rest = settings.url.partition("://")
    return f"{_SOCKET_SCHEMES[scheme]}://{rest}{path}"


def _normalised(url: str) -> str:
    """Return the URL as http(s)://host[:port][/prefix], without a slash at its end."""
    parts = _parsed(url.strip())
    scheme = _SCHEMES.get(parts.scheme.lower())
    if scheme is None:
        raise SettingsError(f"RUNLANE_URL must begin with http:// or https://, not {_safe(url)!r}")
    if not parts.hostname:
        raise SettingsError(f"RUNLANE_URL names no host: {_safe(url)!r}")
    if parts.username is not None or parts.query or parts.fragment:
        raise SettingsError("RUNLANE_URL may hold no user, query or fragment; a token goes into RUNLANE_TOKEN")
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError as exc:
        raise SettingsError(f"RUNLANE_URL is no URL: {exc}") from exc
    if any(char.isspace() for char in url):
        raise SettingsError("RUNLANE_URL is no URL: it holds white space")
    return parts


def _safe(url: str) -> str:
    """Return the URL without what may be a secret."""
    return url.rpartition("@")[2].partition("?")[0]


def _token(env: Mapping[str, str]) -> str | None:
    token, path = env.get("RUNLANE_TOKEN"), env.get("RUNLANE_TOKEN_FILE")
    if token and path:
        raise SettingsError("set RUNLANE_TOKEN or RUNLANE_TOKEN_FILE, not both")
    if not path:
        return token or None
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"RUNLANE_TOKEN_FILE cannot be read: {exc}") from exc
    if not text:
        raise SettingsError(f"RUNLANE_TOKEN_FILE is empty: {path}")
    return text
