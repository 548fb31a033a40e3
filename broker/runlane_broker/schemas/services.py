"""The broker's services over HTTP."""

from __future__ import annotations

from datetime import datetime

from .base import Response


class ServiceShown(Response):
    """How a service is doing. `counts` are those of its last run, `totals` of all since the broker's start."""

    name: str
    enabled: bool
    running: bool
    interval_seconds: float
    runs: int
    errors: int
    last_run: datetime | None
    last_run_seconds: float | None
    last_error: str | None
    counts: dict[str, int]
    totals: dict[str, int]
