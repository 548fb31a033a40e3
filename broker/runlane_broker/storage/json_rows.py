"""Many rows as one value, a JSON list of lists: read by a statement, or returned by one.

A driver that takes or gives rows one by one lets go of Python's lock, and waits for it again, at each of them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, TableValuedAlias, Text, cast, literal_column, select
from sqlalchemy import column as named
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction


class JsonElements(GenericFunction[Any]):
    """`json_each` of SQLite, `json_array_elements` of PostgreSQL."""

    inherit_cache = True
    name = "runlane_json_elements"


@compiles(JsonElements, "sqlite")
def _elements_sqlite(element: JsonElements, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(JsonElements, "postgresql")
def _elements_postgresql(element: JsonElements, compiler: Any, **options: Any) -> str:
    return f"json_array_elements(CAST({compiler.process(element.clauses, **options)} AS json))"


class JsonLists(GenericFunction[Any]):
    """All rows of a select, each a list: `json_group_array` of SQLite, `json_agg` of PostgreSQL."""

    inherit_cache = True
    name = "runlane_json_lists"


@compiles(JsonLists, "sqlite")
def _lists_sqlite(element: JsonLists, compiler: Any, **options: Any) -> str:
    return f"json_group_array(json_array({compiler.process(element.clauses, **options)}))"


@compiles(JsonLists, "postgresql")
def _lists_postgresql(element: JsonLists, compiler: Any, **options: Any) -> str:
    return f"json_agg(json_build_array({compiler.process(element.clauses, **options)}))"


def json_rows(text: ColumnElement[Any]) -> TableValuedAlias:
    """Return the lists in a list as a table with one column, `value`."""
    return JsonElements(text).table_valued(named("value", Text))


def text_of(row: TableValuedAlias, index: int) -> ColumnElement[str]:
    """Return the text at this place of a list; null stays null."""
    return row.c.value.op("->>")(literal_column(str(index)))


def number_of(row: TableValuedAlias, index: int) -> ColumnElement[int]:
    """Return the number at this place of a list."""
    return cast(text_of(row, index), BigInteger)


def as_json(query: Select[Any]) -> Select[Any]:
    """Return a query's rows as one text, a list of lists in any order; where there are none it may be null."""
    return select(JsonLists(*query.subquery("rows").c))
