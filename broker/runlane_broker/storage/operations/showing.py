"""Runs as they are shown, read inside a transaction: for workers who read them so."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping
from typing import Any, Final

from ..queries.batches import read_shown_runs
from ..queries.showing import read_runs
from ..queries.taking import read_shown_run
from ..rows import task_run_record
from ..run_records import RunRecord, StateRecord
from ..tables import TASK_RUN
from ..transaction import Transaction

# The rows of the writer have no names; those of the async engine, which records are made of elsewhere, do.
_Row: Final[Any] = namedtuple("_Row", read_runs(TASK_RUN).selected_columns.keys())  # pyright: ignore[reportUntypedNamedTuple]
_named: Final[Any] = _Row._make


def shown_run(tx: Transaction, run_id: str) -> RunRecord | None:
    """Return a task run as it is shown. What was put off and is about it has been flushed."""
    row = tx.row(read_shown_run, {"id": run_id})
    return None if row is None else task_run_record(_named(row))


def shown_runs(tx: Transaction, run_ids: str) -> dict[str, RunRecord]:
    """Return task runs as they are shown, by id; `run_ids` is a JSON list."""
    rows = tx.rows(read_shown_runs, {"ids": run_ids})
    runs = [task_run_record(_named(row)) for row in rows]
    return {run.id: run for run in runs}


def new_run(
    row: Mapping[str, object], state: StateRecord, parameters: bytes, result: bytes | None = None
) -> RunRecord:
    """Return a task run that is being inserted, by its columns, as it would be read."""
    payload = {"parameters": parameters, "result": result, "error": None}
    unread = {"state_message": None, "state_due": None, "state_details": None, "state_data": None}
    return task_run_record(_Row(**row, **payload, **unread), state)
