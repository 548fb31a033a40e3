"""The statements on what clients keep here."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Delete, Insert, Select, Update, delete, func, insert, select, update
from sqlalchemy.sql.base import Executable

from ..tables import kept_object, log_line
from .base import ONE, param

_o = kept_object.c


def insert_object() -> Insert:
    """Keep an object."""
    return insert(kept_object).values({c.name: param(c.name) for c in kept_object.c})


def find_object() -> Executable:
    """Return a row if there is an object of that name."""
    same = (_o.kind == param("kind"), _o.parent == param("parent"), _o.name == param("name"))
    return select(ONE).where(*same)


def update_object() -> Update:
    """Keep other data under an id."""
    same = (_o.id == param("id"), _o.kind == param("kind"))
    return update(kept_object).where(*same).values(data=param("data"), updated=param("updated"))


def delete_object() -> Delete:
    """Keep an object no more."""
    return delete(kept_object).where(_o.id == param("id"), _o.kind == param("kind"))


def read_objects() -> Select[Any]:
    """Return objects; the caller says which."""
    return select(kept_object)


def newest_ids(kind: str) -> Select[Any]:
    """Return the id of the newest object of each name."""
    return select(func.max(_o.id)).where(_o.kind == kind, _o.name != "").group_by(_o.name)


def insert_log_line() -> Insert:
    """Keep a line of a log."""
    return insert(log_line).values({c.name: param(c.name) for c in log_line.c})


def read_log_lines() -> Select[Any]:
    """Return lines of logs; the caller says which."""
    return select(log_line)
