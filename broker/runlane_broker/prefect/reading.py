"""Events of Prefect's clients as reports: what is a state of a task run, and what can be made of it.

Clients of many versions send these, and nobody reads an answer. So what is unknown is passed over, and what is too
long is cut: the state itself must not get lost.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from runlane.protocol.limits import MAX_PAYLOAD_BYTES
from runlane.protocol.messages import Time
from runlane.protocol.states import StateType

from ..clock import to_micros
from ..core.submit import payload_hash
from ..errors import Invalid
from ..orchestration.decisions import Proposed
from ..orchestration.details import NO_DETAILS, TIMES, StateDetails
from ..schemas.ids import ID_PATTERN
from ..schemas.runs import MAX_RETRY_DELAYS
from ..schemas.states import StateDetailsCreate, StateTypeName
from ..storage.operations.reporting import ReportedState
from ..storage.queue_records import is_queue_key
from ..storage.records import NewRunRecord, Surface

#: What the resource of a task run is called before its id.
TASK_RUN_PREFIX: Final = "prefect.task-run."
_FLOW_RUN_PREFIX: Final = "prefect.flow-run."
#: Characters of a state's message that are kept.
MAX_MESSAGE: Final = 10_000
_NAME_LENGTH: Final = 200
#: What a run may be retried by is as over HTTP; here it is cut to that: seconds, and a factor.
_MAX_RETRIES: Final = 1000
_MAX_DELAY: Final = 315_360_000.0
_MAX_JITTER: Final = 10.0

_Id = Annotated[str, Meta(pattern=ID_PATTERN)]


class _State(Struct):
    type: StateTypeName
    name: str | None = None
    message: str | None = None
    data: Raw | UnsetType = UNSET
    state_details: dict[str, Any] | None = None


class _Policy(Struct):
    retries: int | None = None
    retry_delay: float | list[float] | None = None
    retry_jitter_factor: float | None = None


class _Run(Struct):
    task_key: str = "unknown"
    dynamic_key: str | None = None
    name: str | None = None
    task_version: str | None = None
    tags: list[str] = field(default_factory=list[str])
    labels: dict[str, Any] = field(default_factory=dict[str, Any])
    task_inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    empirical_policy: _Policy = field(default_factory=_Policy)


class _Payload(Struct):
    validated_state: _State
    task_run: _Run = field(default_factory=_Run)


class Event(Struct):
    """An event, as far as it matters here."""

    id: _Id
    occurred: Time
    event: str
    resource: dict[str, str]
    related: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    payload: Raw = field(default_factory=lambda: Raw(b"{}"))


_event = msgspec.json.Decoder(Event).decode
_events = msgspec.json.Decoder(list[Event]).decode
_payload = msgspec.json.Decoder(_Payload).decode


def read_event(text: bytes) -> ReportedState | None:
    """Return what an event reports; None where it is no state of a task run. Raises `Invalid`."""
    try:
        return _report(_event(text))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Invalid(f"not an event: {exc}") from exc


def read_events(text: bytes) -> list[ReportedState]:
    """Return what a list of events reports. Raises `Invalid`."""
    try:
        return [report for event in _events(text) if (report := _report(event)) is not None]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Invalid(f"not a list of events: {exc}") from exc


def _report(event: Event) -> ReportedState | None:
    if not event.event.startswith(TASK_RUN_PREFIX) or event.resource.get("prefect.orchestration") != "client":
        return None
    run_id = event.resource.get("prefect.resource.id", "").removeprefix(TASK_RUN_PREFIX)
    payload = _payload(event.payload)
    now = to_micros(event.occurred)
    surface = Surface(
        initial=_proposed(payload.validated_state),
        flow_run_id=_flow_run_id(event),
        task_version=_cut(payload.task_run.task_version),
        labels=payload.task_run.labels,
        task_inputs=payload.task_run.task_inputs,
    )
    return ReportedState(
        event.id.lower(), now, _run(msgspec.convert(run_id, _Id).lower(), payload.task_run, now, surface), surface
    )


def _flow_run_id(event: Event) -> str | None:
    for related in event.related:
        if related.get("prefect.resource.role") == "flow-run":
            return related.get("prefect.resource.id", "").removeprefix(_FLOW_RUN_PREFIX).lower() or None
    return None


def _run(run_id: str, run: _Run, now: int, surface: Surface) -> NewRunRecord:
    policy = run.empirical_policy
    delay = policy.retry_delay
    given = delay[:MAX_RETRY_DELAYS] if isinstance(delay, list) else [delay or 0.0]
    task_key = _cut(run.task_key)
    if not task_key or is_queue_key(task_key):
        task_key = "unknown"
    return NewRunRecord(
        id=run_id,
        task_key=task_key,
        name=_cut(run.name) or task_key,
        dynamic_key=_cut(run.dynamic_key) or run_id,
        parameters=b"{}",
        payload_hash=payload_hash(task_key, b"{}"),
        priority=0,
        due=now,
        expires=None,
        retries=int(_within(policy.retries or 0, _MAX_RETRIES)),
        retry_delay=tuple(_within(seconds, _MAX_DELAY) for seconds in given) or (0.0,),
        retry_jitter=_within(policy.retry_jitter_factor or 0.0, _MAX_JITTER),
        timeout=None,
        tags=tuple(tag[:_NAME_LENGTH] for tag in run.tags),
        headers={},
        idempotency_key=None,
        surface=surface,
    )


def _proposed(state: _State) -> Proposed:
    data = None if isinstance(state.data, UnsetType) or bytes(state.data) == b"null" else bytes(state.data)
    return Proposed(
        type=StateType(state.type),
        name=_cut(state.name) or "",
        message=None if state.message is None else state.message[:MAX_MESSAGE].replace("\0", ""),
        data=data if data is None or len(data) <= MAX_PAYLOAD_BYTES else None,
        details=_details(state.state_details or {}),
    )


def _details(given: dict[str, Any]) -> StateDetails:
    """Return the details that are known; what is not as it should be is passed over."""
    known = {name: value for name, value in given.items() if name in StateDetailsCreate.__struct_fields__}
    try:
        details = msgspec.convert(known, StateDetailsCreate)
    except msgspec.ValidationError:
        return NO_DETAILS
    values: dict[str, Any] = {name: getattr(details, name) for name in known}
    values["deferred"] = bool(values.get("deferred"))
    for name in TIMES & values.keys():
        values[name] = None if values[name] is None else to_micros(values[name])
    return StateDetails(**values)


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:_NAME_LENGTH].replace("\0", "")


def _within(number: float, most: float) -> float:
    return min(max(number, 0), most)
