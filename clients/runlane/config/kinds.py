"""Kinds of values: what each looks like, how one is read from text or TOML, and how it is shown.

`Kind.read` raises `ConfigError` with the rest of a sentence that begins with the value's source: "must be a
whole number, not 'abc'".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, cast
from urllib.parse import SplitResult, urlsplit, urlunsplit

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
#: Ten years, in seconds: the longest duration of the wire, too.
TEN_YEARS: Final = 315_360_000.0
_DURATION: Final = re.compile(rf"(?P<number>[\d.]+)\s*(?P<unit>{'|'.join(_UNITS)})?")
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_SQLITE: Final = re.compile(r"(?P<scheme>sqlite(?:\+aiosqlite)?:///)(?P<path>[^/~?:][^?]*)(?P<rest>.*)", re.DOTALL)
_TOKEN: Final = re.compile(r"[\x21-\x7e]{16,1024}")
_PASSWORD: Final = re.compile(r"(?<=://)([^:/@]*):[^@]*@")


class ConfigError(ValueError):
    """A setting is unknown, wrong, or cannot be read; one line says which, where and why."""


def quoted(value: object) -> str:
    """Return a value for a message: short, and in one line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


class Kind:
    """A kind of value. `noun` stands for one in help texts."""

    noun: ClassVar[str] = "TEXT"

    def read(self, value: object) -> Any:
        """Return the value, given as text or as TOML has it. Raises `ConfigError`."""
        raise NotImplementedError

    def anchored(self, value: Any, folder: Path) -> Any:
        """Return the value as it is meant in a file of this folder."""
        del folder
        return value

    def harmless(self, value: Any) -> Any:
        """Return the value without what may be a secret."""
        return value

    def show(self, value: Any) -> str:
        """Return the value as TOML, without what may be a secret."""
        return json.dumps(self.harmless(value), ensure_ascii=False)

    def plain(self, value: Any) -> str:
        """Return the value as one would type it."""
        return self.show(value).strip('"')


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """Any text but none."""

    def read(self, value: object) -> str:
        """Return the text."""
        if not isinstance(value, str) or not value:
            raise ConfigError(f"must be a text, not {quoted(value)}")
        return value


@dataclass(frozen=True, slots=True)
class Token(Kind):
    """A token that cannot be guessed. Messages leave it out."""

    def read(self, value: object) -> str:
        """Return the token."""
        if not isinstance(value, str) or not _TOKEN.fullmatch(value):
            raise ConfigError("must be 16 to 1024 printable ASCII characters without spaces")
        return value


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, value: object) -> str:
        """Return the word."""
        if value not in self.words:
            raise ConfigError(f"must be one of {', '.join(self.words)}, not {quoted(value)}")
        return cast("str", value)


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A whole number between two."""

    noun: ClassVar[str] = "N"

    low: int
    high: int

    def read(self, value: object) -> int:
        """Return the number."""
        number = _whole(value)
        if number is None:
            raise ConfigError(f"must be a whole number, not {quoted(value)}")
        if not self.low <= number <= self.high:
            raise ConfigError(f"must be between {self.low} and {self.high}, not {number}")
        return number


@dataclass(frozen=True, slots=True)
class Seconds(Kind):
    """A duration: seconds, or a text with a unit (`500ms`, `30s`, `5m`, `1h`, `1d`)."""

    noun: ClassVar[str] = "SECONDS"

    may_be_zero: bool = False
    longest: float = TEN_YEARS

    def read(self, value: object) -> float:
        """Return the seconds."""
        seconds = _duration(value)
        if seconds is None:
            raise ConfigError(f"must be a duration (30, '500ms', '5m'), not {quoted(value)}")
        if seconds < 0 or (seconds == 0 and not self.may_be_zero):
            least = "0 seconds or more" if self.may_be_zero else "more than 0 seconds"
            raise ConfigError(f"must be {least}, not {quoted(value)}")
        if seconds > self.longest:
            raise ConfigError(f"must be at most {self.longest:.0f} seconds, not {quoted(value)}")
        return seconds

    def show(self, value: Any) -> str:
        """Return the seconds, without a fraction where there is none."""
        return str(int(value)) if value == int(value) else str(value)


@dataclass(frozen=True, slots=True)
class Url(Kind):
    """Where a broker is: http(s)://host[:port][/prefix]. Messages leave out what may be a secret."""

    noun: ClassVar[str] = "URL"

    def read(self, value: object) -> str:
        """Return the URL, normalised, without a slash at its end."""
        text = Text().read(value).strip()
        parts = _split(text)
        scheme = _SCHEMES.get(parts.scheme.lower())
        if scheme is None:
            raise ConfigError(f"must begin with http:// or https://, not {_harmless(text)!r}")
        if not parts.hostname:
            raise ConfigError(f"names no host: {_harmless(text)!r}")
        if parts.username is not None or parts.query or parts.fragment:
            raise ConfigError("may hold no user, query or fragment; a token goes into RUNLANE_TOKEN")
        path = parts.path.rstrip("/")
        if path.endswith("/api"):
            raise ConfigError(f"is without /api, not {_harmless(text)!r}")
        return urlunsplit((scheme, parts.netloc, path, "", ""))


@dataclass(frozen=True, slots=True)
class Database(Kind):
    """A database's URL. Whether there is such a one, the broker knows."""

    noun: ClassVar[str] = "URL"

    def read(self, value: object) -> str:
        """Return the URL."""
        return Text().read(value)

    def anchored(self, value: Any, folder: Path) -> str:
        """Return the URL with its relative file in this folder: started elsewhere, a broker finds the same."""
        found = _SQLITE.fullmatch(value)
        return f"{found['scheme']}{folder / found['path']}{found['rest']}" if found else value

    def harmless(self, value: Any) -> str:
        """Return the URL without its password."""
        return _PASSWORD.sub(r"\1:********@", value)


@dataclass(frozen=True, slots=True)
class Sizes(Kind):
    """Numbers by task key: a table of its own in a file, JSON elsewhere."""

    noun: ClassVar[str] = "JSON"

    size: Whole

    def read(self, value: object) -> dict[str, int]:
        """Return the numbers."""
        table = _table(value)
        if table is None:
            raise ConfigError(f'must be numbers by task key ({{"emails.send": 1000}}), not {quoted(value)}')
        return {key: self._size(key, size) for key, size in table.items()}

    def _size(self, key: str, size: object) -> int:
        try:
            return self.size.read(size)
        except ConfigError as exc:
            raise ConfigError(f"for {quoted(key)} {exc}") from None

    def show(self, value: Any) -> str:
        """Return an inline table."""
        pairs = ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {size}" for key, size in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"


@dataclass(frozen=True, slots=True)
class Durations(Kind):
    """Durations by task key: a table of its own in a file, JSON elsewhere."""

    noun: ClassVar[str] = "JSON"

    seconds: Seconds

    def read(self, value: object) -> dict[str, float]:
        """Return the seconds."""
        table = _table(value)
        if table is None:
            raise ConfigError(f'must be durations by task key ({{"emails.send": "5m"}}), not {quoted(value)}')
        return {key: self._read(key, duration) for key, duration in table.items()}

    def _read(self, key: str, duration: object) -> float:
        try:
            return self.seconds.read(duration)
        except ConfigError as exc:
            raise ConfigError(f"for {quoted(key)} {exc}") from None

    def show(self, value: Any) -> str:
        """Return an inline table."""
        pairs = ", ".join(
            f"{json.dumps(key, ensure_ascii=False)} = {self.seconds.show(seconds)}"
            for key, seconds in value.items()
        )
        return f"{{ {pairs} }}" if pairs else "{}"


@dataclass(frozen=True, slots=True)
class OnOff(Kind):
    """Something that is, or is not: true or false."""

    noun: ClassVar[str] = "true|false"

    def read(self, value: object) -> bool:
        """Return which."""
        word = value.strip().lower() if isinstance(value, str) else value
        if word is True or word == "true":
            return True
        if word is False or word == "false":
            return False
        raise ConfigError(f"must be true or false, not {quoted(value)}")


def _whole(value: object) -> int | None:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _duration(value: object) -> float | None:
    if isinstance(value, str):
        found = _DURATION.fullmatch(value.strip())
        if found is None:
            return _number(value)
        number = _number(found["number"])
        return None if number is None else number * _UNITS[found["unit"] or "s"]
    return _number(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _number(value: str | float) -> float | None:
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _table(value: object) -> Mapping[str, object] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else None


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError as exc:
        raise ConfigError(f"is no URL: {exc}") from None
    if any(char.isspace() for char in url):
        raise ConfigError("is no URL: it holds white space")
    return parts


def _harmless(url: str) -> str:
    """Return the URL without what may be a secret."""
    return url.rpartition("@")[2].partition("?")[0]
