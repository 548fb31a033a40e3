"""Errors of the SDK: everything it raises for its own reasons is a `RunlaneError`.

RunlaneError
├── SettingsError           a setting is wrong (also a ValueError)
├── ConnectionFailed        the broker ended the connection for good: `code` and `reason` say why
├── ClientClosed            the client was closed, or belongs to another event loop
├── WouldBlock              a call that waits would stop the event loop it was made in (also a RuntimeError)
├── ArgumentError           an argument or a task option cannot be used (also a ValueError)
├── PayloadError            a value has no JSON form, or one that is not sent
│   └── PayloadTooLarge     … because it has too many bytes
├── SubmitRefused           the broker refused a run: `code`, `field`, `message`
├── SomeRefused             … some of many: `futures` has them all
├── SubmitTimedOut          the broker has not confirmed a run in time (also a TimeoutError)
├── CancelRefused           the broker has not cancelled: `code`, `message`
├── RunNotFound             the broker knows no run of this id
├── ResultError             the result came, but is not what the task's annotation says
└── RunError                the run has ended without a result: `run_id`, `state`
    ├── RunFailed           FAILED: the task raised; carries the remote `type`, `message`, `traceback`
    │   └── RunTimedOut     … because it ran longer than its timeout
    ├── RunCancelled        CANCELLED
    │   └── RunExpired      … because it had not started in time
    └── RunCrashed          CRASHED
        └── RunParked       … because its workers were lost too often; an operator can requeue it

Waiting for longer than a `timeout=` allows raises Python's own `TimeoutError`. All of them can be copied, and
all but `SomeRefused`, which holds futures, can be sent to other processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .protocol.messages import ItemError, RunState


class RunlaneError(Exception):
    """Base of all errors of the SDK."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default Python would call the class with the message alone.
        return _revive, (type(self), self.args), self.__dict__


def _revive(kind: type[RunlaneError], args: tuple[Any, ...]) -> RunlaneError:
    return kind.__new__(kind, *args)


class SettingsError(RunlaneError, ValueError):
    """A setting is missing or wrong; the message names the variable."""


class ConnectionFailed(RunlaneError):
    """The broker will not have this client: `code` is the close code (`None`: an `error` frame said so)."""

    def __init__(self, code: int | None, reason: str) -> None:
        where = f"close code {code}" if code is not None else "refused"
        super().__init__(f"the broker ended the connection for good ({where}): {reason or 'no reason given'}")
        self.code = code
        self.reason = reason


class ClientClosed(RunlaneError):
    """The client is closed, or was called from another event loop than its own."""


class WouldBlock(RunlaneError, RuntimeError):
    """The call waits for a run, and was made where an event loop runs; the message names what to await."""


class ArgumentError(RunlaneError, ValueError):
    """An argument or a task option cannot be used; the message names it."""


class PayloadError(RunlaneError):
    """A value cannot be sent: it has no JSON form, or nests too deeply."""


class PayloadTooLarge(PayloadError):
    """A value cannot be sent: its JSON form has more bytes than the broker takes."""


class SubmitRefused(RunlaneError):
    """The broker refused a run. `field` names the place (`runs[0].priority`), where there is one."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.field = field

    @classmethod
    def of(cls, error: ItemError) -> SubmitRefused:
        """Return the error that stands for this refusal."""
        return cls(error.code, error.message, error.field)


class SomeRefused(RunlaneError):
    """Of many runs some were refused; the others are submitted.

    `futures` has one future for each, in order, and those of refused runs raise their `SubmitRefused`;
    `refused` has the indexes of those.
    """

    def __init__(self, futures: Sequence[Any], refused: Sequence[int], first: SubmitRefused) -> None:
        super().__init__(
            f"{len(refused)} of {len(futures)} runs were refused; the first (index {refused[0]}): {first}"
        )
        self.futures = futures
        self.refused = refused


class SubmitTimedOut(RunlaneError, TimeoutError):
    """The broker has not confirmed a run in time: it may be there, or come to be, or not.

    With an `idempotency_key` it can be submitted again without doing anything twice.
    """


class CancelRefused(RunlaneError):
    """The broker has not cancelled what it was asked to: `code` and `message` say why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class RunNotFound(RunlaneError):
    """The broker knows no run of this id: never submitted there, or deleted."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"no run has the id {run_id}")
        self.run_id = run_id


class ResultError(RunlaneError):
    """The run completed, but its result is not of the type that the task's annotation promises."""


class RunError(RunlaneError):
    """The run has ended without a result."""

    def __init__(self, run_id: str, state: RunState, message: str | None = None) -> None:
        super().__init__(
            message or f"run {run_id} is {state.name}" + (f": {state.message}" if state.message else "")
        )
        self.run_id = run_id
        self.state = state


class RunFailed(RunError):
    """The task raised. `type` is the qualified name of its exception, `traceback` the worker's, as text.

    The traceback is a note of this error, too, and so printed with it.
    """

    def __init__(self, run_id: str, state: RunState, type_: str, message: str, traceback: str) -> None:
        what = f"{type_}: {message}" if message else type_
        super().__init__(run_id, state, f"run {run_id} is {state.name}: {what}")
        self.type = type_
        self.message = message
        self.traceback = traceback
        if traceback:
            self.add_note(f"On the worker:\n{traceback.rstrip()}")


class RunTimedOut(RunFailed):
    """The task ran longer than its timeout."""


class RunCancelled(RunError):
    """The run was cancelled."""


class RunExpired(RunCancelled):
    """The run had not started by the time it was to expire."""


class RunCrashed(RunError):
    """The run was given up by the broker."""


class RunParked(RunCrashed):
    """The run's workers were lost too often; an operator can requeue it."""
