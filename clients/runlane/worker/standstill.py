"""A worker at a standstill: each slot is held by a run that waits for another, which may need one of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from .execution import Execution, RunKey
from .slots import Slots

log: Final = logging.getLogger("runlane.worker")

#: Seconds that all slots may be held so before it is said: the other runs may be executed elsewhere, and soon end.
PATIENCE_SECONDS: Final = 5.0
#: Seconds until it is said again.
REPEAT_SECONDS: Final = 60.0


class Standstill:
    """Warns of it. Nothing can be done: which of the runs to give up, only their author knows."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._waiting: dict[RunKey, str] = {}  # the keys of their tasks
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Standstill {len(self._waiting)} waiting>"

    def add(self, execution: Execution) -> None:
        """Note that this waits for another run."""
        self._waiting[execution.key] = execution.run.task_key
        if self._timer is None and len(self._waiting) >= self._slots.usable:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._warn)

    def remove(self, key: RunKey) -> None:
        """Note that this waits no more."""
        if self._waiting.pop(key, None) is not None and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _warn(self) -> None:
        log.warning(
            "all %d slots are held by runs that wait for other runs (%s): if those need a slot of this worker, "
            "none will ever go on. Raise --limit, or don't wait for a run inside a task",
            len(self._waiting),
            ", ".join(sorted(set(self._waiting.values()))),
        )
        self._timer = asyncio.get_running_loop().call_later(REPEAT_SECONDS, self._warn)
