"""The writer's statements on many task runs at once: what is leased to one session together.

Each says the same as the one on a single run, row by row; a statement for each costs more than what it does.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, and_, cast, func, insert, literal_column, select, update
from sqlalchemy.sql.base import Executable

from runlane.protocol.states import StateName, StateType

from ..json_texts import json_texts
from ..tables import TASK_RUN, task_run, task_run_payload, task_run_state
from ..unindexed import unindexed
from .base import ONE, const, param
from .leases import task_waits
from .showing import read_runs

#: Characters of an id.
_ID: Final = 36


def read_shown_runs() -> Executable:
    """Return task runs as they are shown, in any order."""
    return read_runs(TASK_RUN).where(_is_one_of("ids"))


def read_all_parameters() -> Executable:
    """Return ids and parameters, in any order."""
    payload = task_run_payload.c
    return select(payload.task_run_id, payload.parameters).where(
        payload.task_run_id.in_(select(json_texts(param("ids")).c.value))
    )


def lease_runs() -> Executable:
    """Give queued runs to a session: see `leases.TASK_LEASES.lease`.

    Each of the `leases` is a run's id, the id of its new state, and that state's time, with nothing between.
    """
    t = task_run.c
    lease = json_texts(param("leases")).c.value
    timestamp = cast(_slice(lease, 2 * _ID + 1), BigInteger)
    waits = and_(t.state_type == const(StateType.SCHEDULED), t.due <= param("now"), task_waits())
    return (
        update(task_run)
        .where(t.id == _slice(lease, 1, _ID), unindexed(waits))
        .values(
            state_type=const(StateType.PENDING),
            state_name=const(StateName.PENDING),
            state_id=_slice(lease, _ID + 1, _ID),
            state_timestamp=timestamp,
            session_id=param("session_id"),
            attempt=t.attempt + ONE,
            updated=timestamp,
        )
        .returning(t.id, t.attempt, t.task_key, t.timeout, t.expires, t.headers)
    )


def insert_leased_states() -> Executable:
    """Append to the history the state that runs have just been leased with."""
    t = task_run.c
    columns = {
        task_run_state.c.id: t.state_id,
        task_run_state.c.task_run_id: t.id,
        task_run_state.c.type: t.state_type,
        task_run_state.c.name: t.state_name,
        task_run_state.c.timestamp: t.state_timestamp,
        task_run_state.c.attempt: t.attempt,
        task_run_state.c.session_id: t.session_id,
    }
    return insert(task_run_state).from_select(
        [column.name for column in columns], select(*columns.values()).where(_is_one_of("ids"))
    )


def _is_one_of(name: str) -> ColumnElement[bool]:
    """The run's id is in a JSON list."""
    return task_run.c.id.in_(select(json_texts(param(name)).c.value))


def _slice(text: ColumnElement[Any], start: int, length: int | None = None) -> ColumnElement[str]:
    """Return a part of a text; the first character is 1."""
    first: ColumnElement[int] = literal_column(str(start))
    if length is None:
        return func.substr(text, first)
    count: ColumnElement[int] = literal_column(str(length))
    return func.substr(text, first, count)
