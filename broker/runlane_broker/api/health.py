"""What tells nothing but that the broker is there: health and versions, open to anybody."""

from __future__ import annotations

from typing import Any, Final

from ..core.core import Core
from ..schemas.health import Message, Status
from .routes import HEALTH, Answer, Handler, Route

#: The version of the Prefect server that this API stands in for. Clients compare it with their own: another
#: major version is an error to them, and an older one a warning.
PREFECT_VERSION: Final = "3.8.8"
_RETRY: Final = {"Retry-After": "1"}


class Health:
    """The use cases, on one core."""

    def __init__(self, core: Core, version: str) -> None:
        self._core = core
        self._version = version

    async def livez(self) -> Status:
        """As soon as the event loop answers."""
        return Status(status="ok")

    async def readyz(self) -> Answer:
        """While runs are taken and dispatched: neither before recovery nor while draining."""
        if self._core.ready:
            return Answer(200, Status(status="ready"))
        return Answer(503, Status(status="not ready"), _RETRY)

    async def version(self) -> str:
        """The broker's version."""
        return self._version

    async def health(self) -> bool:
        """Prefect's `livez`."""
        return True

    async def ready(self) -> Answer:
        """Prefect's `readyz`."""
        if self._core.ready:
            return Answer(200, Message(message="OK"))
        return Answer(503, Message(message="Database is not available"), _RETRY)

    async def hello(self) -> str:
        """Wave."""
        return "👋"

    async def admin_version(self) -> str:
        """Whom it stands in for."""
        return PREFECT_VERSION


def routes(core: Core, version: str) -> list[Route]:
    """Return the routes."""
    health = Health(core, version)

    def get(path: str, handler: Handler, summary: str, type_: Any, *, may_fail: bool = False) -> Route:
        answers = {200: type_, 503: type_} if may_fail else {200: type_}
        return Route(method="GET", path=path, handler=handler, summary=summary, tag=HEALTH, answers=answers)

    return [
        get("/livez", health.livez, "Say whether the broker is alive", Status),
        get("/readyz", health.readyz, "Say whether runs are taken and dispatched", Status, may_fail=True),
        get("/api/version", health.version, "Return the broker's version", str),
        get("/api/health", health.health, "Say whether the broker is alive, as Prefect has it", bool),
        get(
            "/api/ready",
            health.ready,
            "Say whether the broker is ready, as Prefect has it",
            Message,
            may_fail=True,
        ),
        get("/api/hello", health.hello, "Wave", str),
        get("/api/admin/version", health.admin_version, "Return the Prefect version that this stands in for", str),
    ]
