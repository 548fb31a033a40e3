"""Changing what a run is called, and what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ..tables import RunKind
from ..transaction import Transaction
from .base import Operation
from .transitions import statements

#: What lies beside a run's row.
_PAYLOAD: Final = frozenset({"parameters", "job_variables"})
#: What is stored as JSON.
_TEXTS: Final = frozenset({"tags", "retry_delay"})
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ChangeRun(Operation[bool]):
    """Change what is given of a run, by the names of `RunStatements.changeable`; False if there is none."""

    kind: RunKind
    run_id: str
    changes: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes of payload."""
        return sum(len(self.changes.get(name) or b"") for name in _PAYLOAD)

    def execute(self, tx: Transaction) -> bool:
        """Write it. A payload may have been put off in this very transaction."""
        of_kind = statements(self.kind)
        values = {name: _stored(name, self.changes.get(name)) for name in of_kind.changeable}
        row = {name: value for name, value in values.items() if name not in _PAYLOAD}
        if tx.run(of_kind.change, {**row, "id": self.run_id, "updated": tx.now}) == 0:
            return False
        payload = {name: value for name, value in values.items() if name in _PAYLOAD}
        if any(value is not None for value in payload.values()):
            tx.flush()
            tx.run(of_kind.change_payload, {**payload, "id": self.run_id})
        return True


def _stored(name: str, value: Any) -> Any:
    return _encode(value).decode() if name in _TEXTS and value is not None else value
