"""Settings: typed, read once, checked against each other before anything starts.

`runlane.config` declares them, each for itself; what they have to do with each other stands here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from runlane.config import (
    BrokerSection,
    ConfigError,
    Section,
    ServicesSection,
    TimersSection,
    load_config,
    settings_of,
)

from .errors import ConfigurationError


@dataclass(frozen=True)
class Timers(TimersSection):
    """Durations in seconds. Workers are told the first three; `check` says how they depend on each other."""

    def check(self) -> None:
        """Raise `ConfigurationError` for timers that would declare the living dead."""
        _check_each(self)
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


@dataclass(frozen=True)
class Settings(BrokerSection):
    """All that a broker is told. `token` None: nobody needs one, which only a loopback address allows."""

    timers: Timers = field(default_factory=Timers)
    services: ServicesSection = field(default_factory=ServicesSection)

    def check(self) -> None:
        """Raise `ConfigurationError`, naming the setting and its limit."""
        _check_each(self)
        if self.token is None and not is_loopback(self.host):
            raise ConfigurationError(
                f"host: {self.host} can be reached from outside; set RUNLANE_TOKEN or --token-file, "
                "or bind to 127.0.0.1"
            )
        self.timers.check()
        _check_each(self.services)


def _check_each(section: Section) -> None:
    """Check every value for itself, also where none of them was read."""
    for setting in settings_of(type(section)):
        value = getattr(section, setting.name)
        try:
            if value != setting.default:
                setting.kind.read(value)
        except ConfigError as exc:
            raise ConfigurationError(f"{setting.key.removeprefix('broker.')} {exc}") from None


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load(environ: Mapping[str, str], flags: Mapping[str, object], folder: Path | None = None) -> Settings:
    """Return the settings: a flag counts before the environment, that before files, those before the default.

    `flags` holds settings by name, None for a flag that was not given; files are looked for from `folder`
    upwards. Raises `ConfigurationError` for what does not exist (naming the nearest that does), a bad value,
    or what `Settings.check` finds.
    """
    try:
        config = load_config(environ, {f"broker.{name}": value for name, value in flags.items()}, folder)
        settings = replace(config.of(Settings), timers=config.of(Timers), services=config.of(ServicesSection))
    except ConfigError as exc:
        raise ConfigurationError(str(exc)) from None
    settings.check()
    return settings
