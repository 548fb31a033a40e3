"""The texts in a column that holds a JSON list of texts, as rows: what each dialect has another function for."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, TableValuedAlias, Text
from sqlalchemy import column as named
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction


class JsonTexts(GenericFunction[Any]):
    """`json_each` of SQLite, `json_array_elements_text` of PostgreSQL."""

    inherit_cache = True
    name = "runlane_json_texts"


@compiles(JsonTexts, "sqlite")
def _sqlite(element: JsonTexts, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(JsonTexts, "postgresql")
def _postgresql(element: JsonTexts, compiler: Any, **options: Any) -> str:
    return f"json_array_elements_text(CAST({compiler.process(element.clauses, **options)} AS json))"


def json_texts(column: ColumnElement[Any]) -> TableValuedAlias:
    """Return the texts of a column as a table with one column, `value`."""
    return JsonTexts(column).table_valued(named("value", Text))
