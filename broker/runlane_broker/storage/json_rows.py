"""Many rows as one value, a JSON list: read by a statement, or returned by one.

A driver that takes or gives rows one by one lets go of Python's lock, and waits for it again, at each of them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, TableValuedAlias, Text, select
from sqlalchemy import column as named
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction


class NumberedTexts(GenericFunction[Any]):
    """`json_each` of SQLite, `json_array_elements_text` of PostgreSQL."""

    inherit_cache = True
    name = "runlane_numbered_texts"


@compiles(NumberedTexts, "sqlite")
def _numbered_sqlite(element: NumberedTexts, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(NumberedTexts, "postgresql")
def _numbered_postgresql(element: NumberedTexts, compiler: Any, **options: Any) -> str:
    text = f"json_array_elements_text(CAST({compiler.process(element.clauses, **options)} AS json))"
    return f"(SELECT number - 1 AS key, value FROM {text} WITH ORDINALITY AS one (value, number))"  # noqa: S608


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


class HexDigits(GenericFunction[str]):
    """A number as twelve hexadecimal digits: `printf` of SQLite, `to_hex` of PostgreSQL."""

    type = Text()
    inherit_cache = True
    name = "runlane_hex_digits"


@compiles(HexDigits, "sqlite")
def _digits_sqlite(element: HexDigits, compiler: Any, **options: Any) -> str:
    return f"printf('%012x', {compiler.process(element.clauses, **options)})"


@compiles(HexDigits, "postgresql")
def _digits_postgresql(element: HexDigits, compiler: Any, **options: Any) -> str:
    return f"lpad(to_hex({compiler.process(element.clauses, **options)}), 12, '0')"


class JsonWithout(GenericFunction[str]):
    """A text that is a JSON object, without one of its fields: `json_remove` of SQLite, `-` of PostgreSQL."""

    type = Text()
    inherit_cache = True
    name = "runlane_json_without"

    def __init__(self, text: ColumnElement[Any], field: str) -> None:
        super().__init__(text)
        self.field = field


@compiles(JsonWithout, "sqlite")
def _without_sqlite(element: JsonWithout, compiler: Any, **options: Any) -> str:
    return f"json_remove({compiler.process(element.clauses, **options)}, '$.{element.field}')"


@compiles(JsonWithout, "postgresql")
def _without_postgresql(element: JsonWithout, compiler: Any, **options: Any) -> str:
    text = compiler.process(element.clauses, **options)
    return f"CAST(CAST({text} AS jsonb) - '{element.field}' AS text)"


def numbered_texts(text: ColumnElement[Any]) -> TableValuedAlias:
    """Return the texts in a list as a table with columns `value` and `key`, the place in the list from 0."""
    return NumberedTexts(text).table_valued(named("value", Text), named("key", BigInteger))


def as_json(query: Select[Any]) -> Select[Any]:
    """Return a query's rows as one text, a list of lists in any order; where there are none it may be null."""
    return select(JsonLists(*query.subquery("rows").c))
