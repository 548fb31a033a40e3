"""Flow runs for tests, written past the operations that create them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from runlane_broker.storage.tables import flow_run

from ..support import START, new_id

FLOW_ID = "01234567-0000-7000-8000-000000000001"


def insert_flow_runs(path: Path, *runs: dict[str, Any]) -> list[str]:
    """Insert runs (of one flow) that are due, unless they say otherwise; return their ids."""
    ids = [run.get("id") or new_id() for run in runs]
    with closing(sqlite3.connect(path, timeout=5)) as connection, connection:
        connection.execute(
            "INSERT OR IGNORE INTO flow VALUES (?, 'flow', '[]', '{}', 0, 0)",
            [FLOW_ID],
        )
        columns = [column.name for column in flow_run.c]
        rows = [
            [{**_defaults(run_id), **run}[name] for name in columns] for run_id, run in zip(ids, runs, strict=True)
        ]
        marks = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO flow_run ({', '.join(columns)}) VALUES ({marks})", rows)
        connection.executemany(
            "INSERT INTO flow_run_state (id, flow_run_id, type, name, timestamp, due, attempt) "
            "VALUES (?,?,?,?,?,?,0)",
            [
                (row[columns.index("state_id")], row[0], row[columns.index("state_type")],
                 row[columns.index("state_name")], START, row[columns.index("due")])
                for row in rows
            ],
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO flow_run_payload VALUES (?, '{}', '{}', '{}')", [[run_id] for run_id in ids]
        )
    return ids


def set_state(path: Path, run_id: str, type_: str, **others: Any) -> None:
    """Change a run's state, past all rules."""
    values = {"state_type": type_, "state_name": type_.capitalize(), **others}
    with closing(sqlite3.connect(path, timeout=5)) as connection, connection:
        assignments = ", ".join(f"{name} = ?" for name in values)
        connection.execute(f"UPDATE flow_run SET {assignments} WHERE id = ?", [*values.values(), run_id])


def _defaults(run_id: str) -> dict[str, Any]:
    nothing: dict[str, Any] = {column.name: None for column in flow_run.c}
    return {
        **nothing,
        "id": run_id,
        "flow_id": FLOW_ID,
        "name": "run",
        "due": START,
        "state_id": new_id(),
        "state_type": "SCHEDULED",
        "state_name": "Scheduled",
        "state_timestamp": START,
        "attempt": 0,
        "failures": 0,
        "losses": 0,
        "run_count": 0,
        "retries": 0,
        "retry_delay": "[0.0]",
        "retry_jitter": 0.0,
        "tags": "[]",
        "created": START,
        "updated": START,
        "expected_start_time": START,
        "total_run_time": 0,
    }
