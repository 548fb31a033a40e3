"""The broker's errors.

RunlaneError
├── ConfigurationError   the broker cannot start as it was told to; one line says why (exit code 2)
├── StartupError         the broker cannot start here and now: port, lock, database (exit code 1)
├── StoreUnavailable     the database cannot be written now; nothing was done
├── Overloaded           too much is waiting; nothing was done, try again
└── Refused              a request that the rules do not allow; `code` and `field` say which
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
