"""Errors of the wire.

ProtocolError
├── FrameRefused        this frame is wrong; the peer gets an `error` frame, the connection stays
└── ProtocolViolation   the conversation is broken; the connection is closed with the code it carries
"""

from __future__ import annotations

from enum import StrEnum

from .closing import CloseCode


class ErrorCode(StrEnum):
    """The `code` of an `error` frame, or of a refused item."""

    UNKNOWN_TYPE = "unknown_type"
    INVALID_FRAME = "invalid_frame"
    OUT_OF_ORDER = "out_of_order"
    TOO_DEEP = "payload_too_deep"
    TOO_LARGE = "payload_too_large"
    INVALID_FIELD = "invalid_field"
    ID_CONFLICT = "id_conflict"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    NOT_FOUND = "not_found"
    DRAINING = "draining"
    UNSUPPORTED = "unsupported"
    INTERNAL = "internal"


class ProtocolError(Exception):
    """The peer sent something that the protocol does not allow."""


class FrameRefused(ProtocolError):
    """One frame, or one item of it, is refused; what came before and after it counts.

    `code` says which rule it broke, `field` names the place (`runs[3].priority`), `frame` the frame's type
    and `ref` its reference, where it has one.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        frame: str | None = None,
        field: str | None = None,
        ref: int | str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.frame = frame
        self.field = field
        self.ref = ref


class ProtocolViolation(ProtocolError):
    """The conversation cannot go on: close with `code` and `reason`."""

    def __init__(self, reason: str, code: CloseCode = CloseCode.PROTOCOL_VIOLATION) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
