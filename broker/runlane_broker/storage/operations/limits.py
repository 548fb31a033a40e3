"""Concurrency limits on tags: how many task runs with one may be RUNNING at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..queries import transitions as qt
from ..transaction import Transaction
from .base import Operation


@dataclass(frozen=True, slots=True)
class SetLimit(Operation[tuple[str, bool]]):
    """Limit a tag, or change its limit; returns the limit's id and whether it is new.

    Runs that are RUNNING already hold no slot of a new limit. A lower one takes none away.
    """

    id: str
    tag: str
    slots: int

    def execute(self, tx: Transaction) -> tuple[str, bool]:
        """Update the row, or insert it."""
        values = {"tag": self.tag, "concurrency_limit": self.slots, "updated": tx.now}
        found = tx.row(qt.find_limit, {"tag": self.tag})
        if found is not None:
            tx.run(qt.update_limit, values)
            return found[0], False
        tx.run(qt.insert_limit, {**values, "id": self.id, "created": tx.now})
        return self.id, True


@dataclass(frozen=True, slots=True)
class ResetLimit(Operation[bool]):
    """Give all slots of a tag back, and let these runs have them; False if the tag is not limited.

    Runs that are not there are left out.
    """

    tag: str
    holders: Sequence[str] = ()

    def execute(self, tx: Transaction) -> bool:
        """Delete the slots and take them anew."""
        found = tx.row(qt.find_limit, {"tag": self.tag})
        if found is None:
            return False
        tx.run(qt.empty_limit, {"id": found[0]})
        for run_id in self.holders:
            if tx.row(qt.has_task_run, {"id": run_id}) is not None:
                tx.run(qt.take_slot, {"tag": self.tag, "task_run_id": run_id})
        return True


@dataclass(frozen=True, slots=True)
class TakeTagSlots(Operation["tuple[tuple[str, str, int], ...] | None"]):
    """Take a slot of each of these tags that is limited; None where one is full, and then of none.

    Returns the limits by id, tag and number of slots.
    """

    run_id: str
    tags: tuple[str, ...]

    def execute(self, tx: Transaction) -> tuple[tuple[str, str, int], ...] | None:
        """Look at all, then take."""
        limits: list[tuple[str, str, int]] = []
        for tag in dict.fromkeys(self.tags):
            found = tx.row(qt.find_limit, {"tag": tag})
            if found is None:
                continue
            slots, taken = tx.row(qt.read_limit, {"tag": tag, "task_run_id": self.run_id}) or (0, 0)
            if taken >= slots:
                return None
            limits.append((found[0], tag, slots))
        tx.flush()
        if limits and tx.row(qt.has_task_run, {"id": self.run_id}) is not None:
            for _, tag, _ in limits:
                tx.run(qt.take_slot, {"tag": tag, "task_run_id": self.run_id})
        return tuple(limits)


@dataclass(frozen=True, slots=True)
class FreeTagSlots(Operation[None]):
    """Give all slots of a run back."""

    run_id: str

    def execute(self, tx: Transaction) -> None:
        """Delete them."""
        tx.run(qt.free_slots, {"task_run_id": self.run_id})


@dataclass(frozen=True, slots=True)
class DeleteLimit(Operation[bool]):
    """Limit a tag no more; False if it was not."""

    tag: str

    def execute(self, tx: Transaction) -> bool:
        """Delete the row; the slots go with it."""
        return tx.run(qt.delete_limit, {"tag": self.tag}) > 0
