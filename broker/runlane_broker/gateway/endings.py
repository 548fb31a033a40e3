"""The end of a connection's tasks, of which nothing is kept.

A cancelled task keeps its exception until somebody asks for it. That has a traceback, which leads to the
frame, and so to the connection and to a deadline (`asyncio.timeout`), which leads to the task: nothing of it would
go before the garbage collector finds it, and while that looks for what connections have left nobody is served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from starlette.websockets import WebSocketDisconnect

logger = logging.getLogger("runlane.gateway")

#: What a task meets whose peer has gone.
_GONE: Final = (WebSocketDisconnect, RuntimeError, OSError)


async def over(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait for the end of tasks, whatever it is. What should not have happened is logged: nobody else sees it."""
    await asyncio.wait(tasks)
    for task in tasks:
        with suppress(asyncio.CancelledError):
            met = task.exception()
            if met is not None and not isinstance(met, _GONE):
                logger.error("a connection failed", exc_info=met)
