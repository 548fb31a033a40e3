"""Limits on how many runs with a tag are RUNNING at once."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from runlane.protocol.messages import Name, Time

from .base import Parameters, Request, Response
from .ids import Id


class LimitCreate(Request):
    """A limit; the same tag is the same limit, which is changed then."""

    tag: Name
    concurrency_limit: Annotated[int, Meta(ge=0, le=2**31 - 1)]


class LimitReset(Parameters):
    """Which runs have the slots from now on; none, if absent."""

    slot_override: Annotated[list[Id], Meta(max_length=10_000)] | None = None


class ConcurrencyLimit(Response):
    """A limit as it is shown, with the runs that have its slots."""

    id: str
    created: Time
    updated: Time
    tag: str
    concurrency_limit: int
    active_slots: list[str]
