"""The sources put together: flags before the environment, that before runlane.toml, that before pyproject.toml."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from .declared import FILE, SETTINGS, Setting, settings_of
from .kinds import ConfigError
from .sections import Section
from .sources import Given, Layer, environment, files

S = TypeVar("S", bound=Section)

DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A setting's value, and its source as people know it: `--port`, `RUNLANE_PORT`, a file, or `default`."""

    setting: Setting
    value: Any
    source: str


class Config:
    """What all sources say; the first that says anything of a setting has it."""

    def __init__(self, layers: tuple[Layer, ...], paths: tuple[Path, ...] = ()) -> None:
        self._layers = layers
        #: The files that were read.
        self.paths: Final = paths

    def __repr__(self) -> str:
        return f"<Config {sum(map(len, self._layers))} given, {len(self.paths)} files>"

    def of(self, section: type[S]) -> S:
        """Return the section's values, checked. Raises `ConfigError`: which, where, what and why."""
        return section(**{setting.name: self.resolve(setting).value for setting in settings_of(section)})

    def __iter__(self) -> Iterator[Resolved]:
        """Yield every setting. Raises `ConfigError`."""
        return map(self.resolve, SETTINGS.values())

    def value(self, key: str) -> Any:
        """Return one setting's value. Raises `ConfigError`."""
        return self.resolve(SETTINGS[key]).value

    def resolve(self, setting: Setting) -> Resolved:
        """Return one setting. Raises `ConfigError`."""
        for layer in self._layers:
            given = layer.get(setting.key)
            named = layer.get(setting.key + FILE)
            if given is not None and named is not None:
                raise ConfigError(f"set {given.where} or {named.where}, not both")
            if named is not None:
                content = Given(_content(named), named.where)
                return Resolved(setting, _value(setting, content), named.where)
            if given is not None:
                return Resolved(setting, _value(setting, given), given.where)
        return Resolved(setting, setting.default, DEFAULT)


def load_config(
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    folder: Path | None = None,
) -> Config:
    """Return what is said by flags (`section.name` -> value, None: not given), environment and files.

    By default the environment is the process's own, and files are looked for from the working directory
    upwards. Raises `ConfigError` for names that there are not, and for files that cannot be read.
    """
    env = os.environ if environ is None else environ
    here = folder or _working_directory()
    given = {key: Given(value, _flag(key)) for key, value in (flags or {}).items() if value is not None}
    found = tuple(files(env, here))
    return Config((given, environment(env), *(layer for _, layer in found)), tuple(path for path, _ in found))


def _working_directory() -> Path:
    """Return where the process is; the root where that folder has been removed."""
    try:
        return Path.cwd()
    except OSError:
        return Path(os.sep)


def _flag(key: str) -> str:
    setting = SETTINGS[key.removesuffix(FILE)]
    return setting.flag or setting.key


def _value(setting: Setting, given: Given) -> Any:
    if setting.secret and not given.value:
        raise ConfigError(f"{given.where} is empty")
    try:
        value = setting.kind.read(given.value)
    except ConfigError as exc:
        raise ConfigError(f"{given.where} {exc}") from None
    return value if given.folder is None else setting.kind.anchored(value, given.folder)


def _content(named: Given) -> str:
    """Return the secret that stands in a file."""
    if not isinstance(named.value, str) or not named.value:
        raise ConfigError(f"{named.where} must be the name of a file")
    path = (named.folder or Path()) / Path(named.value).expanduser()
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as exc:
        raise ConfigError(f"{named.where} cannot be read: {path}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{named.where} cannot be read: {path} is no text") from None
    if not text:
        raise ConfigError(f"{named.where} is empty: {path}")
    return text
