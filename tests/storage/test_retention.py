"""Deleting what ended long ago: how little of it is done at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runlane.protocol.states import FINAL, StateType
from runlane_broker.storage.operations.retention import STEP, DeleteOldFlowRuns
from runlane_broker.storage.queries import Query
from runlane_broker.storage.queries.retention import read_children, read_live_child
from runlane_broker.storage.sqlite import Compiler
from runlane_broker.storage.tables import FLOW_RUN

from ..support import new_database
from .database import Database
from .surface_conformance import task_run
from .test_sqlite import open_database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_database(tmp_path)


@pytest.fixture
def db(path: Path) -> Iterator[Database]:
    for db in open_database(path):
        yield db
        db.audit()


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (read_live_child, "ix_task_run_live"),
        (read_children, "uq_task_run_flow_run_dynamic_key"),
    ],
)
def test_a_flow_run_of_many_task_runs_is_not_looked_through(path: Path, query: Query, index: str) -> None:
    compiled = Compiler()(query)
    with closing(sqlite3.connect(path)) as connection:
        params = compiled.bind({"id": "x", "limit": 1})
        rows = connection.execute(f"EXPLAIN QUERY PLAN {compiled.text}", params).fetchall()
    (step,) = [row[3] for row in rows]
    assert step.endswith(f" INDEX {index} (flow_run_id=?)")


@pytest.mark.parametrize("type_", StateType)
def test_a_flow_run_stays_as_long_as_a_task_run_of_it_has_not_ended(db: Database, type_: StateType) -> None:
    flow_run = db.running_flow_run()
    child = task_run(db, flow_run_id=flow_run)
    for to in (StateType.RUNNING, type_):
        db.set_state(child, to, force=True)
    db.set_state(flow_run, StateType.COMPLETED, kind=FLOW_RUN, force=True)
    db.clock.advance(10)
    deleted = db.do(DeleteOldFlowRuns((flow_run,), db.clock.now(), db.clock.now()))
    assert (deleted.flow_runs, deleted.left) == ((1, 0) if type_ in FINAL else (0, 1))


def test_what_is_left_alone_is_looked_at_in_steps_too(db: Database) -> None:
    busy = [db.running_flow_run() for _ in range(2 * STEP + 1)]
    for run_id in busy:
        task_run(db, flow_run_id=run_id)
        db.set_state(run_id, StateType.COMPLETED, kind=FLOW_RUN, force=True)
    db.clock.advance(10)
    ids, looks = tuple(busy), []
    while ids:
        done = db.do(DeleteOldFlowRuns(ids, db.clock.now(), db.clock.now()))
        assert done.flow_runs == 0
        looks.append(done.left)
        ids = ids[done.done :]
    assert looks == [STEP, STEP, 1]
