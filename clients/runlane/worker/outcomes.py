"""How a run ended, as a report."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Final, TypeAlias

import msgspec
import orjson

from ..errors import PayloadError, PayloadTooLarge
from ..protocol.messages import FinalState, Finished, PushedRun, ReleasedRun
from ..protocol.states import StateName
from ..serializers import Results
from ..tracebacks import traceback_of

#: What an execution comes to: a final state, or the run is given back.
Report: TypeAlias = Finished | ReleasedRun

#: Characters of a traceback, its end; the least of the three parts of an error that is of use when cut.
_TRACEBACK_LENGTH: Final = 64_000
#: How the names of our packages begin, with a point behind them.
_OURS: Final = "runlane."
#: Characters of an exception's own message.
_MESSAGE_LENGTH: Final = 8_000


def completed(run: PushedRun, result: object, results: Results, max_payload_bytes: int) -> Finished:
    """Report a result; one that cannot be sent makes the run fail, and for good: a retry would not help."""
    try:
        data = results.pack(result, max_payload_bytes)
    except PayloadTooLarge as exc:
        return failed(run, exc, name=StateName.RESULT_TOO_LARGE, retriable=False)
    except PayloadError as exc:
        return failed(run, exc, retriable=False)
    return Finished(id=run.id, attempt=run.attempt, state=FinalState(type="COMPLETED"), result=data)


def failed(
    run: PushedRun, error: BaseException, *, name: str | None = None, retriable: bool | None = None
) -> Finished:
    """Report an exception."""
    type_, message = _name_of(error), _message_of(error)
    payload = {"type": type_, "message": message, "traceback": _traceback_of(error)}
    return Finished(
        id=run.id,
        attempt=run.attempt,
        state=FinalState(type="FAILED", name=name, message=f"{type_}: {message}" if message else type_),
        error=msgspec.Raw(orjson.dumps(payload)),
        retriable=retriable,
    )


def timed_out(run: PushedRun, timeout: float) -> Finished:
    """Report that the run took longer than its timeout, in seconds."""
    error = TimeoutError(f"the task ran longer than its timeout of {timeout:g} s")
    return failed(run, error, name=StateName.TIMED_OUT)


def cancelled(run: PushedRun) -> Finished:
    """Report that the run was stopped as asked."""
    return Finished(id=run.id, attempt=run.attempt, state=FinalState(type="CANCELLED"))


def released(run: PushedRun, reason: str, delay: float | None = None) -> ReleasedRun:
    """Give the run back; `delay` postpones it by so many seconds."""
    return ReleasedRun(id=run.id, attempt=run.attempt, reason=reason[:200], delay=delay)


def _name_of(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return _clean(name, 200)


def _message_of(error: BaseException) -> str:
    try:
        return _clean(str(error), _MESSAGE_LENGTH)
    except Exception as exc:
        return f"(its message raised {type(exc).__name__})"


def _traceback_of(error: BaseException) -> str:
    """Return the traceback from the task's own code on; of what was raised before that, what is not ours."""
    try:
        frames = _own_frames(error.__traceback__)
        lines = [traceback_of(error)] if frames is None else traceback.format_exception(type(error), error, frames)
    except Exception:
        return ""
    return _clean("".join(lines)[-_TRACEBACK_LENGTH:], _TRACEBACK_LENGTH)


def _own_frames(frames: TracebackType | None) -> TracebackType | None:
    rest = frames
    while rest is not None and f"{rest.tb_frame.f_globals.get('__package__')}.".startswith(_OURS):
        rest = rest.tb_next
    return rest


def _clean(text: str, length: int) -> str:
    """Return what can be sent as UTF-8, cut to length."""
    return text[:length].encode("utf-8", "replace").decode()
