"""Checks of states without lists, of which SQLite makes a table for every row that is written."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_STATES: Final = (
    "SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED",
)  # fmt: skip
_HELD: Final = ("PENDING", "RUNNING", "CANCELLING")


def upgrade() -> None:
    """Say the same with other words: every row fulfils it already. SQLite would otherwise copy whole tables."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    for column, states in (("state_type", _STATES), ("state_type", _HELD), ("type", _STATES)):  # in this order
        connection.execute(
            sa.text("UPDATE sqlite_master SET sql = replace(sql, :list, :chain) WHERE type = 'table'"),
            {"list": _list(column, states), "chain": _chain(column, states)},
        )
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")


def _list(column: str, states: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(state) for state in states)})"


def _chain(column: str, states: tuple[str, ...]) -> str:
    return " OR ".join(f"{column} = {state!r}" for state in states)
