"""Limits on how many runs with a tag are RUNNING at once: made, changed, deleted."""

from __future__ import annotations

from dataclasses import dataclass

from ..queries import tag_limits as q
from ..transaction import Transaction
from .base import Operation
from .flows import Made


@dataclass(frozen=True, slots=True)
class PutLimit(Operation[Made]):
    """Make a tag's limit, or change the one that it has. Runs that have slots already keep them."""

    id: str
    tag: str
    concurrency_limit: int

    def execute(self, tx: Transaction) -> Made:
        """Insert or update it."""
        found = tx.row(q.find_limit, {"tag": self.tag})
        row = {"concurrency_limit": self.concurrency_limit, "updated": tx.now}
        if found is not None:
            tx.run(q.update_limit, {**row, "id": found[0]})
            return Made(found[0], created=False)
        tx.run(q.insert_limit, {**row, "id": self.id, "tag": self.tag, "created": tx.now})
        return Made(self.id, created=True)


@dataclass(frozen=True, slots=True)
class DeleteLimit(Operation[bool]):
    """Delete a limit; False if there is none."""

    id: str

    def execute(self, tx: Transaction) -> bool:
        """Delete it."""
        return tx.run(q.delete_limit, {"id": self.id}) > 0


@dataclass(frozen=True, slots=True)
class ResetLimit(Operation[bool]):
    """Give a tag's slots to these runs, as far as they exist, and to no others; False if there is no limit."""

    tag: str
    holders: tuple[str, ...] = ()

    def execute(self, tx: Transaction) -> bool:
        """Replace the slots."""
        found = tx.row(q.find_limit, {"tag": self.tag})
        if found is None:
            return False
        tx.flush()
        tx.run(q.clear_slots, {"id": found[0]})
        for run_id in dict.fromkeys(self.holders):
            tx.run(q.give_slot, {"id": found[0], "task_run_id": run_id})
        return True
