"""Messages of Prefect's clients that are nearly right, for the three sockets that only those use."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from .cases import KEYS, Phase, Source

_AUTH: Final = b'{"type":"auth","token":null}'
_SUBSCRIBE: Final = json.dumps({"type": "subscribe", "keys": KEYS, "client_id": "fuzz-1"}).encode()
_FILTER: Final = b'{"type":"filter","filter":{"event":{"name":["prefect.task-run.Completed"]}},"backfill":false}'

PHASES: Final = (
    Phase("taker connected", "taker"),
    Phase("taker authenticated", "taker", (_AUTH,)),
    Phase("taker ready", "taker", (_AUTH, _SUBSCRIBE)),
    Phase("older taker connected", "older taker"),
    Phase("older taker ready", "older taker", (_SUBSCRIBE,)),
    Phase("events in connected", "events in"),
    Phase("events in ready", "events in", (_AUTH,)),
    Phase("events out connected", "events out"),
    Phase("events out authenticated", "events out", (_AUTH,)),
    Phase("events out ready", "events out", (_AUTH, _FILTER)),
)

Fields = dict[str, str]


def _words(source: Source) -> Fields:
    word = source.random.choice(("auth", "subscribe", "ack", "quit"))
    more = {"token": '"x"', "keys": json.dumps(KEYS), "client_id": '"fuzz-1"'}
    return {"type": json.dumps(word), **{name: more[name] for name in more if source.random.random() < 0.5}}


def _filter(source: Source) -> Fields:
    since = {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
    names = {"name": ["prefect.task-run.Completed"], "prefix": ["prefect."]}
    wanted = {"occurred": since, "event": names, "resource": {"id": [_resource(source)]}, "id": {"id": []}}
    some = {name: wanted[name] for name in wanted if source.random.random() < 0.5}
    return {"type": '"filter"', "filter": json.dumps(some), "backfill": source.random.choice(("true", "false"))}


def _resource(source: Source) -> str:
    return f"prefect.task-run.{source.some_id()}"


def _event(source: Source) -> Fields:
    """Return the report of a run's state, of one that is there or not."""
    kind = source.random.choice(("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "CRASHED", "SCHEDULED"))
    state = {"type": kind, "name": kind.title(), "message": "x", "state_details": {}, "data": None}
    run = {"task_key": KEYS[0], "dynamic_key": source.some_id(), "tags": ["t"], "empirical_policy": {"retries": 1}}
    resource = {"prefect.resource.id": _resource(source), "prefect.orchestration": "client"}
    return {
        "id": json.dumps(source.some_id()),
        "occurred": '"2026-01-01T00:00:00Z"',
        "event": json.dumps(f"prefect.task-run.{kind.title()}"),
        "resource": json.dumps(resource),
        "payload": json.dumps({"validated_state": state, "task_run": run}),
        "related": "[]",
    }


_MADE: Final[dict[str, Callable[[Source], Fields]]] = {
    "taker": _words, "older taker": _words, "events in": _event, "events out": _filter,
}  # fmt: skip


def made(source: Source, socket: str) -> Fields:
    """Return a valid message: its fields as JSON."""
    return _MADE[socket](source)


def conversation(source: Source, phase: Phase, most: int = 16) -> list[bytes]:
    """Return messages for one connection, most of them spoilt in one way."""
    count = most if phase.socket == "events in" and phase.opening else 3
    return [source.spoilt(made(source, phase.socket)) for _ in range(count)]
