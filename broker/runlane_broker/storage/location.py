"""Database URLs."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ..errors import ConfigurationError


def sqlite_path(url: str) -> Path:
    """Return the file that a `sqlite:///PATH` URL names (four slashes: an absolute path).

    Raises `ConfigurationError` for anything else.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as exc:  # a port that is no number, say
        raise ConfigurationError(f"db: {url!r} is no database URL; expected sqlite:///PATH") from exc
    if parsed.drivername not in ("sqlite", "sqlite+aiosqlite"):
        raise ConfigurationError(f"db: {parsed.drivername!r} is not supported; expected sqlite:///PATH")
    if parsed.host or not parsed.database or parsed.database == ":memory:" or parsed.query:
        raise ConfigurationError(f"db: {url!r} names no file; expected sqlite:///PATH")
    try:
        return Path(parsed.database).expanduser().resolve()  # one lock for one file, whatever it is called
    except RuntimeError as exc:
        raise ConfigurationError(f"db: {url!r} names the home of a user who is not there") from exc
