"""What has happened to a run: its states, as the broker's HTTP interface tells them."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Final
from urllib.request import urlopen

import msgspec

_PATIENCE: Final = 5.0


class Step(msgspec.Struct, frozen=True):
    """A state of a run."""

    name: str
    timestamp: datetime
    message: str | None = None


_DECODER: Final = msgspec.json.Decoder(tuple[Step, ...])


async def history_of(url: str, run_id: str) -> tuple[Step, ...]:
    """Return a run's states, oldest first."""
    return _DECODER.decode(await asyncio.to_thread(_get, f"{url}/api/task_run_states/?task_run_id={run_id}"))


def _get(url: str) -> bytes:
    with urlopen(url, timeout=_PATIENCE) as response:  # noqa: S310  (the demo's own broker)
        return response.read()
