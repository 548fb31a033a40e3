"""The state machine of a run that the broker dispatches, as a table.

Rule 1: which state may follow which stands in this file and nowhere else. What is missing is forbidden, and a
refused transition changes nothing. `None` stands for a run that is not there yet. (Somebody may ask for any state
over HTTP: what is protected from that stands in the policies.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runlane.protocol.states import FINAL, StateType

_S = StateType

TRANSITIONS: Final[Mapping[StateType | None, frozenset[StateType]]] = {
    None: frozenset({_S.SCHEDULED, _S.PENDING}),
    _S.SCHEDULED: frozenset({_S.PENDING, _S.CANCELLED}),
    _S.PENDING: frozenset({_S.RUNNING, _S.SCHEDULED, _S.CANCELLING}) | FINAL,
    _S.RUNNING: frozenset({_S.SCHEDULED, _S.CANCELLING}) | FINAL,
    _S.CANCELLING: FINAL,
    _S.PAUSED: frozenset({_S.SCHEDULED, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CRASHED: frozenset({_S.SCHEDULED}),
    _S.CANCELLED: frozenset(),
}

#: A run in one of these may be held by a session.
LEASABLE: Final[frozenset[StateType]] = frozenset({_S.PENDING, _S.RUNNING, _S.CANCELLING})


def may_follow(current: StateType | None, proposed: StateType) -> bool:
    """Say whether the table has a cell for this transition."""
    return proposed in TRANSITIONS[current]
