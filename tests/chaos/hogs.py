"""What takes a database's disk, or its lock, away for a while.

`python -m tests.chaos.hogs FILE`: holds the lock that a writer of this database needs, until it is killed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000


class NoDisk(Exception):
    """There can be no disk of our own here; the message says why."""


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Have a disk of so many megabytes on this folder: a tmpfs, which takes root. Raises `NoDisk`.

    Databases that are on it at the end are kept beside it. Nobody but this process and those that it starts sees
    the disk, so that even a kill -9 leaves none behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    _call("mount", b"runlane", bytes(folder), b"tmpfs", 0, f"size={megabytes}m".encode())
    try:
        yield SmallDisk(folder)
    finally:
        try:
            for file in folder.glob("*.db*"):
                shutil.copy(file, folder.parent)
        finally:
            _call("umount2", bytes(folder), _MNT_DETACH)


def _call(name: str, *arguments: object) -> None:
    try:
        failed = getattr(_libc, name)(*arguments)
    except AttributeError as exc:
        raise NoDisk(f"this system has no {name}") from exc
    if failed:
        raise NoDisk(f"{name}: {os.strerror(ctypes.get_errno())}")


class SmallDisk:
    """A disk that can be full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Take every byte that is left. That may take a while: not for the thread of an event loop."""
        left = shutil.disk_usage(self.folder).free
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), file.tell(), left)
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(64 * 1024))
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(512))

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink(missing_ok=True)


def main() -> None:
    connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    print("locked", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
