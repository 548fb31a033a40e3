"""Checks of states without lists, of which SQLite makes a table for every row that is written."""

from __future__ import annotations

from typing import Final

from alembic import op

from runlane_broker.storage.migrations.declarations import reword

revision = "0004"
down_revision = "0003"

_STATES: Final = (
    "SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED",
)  # fmt: skip
_HELD: Final = ("PENDING", "RUNNING", "CANCELLING")


def upgrade() -> None:
    """Say the same with other words."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    checks = (("state_type", _STATES), ("state_type", _HELD), ("type", _STATES))  # in this order
    words = {_list(column, states): _chain(column, states) for column, states in checks}
    reword(connection, words, "task_run", "task_run_state", "flow_run", "flow_run_state")


def _list(column: str, states: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(state) for state in states)})"


def _chain(column: str, states: tuple[str, ...]) -> str:
    return " OR ".join(f"{column} = {state!r}" for state in states)
