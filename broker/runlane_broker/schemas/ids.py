"""Ids in request bodies: people write them as they please; kept and compared they are in lower case."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Final, TypeAlias

from msgspec import Meta, Struct, inspect

#: Any UUID with hyphens, in either case.
ID_PATTERN: Final = r"^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}\Z"
Id: TypeAlias = Annotated[str, Meta(pattern=ID_PATTERN)]


def lower_ids(body: Struct) -> None:
    """Write a body's own ids, and those in its lists, in lower case."""
    for name in _id_fields(type(body)):
        value: Any = getattr(body, name)
        if isinstance(value, str):
            setattr(body, name, value.lower())
        elif value:
            setattr(body, name, type(value)(one.lower() for one in value))


@cache
def _id_fields(type_: type[Struct]) -> tuple[str, ...]:
    declared = inspect.type_info(type_)
    assert isinstance(declared, inspect.StructType)
    return tuple(field.name for field in declared.fields if any(_texts(field.type)))


def _texts(type_: inspect.Type) -> Iterator[bool]:
    """Yield of all text that a field may hold by itself whether it is an id."""
    match type_:
        case inspect.UnionType():
            for one in type_.types:
                yield from _texts(one)
        case inspect.Metadata():
            yield from _texts(type_.type)
        case inspect.ListType() | inspect.VarTupleType():
            yield from _texts(type_.item_type)
        case inspect.StrType():
            yield type_.pattern == ID_PATTERN
        case _:
            return
