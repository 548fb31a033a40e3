"""The harness itself: its schedules can be repeated, and its verdict sees what it should."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.harness import new_run

from .figures import Figures, percentile
from .journal import Journal, Reader
from .producer import noted
from .schedule import KINDS, schedule
from .verdict import Verdict, judge

RUN = new_run("work", seconds=[0.0])


def test_the_same_seed_gives_the_same_schedule_and_a_longer_one_begins_as_it_does() -> None:
    steps = list(schedule(7, 1000))
    assert steps == list(schedule(7, 1000)) != list(schedule(8, 1000))
    assert steps[:30] == list(schedule(7, 30))
    assert {step.kind for step in steps} == {kind.name for kind in KINDS}
    assert "full" not in {step.kind for step in schedule(7, 1000, disk=False)}


def test_a_percentile_is_the_value_that_so_many_do_not_exceed() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50, 99, 100)
    assert percentile([3.0], 99) == 3


def test_a_journal_is_read_as_far_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    reader = Reader(path)
    assert reader.more() == []
    journal = Journal(path)
    journal.note("one", n=1)
    with path.open("ab") as file:
        file.write(b'{"event": ')
    assert [event["event"] for event in reader.more()] == ["one"]
    with path.open("ab") as file:
        file.write(b'"two"}\n')
    assert [event["event"] for event in reader.more()] == ["two"]
    journal.close()


class Scene:
    """What an experiment with one run leaves: lost by its first worker, completed by the second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "runlane.db"
        (folder / "broker.log").write_text("INFO all is well\n")
        self.producer = Journal(folder / "producer-0.jsonl")
        noted(self.producer, RUN)
        self.producer.note("answer", run=RUN.id, **{"is": RUN.id}, created=True)
        self.producer.note("watch", run=RUN.id)
        self.tasks = Journal(folder / "executions")
        self.execute(1, pid=11)
        Journal(folder / "nemesis.jsonl").note("hurt", kind="worker-kill", parties=[["worker-0", 11]])
        self.execute(2, pid=12)
        self.tasks.note("end", run=RUN.id, attempt=2, pid=12)
        self.producer.note("end", run=RUN.id, state="COMPLETED", name="Completed", result='"attempt 2"')
        self._write_tables()

    def execute(self, attempt: int, pid: int) -> None:
        self.tasks.note("start", run=RUN.id, attempt=attempt, pid=pid)

    def _write_tables(self) -> None:
        names = ("SCHEDULED", "PENDING", "RUNNING", "SCHEDULED", "PENDING", "RUNNING", "COMPLETED")
        self.sql(
            "CREATE TABLE task_run (id, task_key, state_type, state_name, state_id, attempt, session_id,"
            " idempotency_key, losses, failures)",
            "CREATE TABLE task_run_payload (task_run_id, parameters, result)",
            "CREATE TABLE task_run_state (id, task_run_id, type, name, timestamp, attempt, session_id)",
            "INSERT INTO task_run VALUES"
            f" ('{RUN.id}', 'work', 'COMPLETED', 'Completed', 's6', 2, NULL, NULL, 1, 0)",
            "INSERT INTO task_run_payload VALUES"
            f" ('{RUN.id}', x'{bytes(RUN.parameters).hex()}', CAST('\"attempt 2\"' AS BLOB))",
            *(
                f"INSERT INTO task_run_state VALUES ('s{n}', '{RUN.id}', '{name}',"
                f" '{'Requeued' if n == 3 else name.title()}', {n}, {(n + 2) // 3}, {_session(n)})"
                for n, name in enumerate(names)
            ),
        )

    def sql(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.database)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def judge(self) -> tuple[Figures, Verdict]:
        figures = Figures()
        return figures, judge(self.folder, self.database, figures)


def _session(n: int) -> str:
    return "NULL" if n in (0, 3) else "'a'" if n < 3 else "'b'"


def test_an_innocent_experiment_is_acquitted(tmp_path: Path) -> None:
    figures, verdict = Scene(tmp_path).judge()
    assert figures.failures == []
    assert [(e.attempt, e.pid) for e in verdict.extra] == [(1, 11)]
    assert list(verdict.takeovers) == ["worker-kill"]
    assert verdict.costs == (1, 0)


GUILTY: dict[str, Callable[[Scene], object]] = {
    "lost": lambda scene: scene.sql(
        "DELETE FROM task_run", "DELETE FROM task_run_payload", "DELETE FROM task_run_state"
    ),
    "stuck": lambda scene: scene.sql(
        "UPDATE task_run SET state_type = 'RUNNING', state_name = 'Running', state_id = 's5', session_id = 'b'",
        "DELETE FROM task_run_state WHERE id = 's6'",
    ),
    "phantom": lambda scene: (scene.folder / "producer-0.jsonl").unlink(),
    "redelivery": lambda scene: (scene.folder / "nemesis.jsonl").unlink(),
    "uncommitted": lambda scene: scene.execute(3, pid=12),
    "illegal history": lambda scene: scene.sql("UPDATE task_run_state SET type = 'FAILED' WHERE id = 's2'"),
    "has the result": lambda scene: scene.sql(
        "UPDATE task_run_payload SET result = CAST('\"attempt 1\"' AS BLOB)"
    ),
    "broker.log: 1 complaints": lambda scene: (scene.folder / "broker.log").write_text(
        "Traceback (most recent call last):\n"
    ),
    "untold": lambda scene: scene.producer.note("end", run=RUN.id, state="COMPLETED", name="Completed"),
    "end changed": lambda scene: scene.producer.note("end", run=RUN.id, state="FAILED", name="Failed"),
}


@pytest.mark.parametrize("what", GUILTY)
def test_a_guilty_one_is_not(tmp_path: Path, what: str) -> None:
    scene = Scene(tmp_path)
    GUILTY[what](scene)
    figures, _ = scene.judge()
    assert any(what in failure for failure in figures.failures), figures.failures
