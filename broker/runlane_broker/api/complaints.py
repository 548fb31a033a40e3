"""What msgspec finds wrong with a request, said to whoever sent it: where it stands, and what may stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import inspect

from ..errors import Invalid
from ..schemas.flows import PATH_NAME_PATTERN
from ..schemas.ids import ID_PATTERN

_PLACED: Final = re.compile(r"(?P<said>.*) - at (?P<key>`key` in )?`\$(?P<place>[^`]*)`", re.DOTALL)
_FIELD: Final = re.compile(r"Object (?P<what>missing required|contains unknown) field `(?P<name>[^`]*)`")
_NO_CHOICE: Final = re.compile(r"Invalid (enum )?value ")
#: What stands in place of a pattern, for people.
_PATTERNS: Final = {
    repr(ID_PATTERN): "not a UUID",
    repr(PATH_NAME_PATTERN): "a name has 1 to 200 characters, and none of / % & > <",
}
_NO_MATCH: Final = re.compile(r"Expected `str.*` matching regex (?P<pattern>'.*')", re.DOTALL)
_STEP: Final = re.compile(r"\[(\d+|\.\.\.)\]|([^.\[\]]+)")
#: How msgspec writes the key of an object whose keys are not declared.
_ANY_KEY: Final = "[...]"


def invalid(error: msgspec.ValidationError, type_: Any) -> Invalid:
    """Return what is wrong with a value that should be of `type_`.

    The field ends where a key of the sender's own would come next: which one it is, msgspec does not say.
    """
    message = str(error)
    placed = _PLACED.fullmatch(message)
    said, place = (placed["said"], placed["place"].lstrip(".")) if placed else (message, "")
    kind = "value_error"
    if found := _FIELD.match(said):
        kind = "missing" if found["what"] == "missing required" else "extra_forbidden"
        place = f"{place}.{found['name']}".lstrip(".")
    elif _NO_CHOICE.match(said):
        choices = ", ".join(map(str, _choices(type_, place)))
        said = f"{said}; one of: {choices}" if choices else said
    elif found := _NO_MATCH.fullmatch(said):
        said = _PATTERNS.get(found["pattern"], said)
    if placed and placed["key"]:
        said = f"a key: {said}"
    return Invalid(said, place.partition(_ANY_KEY)[0] or None, kind)


def _choices(type_: Any, place: str) -> list[Any]:
    """Return the values that an enumeration has at a place: members of an enum, literals, or tags of structs."""
    found = [*_alternatives(inspect.type_info(type_))]
    choices: dict[Any, None] = {}
    for step in _STEP.finditer(place):
        choices = dict.fromkeys(
            node.tag for node in found if isinstance(node, inspect.StructType) and node.tag_field == step[2]
        )
        found = [inner for node in found for inner in _inside(node, step[2])]
    for node in found:
        if isinstance(node, inspect.EnumType):
            choices.update(dict.fromkeys(member.value for member in node.cls))
        elif isinstance(node, inspect.LiteralType):
            choices.update(dict.fromkeys(node.values))
    return [*choices]


def _alternatives(node: inspect.Type) -> Iterator[inspect.Type]:
    match node:
        case inspect.UnionType():
            for one in node.types:
                yield from _alternatives(one)
        case inspect.Metadata():
            yield from _alternatives(node.type)
        case _:
            yield node


def _inside(node: inspect.Type, name: str | None) -> Iterator[inspect.Type]:
    """Yield what a type holds: in the field of that name, or, without one, as its items or values."""
    match node:
        case inspect.StructType() if name is not None:
            for field in node.fields:
                if field.encode_name == name:
                    yield from _alternatives(field.type)
        case inspect.ListType() | inspect.VarTupleType() if name is None:
            yield from _alternatives(node.item_type)
        case inspect.DictType() if name is None:
            yield from _alternatives(node.value_type)
        case _:
            return
