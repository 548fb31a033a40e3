"""The worker's end: holds a session, executes what is pushed, reports until it has a verdict.

    Worker      the whole: start, drain, stop
    Session     the connection: subscribe, resume, beats; owns the Reporter
    Reporter    every run that is held, and what the broker has not yet confirmed
    Executor    one pushed run: slot -> parameters -> started -> call -> finished
    Slots       how many run at once

Session and executor know each other by plain callables alone.
"""

from .context import CurrentRun, current_run
from .discovery import UsageError, find_tasks
from .signals import stop_on_signals
from .worker import Worker

__all__ = ["CurrentRun", "UsageError", "Worker", "current_run", "find_tasks", "stop_on_signals"]
