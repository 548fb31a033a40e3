"""Leases as decisions on them find them: a run's row, whoever holds it, of either kind."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from runlane.protocol.states import StateType

from ...orchestration.leases import RunView
from ...orchestration.runs import Retries
from .. import queries as q
from ..records import RETRY_LANE, SCHEDULED_LANE
from ..transaction import Transaction

_delays = msgspec.json.Decoder(tuple[float, ...]).decode


class LeaseRow(NamedTuple):
    """A run as the decisions on its lease need it: the columns of `LeaseStatements.read`, in order, and those.

    Of a flow run, `task_key` is its work queue's key.
    """

    id: str
    task_key: str
    priority: int
    due: int
    state_type: str
    state_name: str
    state_timestamp: int
    session_id: str | None
    attempt: int
    failures: int
    losses: int
    retries: int
    retry_delay: str
    retry_jitter: float
    total_run_time: int
    tags: str
    retry_type: str | None
    statements: q.LeaseStatements

    @property
    def retry_lane(self) -> int:
        """Where it waits when it is queued again. Flow runs have one lane: they go by time alone."""
        return RETRY_LANE if self.statements is q.TASK_LEASES else SCHEDULED_LANE

    def view(self) -> RunView:
        """What the rules need of it."""
        retries = Retries(self.retries, _delays(self.retry_delay), self.retry_jitter)
        return RunView(StateType(self.state_type), self.failures, self.losses, retries)


def find_lease(
    tx: Transaction, run_id: str, attempt: int, session_id: str
) -> tuple[LeaseRow, Literal[True]] | tuple[None, bool]:
    """Return a run, of either kind, if it is under this very lease; and whether there is such a run at all."""
    is_there = False
    for statements in q.ALL_LEASES:
        found = tx.row(statements.read, {"id": run_id})
        if found is None:
            continue
        row = LeaseRow._make((*found, statements))
        if (row.attempt, row.session_id) == (attempt, session_id):
            return row, True
        is_there = True
    return None, is_there


def read_flow_lease(tx: Transaction, run_id: str) -> LeaseRow | None:
    """Return a flow run, whoever holds it."""
    row = tx.row(q.FLOW_LEASES.read, {"id": run_id})
    return None if row is None else LeaseRow._make((*row, q.FLOW_LEASES))


def live_flow_leases(tx: Transaction, flow_id: str) -> list[LeaseRow]:
    """Return the runs of a flow that wait, or are under way."""
    rows = tx.rows(q.read_live_flow_runs, {"flow_id": flow_id})
    return [LeaseRow._make((*row, q.FLOW_LEASES)) for row in rows]


def has_reported(tx: Transaction, run_id: str, attempt: int, session_id: str) -> bool:
    """Say whether this very lease has reported its end, be it in this transaction."""
    tx.flush()
    lease = {"id": run_id, "attempt": attempt, "session_id": session_id}
    return any(tx.row(statements.find_report, lease) is not None for statements in q.ALL_LEASES)


def session_leases(tx: Transaction, session_id: str) -> list[LeaseRow]:
    """Return all that a session holds, oldest first, task runs before flow runs."""
    return [
        LeaseRow._make((*row, statements))
        for statements in q.ALL_LEASES
        for row in tx.rows(statements.read_of_session, {"session_id": session_id})
    ]
