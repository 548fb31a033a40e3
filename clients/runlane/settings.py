"""Settings of the client: read once, when a client or a worker is made, and handed on.

`runlane.config` declares them and knows where they may stand: RUNLANE_URL, RUNLANE_TOKEN or RUNLANE_TOKEN_FILE in
the environment, `[client]` in runlane.toml or pyproject.toml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .config import ClientSection, ConfigError, load_config
from .config.kinds import Url
from .errors import SettingsError

_SOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}
_SCHEDULED: Final = "/api/task_runs/subscriptions/scheduled"
_SUBMISSIONS: Final = "/api/task_runs/submissions"


@dataclass(frozen=True)
class Settings(ClientSection):
    """Where the broker is, and the token to show it. Raises `SettingsError` when the URL is none."""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "url", Url().read(self.url))
        except ConfigError as exc:
            raise SettingsError(f"url {exc}") from None


def load_settings(
    environ: Mapping[str, str] | None = None, *, url: str | None = None, token: str | None = None
) -> Settings:
    """Read the settings from environment and files; `url` and `token` go first. Raises `SettingsError`."""
    try:
        config = load_config(environ)
        return Settings(
            url=url or config.value("client.url"),
            token=token if token is not None else config.value("client.token"),
        )
    except ConfigError as exc:
        raise SettingsError(str(exc)) from None


def worker_url(settings: Settings) -> str:
    """Return the URL of the socket that workers subscribe at."""
    return _socket_url(settings, _SCHEDULED)


def submission_url(settings: Settings) -> str:
    """Return the URL of the socket that producers submit at."""
    return _socket_url(settings, _SUBMISSIONS)


def _socket_url(settings: Settings, path: str) -> str:
    scheme, _, rest = settings.url.partition("://")
    return f"{_SOCKET_SCHEMES[scheme]}://{rest}{path}"
