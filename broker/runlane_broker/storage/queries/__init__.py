"""Every statement, as builders that execute nothing.

Named parameters, one text for SQLite and PostgreSQL. Those of the writer are compiled once and run by its driver;
those of `reading` are run by the async engine.
"""

from .base import Query
from .dispatch import FIRST_DUE, NEVER, NEXT_DUE, first_due, next_due
from .reading import count_leased, count_queued, count_queued_of, read_outcomes, read_sessions
from .runs import (
    end_lease,
    expire_run,
    find_report,
    insert_payload,
    insert_run,
    insert_state,
    lease_run,
    read_hash,
    read_idempotent,
    read_lease,
    read_natural,
    read_newest_state,
    read_parameters,
    read_session_leases,
    start_run,
    write_outcome,
)
from .sessions import (
    adopt_sessions,
    beat,
    delete_brokers,
    delete_session,
    holds_session,
    insert_broker,
    insert_session,
    mark_commit,
    read_commit,
    read_session,
    resume_session,
)
from .transitions import free_slots

__all__ = [
    "FIRST_DUE",
    "NEVER",
    "NEXT_DUE",
    "Query",
    "adopt_sessions",
    "beat",
    "count_leased",
    "count_queued",
    "count_queued_of",
    "delete_brokers",
    "delete_session",
    "end_lease",
    "expire_run",
    "find_report",
    "first_due",
    "free_slots",
    "holds_session",
    "insert_broker",
    "insert_payload",
    "insert_run",
    "insert_session",
    "insert_state",
    "lease_run",
    "mark_commit",
    "next_due",
    "read_commit",
    "read_hash",
    "read_idempotent",
    "read_lease",
    "read_natural",
    "read_newest_state",
    "read_outcomes",
    "read_parameters",
    "read_session",
    "read_session_leases",
    "read_sessions",
    "resume_session",
    "start_run",
    "write_outcome",
]
