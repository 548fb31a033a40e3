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

#: How a flow run is retried by the process that runs it: whoever polls or is pushed runs never gets this one.
IN_PROCESS: Final = "in_process"


def has_slot(state: StateType, retry_type: str | None) -> bool:
    """Say whether a flow run takes a slot of its queue and its pool.

    One that waits for its next try in its process does: nothing keeps that process from going on.
    """
    return state in LEASABLE or (state is _S.SCHEDULED and retry_type == IN_PROCESS)


def may_follow(current: StateType | None, proposed: StateType) -> bool:
    """Say whether the table has a cell for this transition."""
    return proposed in TRANSITIONS[current]
