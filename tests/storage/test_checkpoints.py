"""The log of a database that is written all the time stays short, and it is not the writer who sees to it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runlane_broker.storage.checkpoints import EVERY, LONGEST_LOG, Checkpointer
from runlane_broker.storage.operations.sessions import BeatBroker, StartBroker
from runlane_broker.storage.sqlite import SqliteExecutor, connect

from ..support import PATIENCE, FakeClock, new_database

PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A database that somebody has open: the last connection that closes makes a checkpoint, too."""
    path = new_database(tmp_path)
    with closing(connect(path)) as holder:
        holder.execute("PRAGMA user_version").fetchone()
        yield path


def unsynced(path: Path) -> sqlite3.Connection:
    """A connection that never waits for the disk, which may be busy with something else."""
    connection = connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def write(path: Path, numbers: range, after: Callable[[], None]) -> None:
    """Commit one page after the other; the last number can be read then."""
    with closing(unsynced(path)) as writer:
        for number in numbers:
            writer.execute(f"PRAGMA user_version = {number}")
            after()


def moved(path: Path) -> int:
    """The number that the file has, whatever its log says."""
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as file:
        return file.execute("PRAGMA user_version").fetchone()[0]


class Witness:
    """Makes connections, and knows when a checkpoint was made with one. The first few tries may fail."""

    def __init__(self, path: Path, failures: int = 0) -> None:
        self._path = path
        self._failures = failures
        self.asked = threading.Semaphore(0)
        self.made = threading.Semaphore(0)

    def __call__(self) -> sqlite3.Connection:
        self.asked.release()
        if self._failures:
            self._failures -= 1
            raise sqlite3.OperationalError("unable to open database file")
        connection = unsynced(self._path)
        connection.set_trace_callback(self._trace)
        return connection

    def _trace(self, _statement: str) -> None:
        self.made.release()


def wait(semaphore: threading.Semaphore) -> None:
    assert semaphore.acquire(timeout=PATIENCE)


def test_what_was_committed_is_moved_every_so_many_commits(path: Path) -> None:
    witness = Witness(path)
    checkpointer = Checkpointer(witness)
    write(path, range(1, EVERY), checkpointer.committed)
    assert moved(path) == 0
    write(path, range(EVERY, EVERY + 1), checkpointer.committed)
    wait(witness.made)
    checkpointer.close()
    assert moved(path) == EVERY


def test_of_a_log_that_begins_anew_at_this_very_moment_nothing_is_moved(path: Path) -> None:
    """SQLite may take it for the log that is over, and would not move the rest of it later."""
    write(path, range(1, EVERY), lambda: None)
    done = threading.Event()
    with closing(unsynced(path)) as writer:

        def begin_anew(statement: str) -> None:
            if "wal_checkpoint" in statement:
                writer.execute(f"PRAGMA user_version = {EVERY}")
                done.set()

        def watched() -> sqlite3.Connection:
            connection = unsynced(path)
            connection.set_trace_callback(begin_anew)
            return connection

        assert writer.execute("PRAGMA wal_checkpoint").fetchone()[0] == 0
        assert moved(path) == EVERY - 1, "all of it: the next commit begins the log anew"
        checkpointer = Checkpointer(watched)
        for _ in range(EVERY):
            checkpointer.committed()
        assert done.wait(PATIENCE)
        checkpointer.close()
        assert moved(path) == EVERY - 1
        assert writer.execute("PRAGMA wal_checkpoint").fetchone()[0] == 0
    assert moved(path) == EVERY


def test_a_checkpoint_that_fails_is_made_the_next_time(path: Path) -> None:
    witness = Witness(path, failures=1)
    checkpointer = Checkpointer(witness)
    write(path, range(1, EVERY + 1), checkpointer.committed)
    wait(witness.asked)
    assert moved(path) == 0
    write(path, range(EVERY + 1, 2 * EVERY + 1), checkpointer.committed)
    wait(witness.made)
    checkpointer.close()
    assert moved(path) == 2 * EVERY


def test_the_log_stays_short_whoever_writes_all_the_time(path: Path) -> None:
    checkpointer = Checkpointer(lambda: unsynced(path))
    write(path, range(1, 3 * LONGEST_LOG), checkpointer.committed)
    checkpointer.close()
    log = path.with_name(f"{path.name}-wal")
    assert log.stat().st_size < 2 * LONGEST_LOG * (PAGE + 24)


def test_who_never_commits_enough_has_no_thread(path: Path) -> None:
    def never() -> sqlite3.Connection:
        raise AssertionError("nobody needs a connection")

    checkpointer = Checkpointer(never)
    write(path, range(1, EVERY), checkpointer.committed)
    checkpointer.close()


def test_where_no_thread_is_to_be_had_commits_are_made_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    checkpointer = Checkpointer(lambda: unsynced(path))
    executor = SqliteExecutor(path, FakeClock(), "broker", connect=unsynced, checkpointer=checkpointer)
    executor.execute([StartBroker("broker", "1.0")])
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        outcomes = [executor.execute([BeatBroker("broker")]) for _ in range(2 * EVERY)]
    executor.close()
    assert outcomes == [[None]] * (2 * EVERY)
