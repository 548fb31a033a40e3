"""States that are asked for, as the rules take them."""

from __future__ import annotations

from typing import Any

import msgspec

from runlane.protocol.errors import FrameRefused
from runlane.protocol.payloads import check_payload
from runlane.protocol.states import StateType

from ..clock import to_micros
from ..errors import Invalid
from ..orchestration.decisions import Proposed
from ..orchestration.details import NO_DETAILS, TIMES, StateDetails
from ..schemas.states import StateCreate, StateDetailsCreate


def proposed_state(body: StateCreate, field: str = "state") -> Proposed:
    """Return a state as it is proposed. Raises `Invalid` for data too large or too deep; `field` is its place."""
    return Proposed(
        type=StateType(body.type),
        name=body.name or "",
        message=body.message,
        data=_data(body, field),
        details=NO_DETAILS if body.state_details is None else _details(body.state_details),
    )


def checked_payload(payload: msgspec.Raw, field: str) -> bytes:
    """Return a payload's bytes. Raises `Invalid` for one that is too large or too deep."""
    try:
        check_payload(payload, field)
    except FrameRefused as exc:
        raise Invalid(exc.message, exc.field, exc.code) from exc
    return bytes(payload)


def checked_object(payload: msgspec.Raw, field: str) -> bytes:
    """Return an object's bytes. Raises `Invalid` for anything else, and what is too large or too deep."""
    if bytes(payload)[:1] != b"{":
        raise Invalid("Expected `object`", field)
    return checked_payload(payload, field)


def _data(body: StateCreate, field: str) -> bytes | None:
    if not isinstance(body.data, msgspec.Raw) or bytes(body.data) == b"null":
        return None
    return checked_payload(body.data, f"{field}.data")


def _details(body: StateDetailsCreate) -> StateDetails:
    given: dict[str, Any] = {name: getattr(body, name) for name in body.__struct_fields__}
    given["deferred"] = bool(body.deferred)
    for name in TIMES:
        given[name] = None if given[name] is None else to_micros(given[name])
    return StateDetails(**given)
