"""Where in a value the part is that has no JSON form. Only for errors: every step encodes again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from typing import Any, Final

from ..errors import PayloadError
from .values import encode

#: Steps down, at most: a list may contain itself.
_STEPS: Final = 8
#: Characters of a key that an error repeats.
_KEY_LENGTH: Final = 40


def trace(value: object, what: str, error: PayloadError, steps: int = _STEPS) -> PayloadError:
    """Return the error of the innermost part that cannot be encoded: `argument 'order'.lines[2]: …`."""
    for place, part in _parts(value) if steps else ():
        try:
            encode(part, what + place)
        except PayloadError as exc:
            return trace(part, what + place, exc, steps - 1)
    return error


def _parts(value: Any) -> Iterable[tuple[str, object]]:
    match value:
        case str() | bytes() | bytearray() | memoryview():
            return ()
        case Mapping():
            return ((f"[{repr(key)[:_KEY_LENGTH]}]", part) for key, part in value.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType, reportUnknownMemberType]
        case Sequence() | Set():
            return ((f"[{index}]", part) for index, part in enumerate(value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case _:
            return ((f".{name}", getattr(value, name)) for name in _field_names(value) if hasattr(value, name))


def _field_names(value: Any) -> Iterable[str]:
    if is_dataclass(value):
        return (field.name for field in fields(value))
    return getattr(value, "__struct_fields__", ())
