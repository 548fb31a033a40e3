"""Runlane: durable task dispatch over WebSockets.

from runlane import task

@task(retries=3)
def add(a: int, b: int) -> int:
    return a + b

async def main() -> None:
    run = await add.adelay(2, 3)
    print(await run)
"""

from .client import Client
from .errors import (
    ArgumentError,
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
    SubmitRefused,
)
from .futures import RunFuture
from .settings import Settings
from .tasks import Task, task
from .worker import CurrentRun, Worker, current_run

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "Client",
    "ClientClosed",
    "ConnectionFailed",
    "CurrentRun",
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
    "RunParked",
    "RunTimedOut",
    "RunlaneError",
    "Settings",
    "SettingsError",
    "SubmitRefused",
    "Task",
    "Worker",
    "current_run",
    "task",
]
