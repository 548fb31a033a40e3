"""The worker's end: holds a session, executes what is pushed, reports until it has a verdict.

    Worker      the whole: start, drain, stop; `serve` runs one as a program

    on a thread and an event loop of its own:
    Control     from `subscribe` to `quit`
    Session     the connection: subscribe, resume, beats; owns the Reporter
    Reporter    every run that is held, and what the broker has not yet confirmed
    Executor    every run that is executed: slots, timeouts, cancels, leases
    Standstill  says so when every slot is held by a run that waits for another
    Fence       the runs that must stop before their lease can be elsewhere

    elsewhere:
    pools       the tasks' event loop, threads, processes; `calling` is what they do alike

The two sides meet in `Execution`, and call each other through a `Mailbox`.
"""

from .context import CurrentRun, current_run
from .discovery import Lifespan, UsageError, find_lifespan, find_tasks
from .pools import ProcessFailed
from .serving import serve, work
from .signals import stop_on_signals
from .worker import Worker

__all__ = [
    "CurrentRun",
    "Lifespan",
    "ProcessFailed",
    "UsageError",
    "Worker",
    "current_run",
    "find_lifespan",
    "find_tasks",
    "serve",
    "stop_on_signals",
    "work",
]
