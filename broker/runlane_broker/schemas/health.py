"""What health says."""

from __future__ import annotations

from .base import Response


class Status(Response):
    """Ours."""

    status: str


class Message(Response):
    """Prefect's."""

    message: str
