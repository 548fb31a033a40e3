"""The declarations as data: what there is, what it is called where, and what comes nearest to a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from types import MappingProxyType
from typing import Any, Final, cast

from .kinds import Kind
from .sections import DECLARED, SECTIONS, Declaration, Section

PREFIX: Final = "RUNLANE_"
#: What is added to a secret's name where a file holds it.
FILE: Final = "_file"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting, by all of its names. A secret's `variable` and `flag` have a twin that names a file."""

    key: str  # broker.port
    name: str  # port
    section: str  # broker
    variable: str  # RUNLANE_PORT
    flag: str | None  # --port; a secret's is --token-file
    kind: Kind
    default: Any
    help: str
    secret: bool


def settings_of(section: type[Section]) -> tuple[Setting, ...]:
    """Return a section's settings, in order."""
    return tuple(_setting(section, field) for field in fields(cast("Any", section)) if DECLARED in field.metadata)


def _setting(section: type[Section], field: Field[Any]) -> Setting:
    declared: Declaration = field.metadata[DECLARED]
    option = field.name + (FILE if declared.secret else "")
    return Setting(
        key=f"{section.SECTION}.{field.name}",
        name=field.name,
        section=section.SECTION,
        variable=PREFIX + (declared.variable or f"{section.PREFIX}{field.name}").upper(),
        flag=f"--{option.replace('_', '-')}" if declared.flag else None,
        kind=declared.kind,
        default=field.default if field.default_factory is MISSING else field.default_factory(),
        help=declared.help,
        secret=declared.secret,
    )


SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(
    {setting.key: setting for section in SECTIONS for setting in settings_of(section)}
)


def _variables() -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for setting in SETTINGS.values():
        for end in ("", FILE) if setting.secret else ("",):
            variable = setting.variable + end.upper()
            found[variable] = (*found.get(variable, ()), setting.key + end)
    return MappingProxyType(found)


#: Environment variable -> the keys that it sets.
VARIABLES: Final = _variables()
#: What may stand in a file: a secret only by the name of a file that holds it.
FILE_KEYS: Final = tuple(f"{s.key}{FILE}" if s.secret else s.key for s in SETTINGS.values())


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean …?" for the nearest of the known names, or nothing."""
    names = list(known)
    same = [key for key in names if key.rpartition(".")[2] == name.rpartition(".")[2]]
    close = same or difflib.get_close_matches(name, names, n=1) or _close_last_part(name, names)
    return f"; did you mean {close[0]}?" if close else ""


def _close_last_part(name: str, known: Iterable[str]) -> list[str]:
    by_part = {key.rpartition(".")[2]: key for key in known}
    close = difflib.get_close_matches(name.rpartition(".")[2], by_part, n=1)
    return [by_part[part] for part in close]
