"""Forms other than JSON: what a user's serializer makes travels as base64 text inside the JSON payload.

The run's header `content-type` says whose it is. A task's results take the same form as its arguments; its
errors don't: exception, message and traceback are always JSON that the broker and its operators can read.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final, Protocol

from ..errors import PayloadError
from .values import decode, encode

#: The header of a run that names the form of its parameters and result; absent: JSON.
CONTENT_TYPE: Final = "content-type"


class Serializer(Protocol):
    """How a task's arguments and results become bytes: `@task(serializer=…)`, the same at both ends.

    A worker refuses a run that comes in another form, plain JSON included, so that nobody without the key of an
    encrypting serializer can make it work. Where two runs share an idempotency key, their bytes are compared:
    a serializer that never gives the same bytes twice makes them a conflict.
    """

    @property
    def content_type(self) -> str:
        """The form's name, as in `application/msgpack`; at most 4096 characters."""
        ...

    def dumps(self, value: Any, /) -> bytes:
        """Return the value as bytes: a dict of arguments by parameter name, or a result. May raise anything."""
        ...

    def loads(self, data: bytes, /) -> Any:
        """Return the value again. What its annotation asks for is made of it afterwards. May raise anything."""
        ...


class JsonSerializer:
    """The default form, to build others on: `Fernet(key).encrypt(super().dumps(value))`."""

    content_type: str = "application/json"

    def dumps(self, value: Any, /) -> bytes:
        """Return the value as JSON. Raises `PayloadError`."""
        return encode(value, "the value")

    def loads(self, data: bytes, /) -> Any:
        """Return the plain JSON value. Raises `PayloadError`."""
        return decode(data, "the value")


def seal(serializer: Serializer, value: object, what: str) -> bytes:
    """Return the value as JSON text that holds what the serializer made of it. Raises `PayloadError`."""
    try:
        return b'"%b"' % base64.b64encode(serializer.dumps(value))
    except Exception as exc:
        raise _failure(serializer, what, exc) from exc


def unseal(serializer: Serializer, text: object, what: str) -> Any:
    """Return the value of such a text. Raises `PayloadError`."""
    if not isinstance(text, str):
        raise PayloadError(f"{what}: not in the form {serializer.content_type}")
    try:
        return serializer.loads(base64.b64decode(text, validate=True))
    except binascii.Error as exc:
        raise PayloadError(f"{what}: not in the form {serializer.content_type}: no base64") from exc
    except Exception as exc:
        raise _failure(serializer, what, exc) from exc


def _failure(serializer: Serializer, what: str, error: Exception) -> PayloadError:
    return PayloadError(f"{what}: {serializer.content_type}: {type(error).__name__}: {error}")
