"""Runlane: durable task dispatch over WebSockets.

from runlane import task

@task(retries=3)
def add(a: int, b: int) -> int:
    return a + b

print(add.delay(2, 3).result())             # in sync code
print(await (await add.adelay(2, 3)))       # in async code
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bulk import BoundRun, asubmit_many, submit_many
    from .client import Client
    from .errors import (
        ArgumentError,
        CancelRefused,
        ClientClosed,
        ConnectionFailed,
        PayloadError,
        PayloadTooLarge,
        ResultError,
        RunCancelled,
        RunCrashed,
        RunError,
        RunExpired,
        RunFailed,
        RunlaneError,
        RunNotFound,
        RunParked,
        RunTimedOut,
        SettingsError,
        SomeRefused,
        SubmitRefused,
        SubmitTimedOut,
        WouldBlock,
    )
    from .futures import RunFuture, acancel_many, agather, cancel_many, gather
    from .options import RunOptions, TaskOptions
    from .protocol.messages import RunProgress
    from .protocol.states import StateType
    from .serializers import JsonSerializer, Serializer
    from .settings import Settings
    from .tasks import Submitter, Task, task
    from .worker import CurrentRun, Worker, current_run, serve

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "BoundRun",
    "CancelRefused",
    "Client",
    "ClientClosed",
    "ConnectionFailed",
    "CurrentRun",
    "JsonSerializer",
    "PayloadError",
    "PayloadTooLarge",
    "ResultError",
    "RunCancelled",
    "RunCrashed",
    "RunError",
    "RunExpired",
    "RunFailed",
    "RunFuture",
    "RunNotFound",
    "RunOptions",
    "RunParked",
    "RunProgress",
    "RunTimedOut",
    "RunlaneError",
    "Serializer",
    "Settings",
    "SettingsError",
    "SomeRefused",
    "StateType",
    "SubmitRefused",
    "SubmitTimedOut",
    "Submitter",
    "Task",
    "TaskOptions",
    "Worker",
    "WouldBlock",
    "acancel_many",
    "agather",
    "asubmit_many",
    "cancel_many",
    "current_run",
    "gather",
    "serve",
    "submit_many",
    "task",
]

#: Where the names are, but for the errors. They are imported when they are first asked for, so that a command
#: which needs none of them (`runlane --help`, `config show`) is there at once.
_HOMES = {
    "bulk": ("BoundRun", "asubmit_many", "submit_many"),
    "client": ("Client",),
    "futures": ("RunFuture", "acancel_many", "agather", "cancel_many", "gather"),
    "options": ("RunOptions", "TaskOptions"),
    "protocol.messages": ("RunProgress",),
    "protocol.states": ("StateType",),
    "serializers": ("JsonSerializer", "Serializer"),
    "settings": ("Settings",),
    "tasks": ("Submitter", "Task", "task"),
    "worker": ("CurrentRun", "Worker", "current_run", "serve"),
}

if not TYPE_CHECKING:  # or type checkers would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = next((module for module, names in _HOMES.items() if name in names), "errors")
        value = globals()[name] = getattr(importlib.import_module(f".{home}", __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
