"""Every statement, as builders that execute nothing.

Named parameters, one text for SQLite and PostgreSQL. Those of the writer are compiled once and run by its driver;
those of `reading` are run by the async engine.
"""

from .base import Query
from .dispatch import FIRST_DUE, NEVER, NEXT_DUE, first_due, next_due
from .leases import (
    ALL_LEASES,
    FLOW_LEASES,
    TASK_LEASES,
    LeaseStatements,
    read_leased_flow_run,
    read_live_flow_runs,
)
from .reading import OUTCOMES, count_leased, count_queued, count_queued_of, read_sessions
from .runs import (
    expire_run,
    insert_named_run,
    insert_payload,
    insert_run,
    read_hash,
    read_idempotent,
    read_natural,
    read_newest_state,
    read_parameters,
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
    "ALL_LEASES",
    "FIRST_DUE",
    "FLOW_LEASES",
    "NEVER",
    "NEXT_DUE",
    "OUTCOMES",
    "TASK_LEASES",
    "LeaseStatements",
    "Query",
    "adopt_sessions",
    "beat",
    "count_leased",
    "count_queued",
    "count_queued_of",
    "delete_brokers",
    "delete_session",
    "expire_run",
    "first_due",
    "free_slots",
    "holds_session",
    "insert_broker",
    "insert_named_run",
    "insert_payload",
    "insert_run",
    "insert_session",
    "mark_commit",
    "next_due",
    "read_commit",
    "read_hash",
    "read_idempotent",
    "read_leased_flow_run",
    "read_live_flow_runs",
    "read_natural",
    "read_newest_state",
    "read_parameters",
    "read_session",
    "read_sessions",
    "resume_session",
    "write_outcome",
]
