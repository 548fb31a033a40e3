"""The broker's errors.

RunlaneError
├── ConfigurationError   the broker cannot start as it was told to; one line says why (exit code 2)
├── StartupError         the broker cannot start here and now: port, lock, database (exit code 1)
├── StoreUnavailable     the database cannot be written now; nothing was done
├── Overloaded           too much is waiting; nothing was done, try again
├── Refused              a request that the rules do not allow; `code` and `field` say which
├── Invalid              a request that says something impossible; `field` says where
├── NotFound             there is no such thing
└── Conflict             something else is there already
"""

from __future__ import annotations


class RunlaneError(Exception):
    """Anything that the broker raises on purpose."""


class ConfigurationError(RunlaneError):
    """The broker was told something that it cannot do: names the setting and the reason."""


class StartupError(RunlaneError):
    """The broker cannot start here and now: port in use, database locked, foreign or newer."""


class StoreUnavailable(RunlaneError):
    """The database cannot be written now; nothing was done."""


class Overloaded(RunlaneError):
    """Too much is waiting; nothing was done, try again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(RunlaneError):
    """A request that the rules do not allow. `code` is a protocol `ErrorCode`, `field` the place."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field


class Invalid(RunlaneError):
    """A request that says something impossible. `field` is the place (`state.type`), `kind` what is wrong."""

    def __init__(self, message: str, field: str | None = None, kind: str = "value_error") -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.kind = kind


class NotFound(RunlaneError):
    """There is no such thing; the message says what was looked for."""


class Conflict(RunlaneError):
    """Something else is there already, or the thing is in use; the message says what."""
