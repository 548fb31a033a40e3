"""The `prefect` subprotocol of the subscription socket, sans I/O: what a worker may say, and when.

    worker: {"type": "auth", "token": null | "…"}          broker: {"type": "auth_success"}
    worker: {"type": "subscribe", "keys": […], "client_id": "…"}
    broker: a task run, as `GET /api/task_runs/{id}` shows it   worker: {"type": "ack"}   (and so on)
    worker: {"type": "quit"}

A socket without subprotocol begins with `subscribe`. Workers give up on close codes other than those here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, TypeAlias, cast

import msgspec

from runlane.protocol.closing import CloseCode
from runlane.protocol.errors import ProtocolViolation
from runlane.protocol.limits import MAX_KEYS

from ..storage.queue_records import is_queue_key

SUBPROTOCOL: Final = "prefect"
AUTH_SUCCESS: Final = '{"type":"auth_success"}'
#: Characters of a client id, and of a task key.
MAX_NAME: Final = 1024

_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Auth:
    """The first message; None: without a token."""

    token: str | None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Asks for runs of these keys, one at a time."""

    keys: tuple[str, ...]
    client_id: str


class Word(Enum):
    """A message that says nothing but its type."""

    ACK = auto()
    QUIT = auto()


Message: TypeAlias = Auth | Subscribe | Word


class Phase(Enum):
    """What is expected next."""

    AUTH = auto()
    SUBSCRIBE = auto()
    RUNS = auto()


class Dialect:
    """One conversation. Raises `ProtocolViolation`, with the code to close with, for what may not be said."""

    def __init__(self, *, legacy: bool = False) -> None:
        self.phase = Phase.SUBSCRIBE if legacy else Phase.AUTH

    def __repr__(self) -> str:
        return f"<Dialect {self.phase.name}>"

    def take(self, text: str) -> Message:
        """Return what a text message says."""
        message = _object(text)
        kind = message.get("type")
        if self.phase is Phase.AUTH:
            self.phase = Phase.SUBSCRIBE
            return _auth(kind, message)
        if self.phase is Phase.SUBSCRIBE:
            self.phase = Phase.RUNS
            return _subscribe(kind, message)
        if kind == "ack":
            return Word.ACK
        if kind == "quit":
            return Word.QUIT
        raise ProtocolViolation("expected a message of type 'ack' or 'quit'")


def _object(text: str) -> dict[str, Any]:
    try:
        message: object = _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise ProtocolViolation("expected a JSON object") from exc
    if not isinstance(message, dict):
        raise ProtocolViolation("expected a JSON object")
    return cast("dict[str, Any]", message)


def _auth(kind: object, message: dict[str, Any]) -> Auth:
    if kind != "auth":
        raise ProtocolViolation("expected a message of type 'auth'", CloseCode.UNAUTHENTICATED)
    token = message.get("token")
    return Auth(token if isinstance(token, str) else None)


def _subscribe(kind: object, message: dict[str, Any]) -> Subscribe:
    if kind != "subscribe":
        raise ProtocolViolation("expected a message of type 'subscribe'")
    keys: object = message.get("keys")
    if not isinstance(keys, list) or not keys:
        raise ProtocolViolation("expected 'keys' in the message 'subscribe': an array of task keys")
    names = cast("list[object]", keys)
    if len(names) > MAX_KEYS or not all(map(_is_name, names)):
        raise ProtocolViolation(f"expected 'keys' to be at most {MAX_KEYS} strings of 1 to {MAX_NAME} characters")
    if any(is_queue_key(cast("str", name)) for name in names):
        raise ProtocolViolation("expected 'keys' to be those of tasks, not of work queues")
    client_id = message.get("client_id")
    if not _is_name(client_id):
        raise ProtocolViolation(f"expected 'client_id' in the message 'subscribe': 1 to {MAX_NAME} characters")
    return Subscribe(tuple(dict.fromkeys(cast("list[str]", names))), cast("str", client_id))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME
