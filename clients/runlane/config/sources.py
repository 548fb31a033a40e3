"""Where values come from. A `Layer` holds what one source says: `section.name` -> what was given, and where."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from .declared import FILE, FILE_KEYS, PREFIX, SETTINGS, VARIABLES, suggestion
from .kinds import ConfigError
from .sections import SECTIONS

#: Names the file to read, in place of the search for runlane.toml and pyproject.toml.
CONFIG_VARIABLE: Final = "RUNLANE_CONFIG"
FILE_NAME: Final = "runlane.toml"
PYPROJECT: Final = "pyproject.toml"

_TABLES: Final = frozenset(section.SECTION for section in SECTIONS)
#: What Kubernetes and Docker put into the environment of everybody beside a service called "runlane…".
_LINK: Final = re.compile(r".*_(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_LINK_VALUE: Final = re.compile(r"(tcp|udp|sctp)://.*")


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was given: by whom, and in which folder, where that is a file."""

    value: object
    where: str
    folder: Path | None = None


Layer: TypeAlias = Mapping[str, Given]


def environment(environ: Mapping[str, str]) -> Layer:
    """Return what the `RUNLANE_…` variables say; an empty one says nothing, unless it is a secret.

    Raises `ConfigError` for one that there is not.
    """
    layer: dict[str, Given] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE or _is_service_link(variable, text):
            continue
        if variable not in VARIABLES:
            raise ConfigError(f"{variable}: unknown setting{suggestion(variable, VARIABLES)}")
        keys = VARIABLES[variable]
        if text or SETTINGS[keys[0].removesuffix(FILE)].secret:
            layer.update(dict.fromkeys(keys, Given(text, variable)))
    return layer


def _is_service_link(variable: str, text: str) -> bool:
    """Say whether a variable was put there by an orchestrator: RUNLANE_PORT=tcp://10.0.0.1:4200 and the like."""
    if variable.endswith("_PORT") and _LINK_VALUE.fullmatch(text):
        return True
    return variable not in VARIABLES and _LINK.fullmatch(variable) is not None


def files(environ: Mapping[str, str], folder: Path) -> Iterator[tuple[Path, Layer]]:
    """Yield the files that count, the first before the second: the nearest runlane.toml and pyproject.toml.

    They are looked for from `folder` upwards; a pyproject.toml without `[tool.runlane]` is passed over. Where
    RUNLANE_CONFIG names a file, it is the only one. Raises `ConfigError`.
    """
    if named := environ.get(CONFIG_VARIABLE):
        path = folder / Path(named).expanduser()
        yield path, _layer(path, _toml(_read(path), path), "")
        return
    for path in _candidates(folder, FILE_NAME):
        if _is_ours(path):
            yield path, _layer(path, _toml(_read(path), path), "")
            break
    for path in _candidates(folder, PYPROJECT):
        if (table := _tool_table(path)) is not None:
            yield path, _layer(path, table, "tool.runlane.")
            break


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    return (parent / name for parent in (folder, *folder.parents))


def _is_ours(path: Path) -> bool:
    """Say whether there is such a file, and not only because another user has put it where everybody may write.

    In a folder like /tmp anybody could name a broker of their own, and be sent our token.
    """
    try:
        file, folder = path.stat(), path.parent.stat()
    except OSError:
        return False
    trusted = os.name != "posix" or not folder.st_mode & stat.S_IWOTH or file.st_uid in (0, os.geteuid())
    return stat.S_ISREG(file.st_mode) and trusted


def _tool_table(path: Path) -> Mapping[str, Any] | None:
    """Return `[tool.runlane]`; nobody else's pyproject.toml is any of our business."""
    if not _is_ours(path) or b"runlane" not in (data := _read(path)):
        return None
    tool: object = _toml(data, path).get("tool")
    table = cast("dict[str, object]", tool).get("runlane") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"tool.runlane in {path} must be a table")
    return cast("Mapping[str, Any] | None", table)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from None


def _toml(data: bytes, path: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415  (most programs have no such file, and need not wait for its parser)

    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigError(f"{path} is no TOML: {exc}") from None


def _layer(path: Path, table: Mapping[str, Any], prefix: str) -> Layer:
    return {
        key: Given(value, f"{prefix}{key} in {path}", path.parent) for key, value in _flat(table, "", prefix, path)
    }


def _flat(table: Mapping[str, Any], parent: str, prefix: str, path: Path) -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        key = f"{parent}{name}"
        if key in _TABLES:
            if not isinstance(value, dict):
                raise ConfigError(f"{prefix}{key} in {path} must be a table")
            yield from _flat(cast("dict[str, Any]", value), f"{key}.", prefix, path)
        elif key in FILE_KEYS:
            yield key, value
        elif key in SETTINGS:
            raise ConfigError(
                f"{prefix}{key} in {path}: a secret has no place here; put it into a file and name that: "
                f"{prefix}{key}_file"
            )
        else:
            known = suggestion(key, (*FILE_KEYS, *_TABLES))
            raise ConfigError(f"{prefix}{key} in {path}: unknown setting{known}")
