"""A run's end without a result, as the error that stands for it."""

from __future__ import annotations

import msgspec

from .errors import RunCancelled, RunCrashed, RunError, RunExpired, RunFailed, RunParked, RunTimedOut
from .protocol.messages import RunFinished
from .protocol.states import StateName, StateType


class _RemoteError(msgspec.Struct):
    """What a worker says of an exception."""

    type: str = "unknown"
    message: str = ""
    traceback: str = ""


def error_of(finished: RunFinished) -> RunError:
    """Return the error that stands for a run which has ended without a result."""
    run_id, state = finished.id, finished.state
    match state.type:
        case StateType.FAILED:
            remote = _remote_error(finished)
            kind = RunTimedOut if state.name == StateName.TIMED_OUT else RunFailed
            return kind(run_id, state, remote.type, remote.message, remote.traceback)
        case StateType.CANCELLED:
            return (RunExpired if state.name == StateName.EXPIRED else RunCancelled)(run_id, state)
        case StateType.CRASHED:
            return (RunParked if state.name == StateName.PARKED else RunCrashed)(run_id, state)
        case _:
            return RunError(run_id, state)


def _remote_error(finished: RunFinished) -> _RemoteError:
    """Read the error payload; what is no error of ours says at least what the state says."""
    try:
        return msgspec.json.decode(finished.error, type=_RemoteError)
    except msgspec.DecodeError:
        return _RemoteError(message=finished.state.message or "")
