"""Journals: one file of JSON lines for each party, on the clock that all processes of a machine share."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, TypeAlias

Event: TypeAlias = dict[str, Any]


class Journal:
    """Appends events. Each is with the operating system before `note` returns, so that a kill loses none.

    But one that was being written when the kill came may be torn. What it says had not been noted, so nobody has
    acted on it; it gets a line of its own.
    """

    def __init__(self, path: Path) -> None:
        torn = path.exists() and path.stat().st_size and path.read_bytes()[-1:] != b"\n"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if torn:
            os.write(self._file, b"\n")

    def note(self, event: str, **facts: Any) -> None:
        line = {"event": event, "monotonic_ns": time.monotonic_ns(), **facts}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


class Reader:
    """Reads a journal that grows; each call of `more` returns what has come since the last one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def more(self) -> list[Event]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1  # a line that is being written is left for the next look
        self._offset += whole
        return [event for line in data[:whole].splitlines() if (event := _event(line)) is not None]


def _event(line: bytes) -> Event | None:
    """Return an event; None for a line that a kill has torn."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def read(path: Path) -> list[Event]:
    """Return all events of a journal."""
    return Reader(path).more()
