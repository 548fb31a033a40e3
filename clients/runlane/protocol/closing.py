"""WebSocket close codes, and whether a client should come back after them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class CloseCode(IntEnum):
    """Why a connection was closed. 1xxx are those of RFC 6455 section 7.4.1, 4xxx are ours."""

    NORMAL = 1000
    GOING_AWAY = 1001
    UNAUTHENTICATED = 1008
    MESSAGE_TOO_BIG = 1009
    FAILED = 1011
    RESTART = 1012
    OVERLOADED = 1013
    PROTOCOL_VIOLATION = 4001
    FORBIDDEN = 4403
    UNRESPONSIVE = 4408
    SUPERSEDED = 4409
    TOO_MUCH = 4429


#: Coming back would end the same way: the client must stop and say why.
FATAL: Final[frozenset[int]] = frozenset(
    {CloseCode.UNAUTHENTICATED, CloseCode.PROTOCOL_VIOLATION, CloseCode.FORBIDDEN}
)


def may_reconnect(code: int | None) -> bool:
    """Say whether a client should reconnect after this close code (`None`: the socket just broke)."""
    return code not in FATAL
