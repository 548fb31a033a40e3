"""What an operation sees of the database: statements by name, a clock and an id source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from runlane.protocol.states import StateType

from . import queries as q

Params: TypeAlias = Mapping[str, Any]
Row: TypeAlias = tuple[Any, ...]


class Transaction(Protocol):
    """An open write transaction. Exists for the length of `Operation.execute` only."""

    #: Time of day at the start of the transaction, microseconds UTC.
    now: int

    def run(self, query: q.Query, params: Params) -> int:
        """Run a statement, return the number of rows it changed."""
        ...

    def row(self, query: q.Query, params: Params) -> Row | None:
        """Run a statement, return its first row."""
        ...

    def rows(self, query: q.Query, params: Params) -> list[Row]:
        """Run a statement, return its rows."""
        ...

    def later(self, query: q.Query, params: Params) -> None:
        """Run a statement before the commit, with others of its kind. What depends on it flushes first."""
        ...

    def flush(self) -> None:
        """Run what was put off now."""
        ...

    def tick(self, count: int = 1) -> int:
        """Return a time of day that no other state of this broker has, nor any of `count` from it on.

        States sort by it.
        """
        ...

    def stamp(self, at: int, after: int) -> int:
        """Return the time of day at which something was reported, but later than `after`, the state before it."""
        ...

    def new_id(self, timestamp: int) -> str:
        """Mint an id for something that happened at `timestamp`."""
        ...

    def random(self) -> float:
        """Return a random number in [0, 1)."""
        ...


def add_state(
    tx: Transaction,
    run_id: str,
    type_: StateType,
    name: str,
    *,
    timestamp: int,
    state_id: str,
    attempt: int,
    message: str | None = None,
    due: int | None = None,
    session_id: str | None = None,
    details: str | None = None,
    data: bytes | None = None,
    statements: q.LeaseStatements = q.TASK_LEASES,
) -> None:
    """Append a state to the history. `session_id` is given only where the session itself caused the state.

    `details` are JSON, of states that were set over HTTP; so is `data`, of those and of what flow runs came to.
    """
    tx.later(
        statements.insert_state,
        {
            "id": state_id,
            "run_id": run_id,
            "type": type_.value,
            "name": name,
            "message": message,
            "timestamp": timestamp,
            "due": due,
            "attempt": attempt,
            "session_id": session_id,
            "details": details,
            "data": data,
        },
    )
