"""Which events somebody wants."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct, field

from runlane.protocol.messages import Time

from ..clock import Micros, to_micros
from ..errors import Invalid
from .feed import EndEvent
from .reading import TASK_RUN_PREFIX

#: What Prefect's futures ask for: the names of the four final types. They would wait for ever for an end of
#: another name (Cached, TimedOut), so to whoever asks for all four every end is sent.
ALL_ENDS: Final = frozenset(f"{TASK_RUN_PREFIX}{name}" for name in ("Completed", "Failed", "Crashed", "Cancelled"))


class _Occurred(Struct):
    since: Time | None = None
    until: Time | None = None


class _Names(Struct):
    prefix: list[str] | None = None
    exclude_prefix: list[str] | None = None
    name: list[str] | None = None
    exclude_name: list[str] | None = None


class _Resource(Struct):
    id: list[str] | None = None
    id_prefix: list[str] | None = None
    labels: Any = None
    distinct: bool = False


class _Ids(Struct):
    id: list[str] | None = None


class EventFilter(Struct):
    """A filter, as clients send it. What is null is not asked."""

    occurred: _Occurred = field(default_factory=_Occurred)
    event: _Names | None = None
    resource: _Resource | None = None
    id: _Ids | None = None
    related: Any = None
    any_resource: Any = None
    text: Any = None
    order: Any = None

    def check(self) -> None:
        """Raise `Invalid` for what is asked and not looked at here."""
        for name in ("related", "any_resource", "text"):
            if getattr(self, name) is not None:
                raise Invalid(f"Filtering by {name} is not supported", name)
        if self.resource is not None and self.resource.labels is not None:
            raise Invalid("Filtering by resource.labels is not supported", "resource.labels")

    @property
    def since(self) -> Micros:
        """From when on."""
        return 0 if self.occurred.since is None else to_micros(self.occurred.since)

    def wants(self, event: EndEvent) -> bool:
        """Say whether an event is wanted, whenever it has occurred."""
        return (
            self._wants_name(event.name) and self._wants_resource(event.resource_id) and self._wants_id(event.id)
        )

    def _wants_name(self, name: str) -> bool:
        names = self.event
        if names is None:
            return True
        if names.name is not None and not ALL_ENDS.issubset(names.name) and name not in names.name:
            return False
        if names.prefix is not None and not name.startswith(tuple(names.prefix)):
            return False
        return not name.startswith(tuple(names.exclude_prefix or ())) and name not in (names.exclude_name or ())

    def _wants_resource(self, resource_id: str) -> bool:
        resource = self.resource
        if resource is None:
            return True
        if resource.id is not None and resource_id not in resource.id:
            return False
        return resource.id_prefix is None or resource_id.startswith(tuple(resource.id_prefix))

    def _wants_id(self, event_id: str) -> bool:
        return self.id is None or not self.id.id or event_id in self.id.id


class Subscription(Struct, tag_field="type", tag="filter"):
    """The message that asks for events."""

    filter: EventFilter
    backfill: bool = True


_subscription = msgspec.json.Decoder(Subscription).decode


def read_subscription(text: bytes) -> Subscription:
    """Return what is asked for. Raises `Invalid`."""
    try:
        subscription = _subscription(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Invalid(f"Expected a 'filter' message: {exc}") from exc
    subscription.filter.check()
    return subscription
