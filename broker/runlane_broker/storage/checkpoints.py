"""Moving what has been committed from SQLite's log to its file, beside the writer."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Final

logger = logging.getLogger("runlane.storage")

#: Commits between two checkpoints. One touches eight pages, or twenty.
EVERY: Final = 64
#: Pages in the log at which the writer makes a checkpoint itself. The log begins anew only when nothing of it is
#: left to be moved, which beside a busy writer never happens; but then it has next to nothing left to move.
LONGEST_LOG: Final = 4_000


class Checkpointer:
    """Makes checkpoints on a thread of its own, which hold nobody up.

    By itself SQLite makes one within the commit that finds the log long (1,000 pages): it writes some hundreds of
    pages and waits for the disk twice, and so does everybody who stands behind it.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._commits = 0
        self._wanted = threading.Event()
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def committed(self) -> None:
        """Note a commit; for the writer's thread alone."""
        self._commits += 1
        if self._commits < EVERY:
            return
        self._commits = 0
        self._wanted.set()
        if self._thread is None:
            self._thread = self._start()

    def _start(self) -> threading.Thread | None:
        thread = threading.Thread(target=self._work, name="runlane-checkpoints", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:  # the process may have no more of them: no reason not to commit
            logger.debug("no checkpoints beside the writer: %s", exc)
            return None
        return thread

    def close(self) -> None:
        """End the thread."""
        self._ends.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        connections: list[sqlite3.Connection] = []
        while self._wanted.wait() and not self._ends.is_set():
            self._wanted.clear()
            began = time.monotonic()
            try:
                while len(connections) < 2:
                    connections.append(self._connect())
                _checkpoint(*connections)
            except sqlite3.Error as exc:  # in the end the log finds no room, and the writer hears of it
                logger.debug("no checkpoint: %s", exc)
            self._ends.wait(time.monotonic() - began)  # or the writer's own would find this one at work each time
        for connection in connections:
            connection.close()


def _checkpoint(connection: sqlite3.Connection, reader: sqlite3.Connection) -> None:
    """Make a checkpoint while somebody reads.

    SQLite before 3.51.3 may take a log that begins anew just when a checkpoint begins for the one before: what is
    committed to it then is never moved, and lost (sqlite.org/wal.html#walresetbug). While somebody reads in the
    log it does not begin anew. Who finds it all moved reads in the file, and meanwhile nothing is moved there.
    """
    reader.execute("BEGIN")
    try:
        reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    finally:
        reader.execute("ROLLBACK")
