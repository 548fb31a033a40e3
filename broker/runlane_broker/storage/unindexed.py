"""A condition by which no rows are looked for. SQLite keeps no statistics, and has to be told."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction


class Unindexed(GenericFunction[bool]):
    """A condition, in brackets; on SQLite with the plus before it that keeps indexes from it."""

    type = Boolean()
    inherit_cache = True
    name = "runlane_unindexed"


@compiles(Unindexed)
def _plain(element: Unindexed, compiler: Any, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)})"


@compiles(Unindexed, "sqlite")
def _sqlite(element: Unindexed, compiler: Any, **options: Any) -> str:
    return f"+({compiler.process(element.clauses, **options)})"


def unindexed(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the same condition, for rows that are found in another way."""
    return Unindexed(condition)
