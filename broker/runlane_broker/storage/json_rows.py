"""Many rows as one value, a JSON list: read by a statement, or returned by one.

A driver that takes or gives rows one by one lets go of Python's lock, and waits for it again, at each of them.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Select, TableValuedAlias, Text, select
from sqlalchemy import column as named

from .spellings import spelt

#: The texts in a list with their places there, from 0. (PostgreSQL counts from 1.)
_NumberedTexts: Final = spelt(
    "runlane_numbered_texts",
    sqlite="json_each({})",
    postgresql="(SELECT number - 1 AS key, value FROM json_array_elements_text(CAST({} AS json))"
    " WITH ORDINALITY AS one (value, number))",
)

#: All rows of a select, each a list.
_JsonLists: Final = spelt(
    "runlane_json_lists",
    sqlite="json_group_array(json_array({}))",
    postgresql="json_agg(json_build_array({}))",
)

#: A number as twelve hexadecimal digits.
HexDigits: Final = spelt(
    "runlane_hex_digits", Text(), sqlite="printf('%012x', {})", postgresql="lpad(to_hex({}), 12, '0')"
)


def numbered_texts(text: ColumnElement[Any]) -> TableValuedAlias:
    """Return the texts in a list as a table with columns `value` and `key`, the place in the list from 0."""
    return _NumberedTexts(text).table_valued(named("value", Text), named("key", BigInteger))


def as_json(query: Select[Any]) -> Select[Any]:
    """Return a query's rows as one text, a list of lists in any order; where there are none it may be null."""
    return select(_JsonLists(*query.subquery("rows").c))
