"""Work pools and work queues of a broker, over its HTTP API.

queues = WorkQueues()
queues.create("reports", pool="nightly", priority=1)
queues.pause("reports", pool="nightly")
queues.update("reports", pool="nightly", concurrency_limit=5)
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from .config import ClientSection, load_config
from .errors import ArgumentError
from .rest import NotReached, RequestRefused, ask

__all__ = ["DEFAULT_POOL", "NotReached", "RequestRefused", "WorkQueues"]

#: The pool of a queue where nobody names one.
DEFAULT_POOL: Final = "default-agent-pool"
_MOST: Final = 200


class WorkQueues:
    """What can be done with pools and queues.

    All raise `RequestRefused`, `NotReached`, and `ArgumentError` for a name with a slash: a queue's pool is an
    argument of its own. Pools and queues are dicts, as the HTTP API shows them. A `client` of None is read from
    the settings.
    """

    def __init__(self, client: ClientSection | None = None) -> None:
        self._client = client or load_config().of(ClientSection)

    def list(self, pool: str | None = None) -> list[dict[str, Any]]:
        """Return a pool's queues, the first in line first; without a pool all queues, by name."""
        return self._all("/work_queues/filter" if pool is None else f"{_pool(pool)}/queues/filter")

    def create(self, name: str, pool: str | None = None, **values: Any) -> dict[str, Any]:
        """Make a queue; `values`: description, priority, concurrency_limit, late_after, is_paused."""
        path = "/work_queues/" if pool is None else f"{_pool(pool)}/queues"
        return self._ask("POST", path, {"name": name, **values})

    def read(self, name: str, pool: str | None = None) -> dict[str, Any]:
        """Return a queue."""
        return self._ask("GET", _queue(pool, name))

    def update(self, name: str, /, pool: str | None = None, **changes: Any) -> None:
        """Change a queue: what `create` takes, its `name`, too; None takes a limit away."""
        self._ask("PATCH", _queue(pool, name), changes)

    def pause(self, name: str, pool: str | None = None) -> None:
        """Let nothing of a queue start, until it is resumed."""
        self.update(name, pool, is_paused=True)

    def resume(self, name: str, pool: str | None = None) -> None:
        """Let the runs of a paused queue start again."""
        self.update(name, pool, is_paused=False)

    def delete(self, name: str, pool: str | None = None) -> None:
        """Delete a queue; its runs stay, and belong to none."""
        self._ask("DELETE", _queue(pool, name))

    def pools(self) -> list[dict[str, Any]]:
        """Return all pools, by name."""
        return self._all("/work_pools/filter")

    def create_pool(self, name: str, **values: Any) -> dict[str, Any]:
        """Make a pool with its default queue; `values`: type, description, concurrency_limit, is_paused."""
        return self._ask("POST", "/work_pools/", {"name": name, **values})

    def update_pool(self, name: str, **changes: Any) -> None:
        """Change a pool; None takes a limit away."""
        self._ask("PATCH", _pool(name), changes)

    def pause_pool(self, name: str) -> None:
        """Let nothing of a pool's queues start, until it is resumed."""
        self.update_pool(name, is_paused=True)

    def resume_pool(self, name: str) -> None:
        """Let the runs of a paused pool start again."""
        self.update_pool(name, is_paused=False)

    def delete_pool(self, name: str) -> None:
        """Delete a pool with its queues."""
        self._ask("DELETE", _pool(name))

    def _all(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self._ask("POST", path, {"limit": _MOST, "offset": len(found)})
            found += page
            if len(page) < _MOST:
                return found

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return ask(self._client, method, path, body)


def _pool(name: str) -> str:
    return f"/work_pools/{_in_path(name)}"


def _queue(pool: str | None, name: str) -> str:
    return f"{_pool(pool or DEFAULT_POOL)}/queues/{_in_path(name)}"


def _in_path(name: str) -> str:
    if "/" in name:  # no route would be found, and the broker could not say why
        raise ArgumentError(f"no name has a slash: {name!r}; a queue's pool is given as pool=")
    return quote(name, safe="")
