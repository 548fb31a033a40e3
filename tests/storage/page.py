"""The filters as docs/http.md shows them; `python -m tests.storage.page` prints the tables, to paste there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from runlane_broker.schemas.filters import MAX_STARTS, MAX_VALUES

from .lists import GROUPS, fields_of, operators_of

PAGE = Path(__file__).parents[2] / "docs" / "http.md"

OPERATORS: Final = {
    "any_": f"is one of these, at most {MAX_VALUES}; an empty list takes nothing",
    "not_any_": "is there, and is none of these; an empty list says nothing",
    "all_": "has all of these tags; an empty list says nothing",
    "is_null_": "is absent, or there; of tags: whether there are none",
    "like_": "contains this, in any case; `%` is anything, `_` one character, but not behind a `\\`",
    "startswith_": f"starts with one of these, at most {MAX_STARTS}, in any case; `%` and `_` are themselves",
    "before_": "is at this time or before",
    "after_": "is at this time or after",
    "ge_": "is at least this",
    "le_": "is at most this",
    "eq_": "is this",
    "exists_": "whether there are any",
    "id_": "is one of these ids",
    "type_": "is one of these types",
}


def group_table(group: str) -> str:
    """The fields of a group and their operators."""
    info: Any = inspect.type_info(GROUPS[group])
    notes = {part.name: _description(part.type) for part in info.fields}
    lines = [f"| `{group}` | operators | |", "|---|---|---|"]
    for name, leaf in fields_of(GROUPS[group]).items():
        parts = (
            {f"{name}.{part}": inner for part, inner in fields_of(leaf).items()}
            if name == "state"
            else {name: leaf}
        )
        for path, struct in parts.items():
            operators = ", ".join(f"`{operator}`" for operator in operators_of(struct))
            lines.append(f"| `{path}` | {operators} | {notes[name]} |")
    return "\n".join(lines) + "\n"


def operator_table() -> str:
    """What the operators mean."""
    lines = [f"| `{name}` | {meaning} |" for name, meaning in OPERATORS.items()]
    return "\n".join(["| operator | takes what |", "|---|---|", *lines]) + "\n"


def _description(type_: Any) -> str:
    schema = type_.extra_json_schema if isinstance(type_, inspect.Metadata) else None
    return (schema or {}).get("description", "")


def tables() -> list[str]:
    """All tables, in the order of the page."""
    return [operator_table(), *map(group_table, GROUPS)]


def used_operators() -> set[str]:
    """The operators that there are."""
    leaves: list[type[msgspec.Struct]] = []
    for struct in GROUPS.values():
        for name, leaf in fields_of(struct).items():
            leaves += fields_of(leaf).values() if name == "state" else [leaf]
    return {operator for leaf in leaves for operator in operators_of(leaf)}


if __name__ == "__main__":
    print("\n".join(tables()))
