"""Flows over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from msgspec import Meta, field

from runlane.protocol.messages import Time

from .base import Request, Response
from .runs import Page
from .states import Labels, Tags

#: Prefect's rule for names that stand in paths.
PATH_NAME_PATTERN: Final = r"^[^/%&><]{1,200}\Z"
PathName: TypeAlias = Annotated[str, Meta(pattern=PATH_NAME_PATTERN)]


class FlowCreate(Request):
    """A flow; the same name is the same flow."""

    name: PathName
    tags: Tags = ()
    labels: Labels | None = field(default_factory=dict[str, Any])


class FlowUpdate(Request):
    """What can be changed of a flow. What is absent, or null, stays."""

    tags: Tags | None = None


class Flow(Response):
    """A flow as it is shown."""

    id: str
    created: Time
    updated: Time
    name: str
    tags: tuple[str, ...]
    labels: dict[str, Any]


class FlowPage(Page):
    """A page of flows."""

    results: list[Flow]
