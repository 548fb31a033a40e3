"""What the edges read of the limits by tag."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select

from ..tables import concurrency_limit, concurrency_slot


def read_limits() -> Select[Any]:
    """Return all limits."""
    return select(concurrency_limit)


def read_slots() -> Select[Any]:
    """Return the slots that are taken."""
    return select(concurrency_slot).order_by(concurrency_slot.c.task_run_id)
