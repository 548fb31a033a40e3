"""The producer's end: submits runs and hears of their ends, over one connection per client.

Client        one connection, kept up; belongs to an event loop
Submissions   runs on their way, sent again until answered
Cancels       runs that are to be cancelled
Watches       runs whose end somebody waits for
current       which client is used in which event loop
portal        the thread and event loop of sync code
"""

from .client import Client, client_here, client_like, current_client
from .portal import in_loop, may_block, run_sync, start_sync, wait_for
from .watches import ProgressCallback

__all__ = [
    "Client",
    "ProgressCallback",
    "client_here",
    "client_like",
    "current_client",
    "in_loop",
    "may_block",
    "run_sync",
    "start_sync",
    "wait_for",
]
