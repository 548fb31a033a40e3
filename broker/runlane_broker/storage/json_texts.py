"""The texts in a column that holds a JSON list of texts, as rows: what each dialect has another function for."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, TableValuedAlias, Text
from sqlalchemy import column as named

from .spellings import spelt

_JsonTexts: Final = spelt(
    "runlane_json_texts", sqlite="json_each({})", postgresql="json_array_elements_text(CAST({} AS json))"
)


def json_texts(column: ColumnElement[Any]) -> TableValuedAlias:
    """Return the texts of a column as a table with one column, `value`."""
    return _JsonTexts(column).table_valued(named("value", Text))
