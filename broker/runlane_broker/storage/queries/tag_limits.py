"""Statements on the limits by tag."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Delete, Insert, Select, Update, delete, insert, select, update
from sqlalchemy.sql.base import Executable

from ..tables import concurrency_limit, concurrency_slot, task_run
from .base import param


def insert_limit() -> Insert:
    """Insert a limit."""
    return insert(concurrency_limit).values({c.name: param(c.name) for c in concurrency_limit.c})


def find_limit() -> Executable:
    """Return the id of a tag's limit."""
    return select(concurrency_limit.c.id).where(concurrency_limit.c.tag == param("tag"))


def update_limit() -> Update:
    """Change how many."""
    return (
        update(concurrency_limit)
        .where(concurrency_limit.c.id == param("id"))
        .values(concurrency_limit=param("concurrency_limit"), updated=param("updated"))
    )


def delete_limit() -> Delete:
    """Delete a limit, and with it the slots."""
    return delete(concurrency_limit).where(concurrency_limit.c.id == param("id"))


def clear_slots() -> Delete:
    """Take all slots away."""
    return delete(concurrency_slot).where(concurrency_slot.c.concurrency_limit_id == param("id"))


def give_slot() -> Insert:
    """Give a slot to a run, if there is such a run."""
    columns = [concurrency_slot.c.concurrency_limit_id, concurrency_slot.c.task_run_id]
    query = select(param("id"), task_run.c.id).where(task_run.c.id == param("task_run_id"))
    return insert(concurrency_slot).from_select(columns, query)


# Reading -----------------------------------------------------------------------------------------------------


def read_limits() -> Select[Any]:
    """Return all limits."""
    return select(concurrency_limit)


def read_slots() -> Select[Any]:
    """Return the slots that are taken."""
    return select(concurrency_slot).order_by(concurrency_slot.c.task_run_id)
