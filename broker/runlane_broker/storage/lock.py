"""One broker per SQLite file: a lock on a file beside it.

Never on the database file itself: closing any descriptor of that would drop SQLite's own locks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO

from ..errors import StartupError

if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[str]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(file: IO[str]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


class FileLock:
    """Held from construction to `release`, or to the end of the process."""

    def __init__(self, database: Path) -> None:
        """Take the lock. Raises `StartupError` if another process has it, or the folder cannot be written."""
        self._path = database.with_name(database.name + ".lock")
        try:
            self._file = self._path.open("a+", encoding="ascii")
        except OSError as exc:
            missing = isinstance(exc, FileNotFoundError)
            why = f"there is no folder {database.parent}" if missing else exc.strerror
            raise StartupError(f"cannot write beside the database {database}: {why}") from exc
        try:
            _try_lock(self._file)
        except OSError as exc:
            self._file.close()
            raise StartupError(f"another broker is using the database {database}") from exc
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Let the next broker in. The file stays: removing it would race with one that just opened it."""
        self._file.close()
