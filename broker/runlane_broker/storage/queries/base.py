"""What builders share: parameters, constants, the shape of a statement."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, Final, TypeAlias, cast

from sqlalchemy import ColumnElement, Integer, bindparam, literal_column
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import StateType

#: A statement of the writer, named by the function that builds it.
Query: TypeAlias = Callable[[], Executable]

ONE: Final[ColumnElement[int]] = literal_column("1", Integer)


def param(name: str, *, expanding: bool = False) -> Any:
    """A parameter. The underscore keeps it apart from the names that inserts and updates give their columns.

    An expanding one stands for a list, at the right of `in_`.
    """
    return cast("Any", bindparam(f"{name}_", expanding=expanding))


def const(value: StrEnum) -> ColumnElement[Any]:
    """A constant in the text itself: partial indexes are found by it, which a parameter would prevent."""
    return literal_column(f"'{value.value}'")


def one_of(column: ColumnElement[Any], states: Iterable[StateType]) -> ColumnElement[bool]:
    """The column is one of these, in the text itself too."""
    return column.in_([const(state) for state in sorted(states)])
