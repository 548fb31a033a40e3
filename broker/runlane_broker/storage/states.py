"""States between records and rows: details as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from runlane.protocol.states import StateType

from ..orchestration.details import StateDetails, dump, load
from .run_records import StateRecord

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def details_text(details: StateDetails) -> str:
    """Return details as they are stored."""
    return _encode(dump(details)).decode()


def state_details(text: str | None, due: int | None) -> StateDetails:
    """Return stored details. A state that the broker wrote by itself has none but its time."""
    return StateDetails(scheduled_time=due) if text is None else load(_decode(text))


def state_record(
    id_: str,
    run_id: str,
    type_: str,
    name: str,
    message: str | None,
    timestamp: int,
    due: int | None,
    attempt: int,
    details: str | None,
    data: bytes | None,
) -> StateRecord:
    """Return a row of `queries.read_history` as a record."""
    known = state_details(details, due)
    return StateRecord(id_, run_id, StateType(type_), name, message, timestamp, due, attempt, known, data)
