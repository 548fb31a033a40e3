"""Settings: typed, read once, checked against each other before anything starts."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from .errors import ConfigurationError

DEFAULT_PORT: Final = 4200
_PREFIX: Final = "RUNLANE_"
#: Read by the client, so no mistake in the broker's environment.
_CLIENT_VARIABLES: Final = frozenset({"RUNLANE_URL"})
#: A day. What is longer is a mistake, and what is infinite can be neither announced nor waited for. Seconds.
_LONGEST_TIMER: Final = 86_400.0
_TOKEN: Final = re.compile(r"^[\x21-\x7e]{16,1024}\Z")


@dataclass(frozen=True, slots=True)
class Timers:
    """Durations in seconds. Workers are told the first three; `check` says how they depend on each other."""

    beat: float = 2.0  # a worker that holds runs says so this often
    idle_beat: float = 20.0  # and one that holds none
    resume: float = 5.0  # a broken session may come back for so long
    silent: float = 6.0  # no frame for so long while it holds runs: closed
    idle_silent: float = 45.0  # and while it holds none
    start: float = 10.0  # pushed and neither started nor released: deaf, closed
    heartbeat: float = 2.0  # the broker's own row
    sweep: float = 0.5  # how often deadlines are looked at
    drain: float = 1.0  # how long a stopping broker waits for reports; what comes later resumes

    def check(self) -> None:
        """Raise `ConfigurationError` for timers that would declare the living dead."""
        for timer in fields(self):
            seconds = getattr(self, timer.name)
            if not (seconds > 0 or (seconds == 0 and timer.name == "drain")):
                raise ConfigurationError(f"timers.{timer.name}: must be more than 0 seconds")
            if seconds > _LONGEST_TIMER:
                raise ConfigurationError(f"timers.{timer.name}: {seconds:g} s is more than {_LONGEST_TIMER:g} s")
        _in_order("timers.beat", self.beat * 2, "timers.silent", self.silent)
        _in_order("timers.idle_beat", self.idle_beat * 2, "timers.idle_silent", self.idle_silent)
        _in_order("timers.beat", self.beat, "timers.idle_beat", self.idle_beat)
        _in_order("timers.sweep", self.sweep * 2, "timers.resume", self.resume)
        _in_order("timers.sweep", self.sweep * 2, "timers.silent", self.silent)


def _in_order(low: str, low_seconds: float, high: str, high_seconds: float) -> None:
    if low_seconds > high_seconds:
        raise ConfigurationError(
            f"{high}: {high_seconds:g} s is too short beside {low}, which needs {low_seconds:g} s"
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a broker is told. `token` None: nobody needs one, which only a loopback address allows."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    db: str = "sqlite:///runlane.db"
    token: str | None = field(default=None, repr=False)
    window_size: int = 256
    window_sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    max_losses: int = 5
    timers: Timers = field(default_factory=Timers)

    def check(self) -> None:
        """Raise `ConfigurationError`, naming the setting and its limit."""
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port: {self.port} is not between 0 and 65535")
        if self.token is not None and not _TOKEN.match(self.token):
            raise ConfigurationError("token: must be 16 to 1024 printable ASCII characters without spaces")
        if self.token is None and not is_loopback(self.host):
            raise ConfigurationError(
                f"host: {self.host} can be reached from outside; set RUNLANE_TOKEN or --token-file, "
                "or bind to 127.0.0.1"
            )
        for name, size in (("window_size", self.window_size), *self.window_sizes.items()):
            if not 1 <= size <= 100_000:
                raise ConfigurationError(f"window_size: {size} for {name} is not between 1 and 100000")
        if self.max_losses < 1:
            raise ConfigurationError(f"max_losses: {self.max_losses} is less than 1")
        self.timers.check()


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


#: Environment variable -> what it sets.
_VARIABLES: Final[Mapping[str, str]] = {
    "RUNLANE_HOST": "host",
    "RUNLANE_PORT": "port",
    "RUNLANE_DB": "db",
    "RUNLANE_TOKEN": "token",
    "RUNLANE_TOKEN_FILE": "token_file",
    "RUNLANE_WINDOW_SIZE": "window_size",
    "RUNLANE_MAX_LOSSES": "max_losses",
    **{f"RUNLANE_TIMERS_{timer.name.upper()}": f"timers.{timer.name}" for timer in fields(Timers)},
}


def load(environ: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Return the settings: a flag counts before the environment, that before the default.

    `flags` holds settings by name, None for a flag that was not given. Raises `ConfigurationError` for an
    unknown `RUNLANE_…` variable (naming the nearest known one), a bad value, or what `Settings.check` finds.
    """
    given: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(_PREFIX) or variable in _CLIENT_VARIABLES:
            continue
        if variable not in _VARIABLES:
            raise ConfigurationError(f"{variable}: unknown setting{_nearest(variable)}")
        given[_VARIABLES[variable]] = _parse(variable, _VARIABLES[variable], text)
    given.update({name: value for name, value in flags.items() if value is not None})
    token_file = given.pop("token_file", None)
    if token_file is not None and (flags.get("token_file") is not None or "token" not in given):
        given["token"] = _read_token(Path(token_file))
    timers = {name.removeprefix("timers."): given.pop(name) for name in list(given) if name.startswith("timers.")}
    settings = Settings(**given, timers=Timers(**timers))
    settings.check()
    return settings


def _nearest(variable: str) -> str:
    close = difflib.get_close_matches(variable, _VARIABLES, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _parse(variable: str, name: str, text: str) -> Any:
    kind = int if name in ("port", "window_size", "max_losses") else float if name.startswith("timers.") else str
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ConfigurationError(f"{variable}: {text!r} is not {what}") from None


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"token_file: cannot read {path}: {exc}") from exc
