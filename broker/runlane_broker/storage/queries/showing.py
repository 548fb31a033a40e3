"""Runs of either kind, and their states, as they are shown."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select

from ..tables import FLOW_RUN, RunKind, work_pool, work_queue


def read_runs(kind: RunKind) -> Select[Any]:
    """Return all runs with their current states and payloads; flow runs with their queues and pools, too."""
    state = kind.state.alias("state")
    payload = [column for column in kind.payload.c if column is not kind.run_of_payload]
    query = (
        select(
            *kind.run.c,
            state.c.message.label("state_message"),
            state.c.due.label("state_due"),
            state.c.details.label("state_details"),
            state.c.data.label("state_data"),
            *payload,
        )
        .join(state, state.c.id == kind.run.c.state_id)
        .join(kind.payload, kind.run_of_payload == kind.run.c.id)
    )
    return _with_pools(query, kind) if kind is FLOW_RUN else query


def _with_pools(query: Select[Any], kind: RunKind) -> Select[Any]:
    return (
        query.add_columns(work_queue.c.work_pool_id, work_pool.c.name.label("work_pool_name"))
        .outerjoin(work_queue, work_queue.c.id == kind.run.c.work_queue_id)
        .outerjoin(work_pool, work_pool.c.id == work_queue.c.work_pool_id)
    )


def read_states(kind: RunKind) -> Select[Any]:
    """Return the states of all runs."""
    return select(kind.state, kind.run_of_state.label("run_id"))
