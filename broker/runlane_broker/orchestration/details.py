"""What a state knows beside its type, name and message."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final

from msgspec import Struct, field

from ..clock import Micros


class StateDetails(Struct, frozen=True):
    """The details of a state, under the names that they have over HTTP. Times are microseconds UTC.

    A field that means nothing here is kept in `others` and comes out again as it went in.
    """

    flow_run_id: str | None = None
    task_run_id: str | None = None
    child_flow_run_id: str | None = None
    scheduled_time: Micros | None = None
    cache_key: str | None = None
    cache_expiration: Micros | None = None
    deferred: bool = False
    untrackable_result: bool = False
    pause_timeout: Micros | None = None
    pause_reschedule: bool = False
    pause_key: str | None = None
    run_input_keyset: Mapping[str, str] | None = None
    refresh_cache: bool | None = None
    retriable: bool | None = None
    transition_id: str | None = None
    task_parameters_id: str | None = None
    traceparent: str | None = None
    deployment_concurrency_lease_id: str | None = None
    others: Mapping[str, Any] = field(default_factory=dict[str, Any])


#: Nothing is known.
NO_DETAILS: Final = StateDetails()

#: The fields that hold a time: whoever shows or reads details converts these.
TIMES: Final = frozenset({"scheduled_time", "cache_expiration", "pause_timeout"})

_NAMES: Final = tuple(name for name in StateDetails.__struct_fields__ if name != "others")
_known: Final = attrgetter(*_NAMES)
_DEFAULTS: Final = _known(NO_DETAILS)


def dump(details: StateDetails) -> dict[str, Any]:
    """Return what the details say, by name: fields that have their default are left out."""
    known = zip(_NAMES, _known(details), _DEFAULTS, strict=True)
    return {**details.others, **{name: value for name, value, default in known if value != default}}


def load(values: Mapping[str, Any]) -> StateDetails:
    """Return the details that `dump` made these values of. The types are not checked."""
    known = {name: values[name] for name in _NAMES if name in values}
    return StateDetails(**known, others={name: values[name] for name in values if name not in known})
