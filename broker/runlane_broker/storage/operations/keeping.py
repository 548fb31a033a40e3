"""Keeping what clients want back: objects that mean nothing here, and the lines of logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..queries import kept as qk
from ..transaction import Transaction
from .base import Operation

#: The kind of which many have one name.
MANY_OF_A_NAME: Final = "artifact"


@dataclass(frozen=True, slots=True)
class KeepObject(Operation[bool]):
    """Keep an object; False if another one of its kind and parent has its name. `data` is a JSON object."""

    id: str
    kind: str
    parent: str
    name: str
    data: bytes

    @property
    def size(self) -> int:
        """Bytes of data."""
        return len(self.data)

    def execute(self, tx: Transaction) -> bool:
        """Look, and insert."""
        place = {"kind": self.kind, "parent": self.parent, "name": self.name}
        if self.kind != MANY_OF_A_NAME and tx.row(qk.find_object, place) is not None:
            return False
        tx.run(qk.insert_object, {**place, "id": self.id, "data": self.data, "created": tx.now, "updated": tx.now})
        return True


@dataclass(frozen=True, slots=True)
class ReplaceObject(Operation[bool]):
    """Keep other data under an id; False if there is no such object."""

    id: str
    kind: str
    data: bytes

    @property
    def size(self) -> int:
        """Bytes of data."""
        return len(self.data)

    def execute(self, tx: Transaction) -> bool:
        """Write it."""
        new = {"id": self.id, "kind": self.kind, "data": self.data, "updated": tx.now}
        return tx.run(qk.update_object, new) > 0


@dataclass(frozen=True, slots=True)
class DropObject(Operation[bool]):
    """Keep an object no more; False if there was none."""

    id: str
    kind: str

    def execute(self, tx: Transaction) -> bool:
        """Delete it."""
        return tx.run(qk.delete_object, {"id": self.id, "kind": self.kind}) > 0


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a log. `level` as in Python's logging, `timestamp` in microseconds UTC."""

    id: str
    task_run_id: str | None
    flow_run_id: str | None
    level: int
    name: str
    message: str
    timestamp: int


@dataclass(frozen=True, slots=True)
class KeepLog(Operation[None]):
    """Keep lines of logs."""

    lines: Sequence[LogLine]

    @property
    def weight(self) -> int:
        """How many lines."""
        return len(self.lines)

    @property
    def size(self) -> int:
        """Bytes of text, about."""
        return sum(len(line.message) for line in self.lines)

    def execute(self, tx: Transaction) -> None:
        """Insert them."""
        for line in self.lines:
            tx.later(qk.insert_log_line, {name: getattr(line, name) for name in LogLine.__slots__})
