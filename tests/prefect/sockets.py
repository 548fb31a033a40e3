"""A real broker and peers that speak the `prefect` subprotocol by the letter, and otherwise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from runlane.config import ServicesSection
from runlane_broker.app import Broker, create_app, running_broker
from runlane_broker.clock import SystemClock
from runlane_broker.core.core import Core
from runlane_broker.serving.listening import bind, url_of
from runlane_broker.serving.server import serving
from runlane_broker.settings import Settings, Timers
from runlane_broker.storage.run_records import RunRecord
from tests.support import new_database

#: Seconds after which what a test waits for will never come.
PATIENCE: Final = 10.0
PATH: Final = "/api/task_runs/subscriptions/scheduled"


@dataclass
class Clients:
    """Whoever talks to a broker."""

    url: str
    http: httpx.AsyncClient
    token: str | None = None
    _made: int = field(default=0)

    async def create(self, key: str = "k", **more: Any) -> str:
        """Create a run as Prefect's clients do; return its id."""
        response = await self.http.post("/api/task_runs/", json=self._new(key) | more)
        assert response.status_code == 201, response.text
        return response.json()["id"]

    async def create_many(self, count: int, key: str = "k") -> list[str]:
        """Create runs in one request; return their ids."""
        runs = [self._new(key) for _ in range(count)]
        response = await self.http.post("/api/task_runs/bulk", json={"task_runs": runs})
        assert response.status_code == 200, response.text[:1000]
        return [run["id"] for run in response.json()]

    def _new(self, key: str) -> dict[str, Any]:
        self._made += 1
        details = {"deferred": True, "task_parameters_id": "00000000-0000-0000-0000-00000000000a"}
        state = {"type": "SCHEDULED", "name": "Scheduled", "state_details": details}
        return {"task_key": key, "dynamic_key": f"{key}-{self._made}", "name": key, "state": state}

    async def set_state(self, run_id: str, type_: str, **more: Any) -> Any:
        """Report a state over HTTP, as workers of 2.20 do."""
        body = {"state": {"type": type_, **more}, "force": False}
        response = await self.http.post(f"/api/task_runs/{run_id}/set_state", json=body)
        assert response.status_code in (200, 201), response.text
        return response.json()

    @asynccontextmanager
    async def peer(self, *keys: str, client_id: str = "host-1", **options: Any) -> AsyncGenerator[Peer]:
        """A worker that has subscribed."""
        async with self.connected(**options) as peer:
            await peer.subscribe(*(keys or ("k",)), client_id=client_id, token=self.token)
            yield peer

    @asynccontextmanager
    async def connected(self, subprotocol: str | None = "prefect", **options: Any) -> AsyncGenerator[Peer]:
        """A connection on which nothing has been said."""
        offered = None if subprotocol is None else [Subprotocol(subprotocol)]
        url = self.url.replace("http", "ws", 1) + PATH
        options = {"ping_interval": None, "compression": None, "close_timeout": 1, "proxy": None, **options}
        async with connect(url, subprotocols=offered, **options) as socket:
            yield Peer(socket)


@dataclass
class World(Clients):
    """A broker in this very loop, too."""

    broker: Broker = field(kw_only=True)

    @property
    def core(self) -> Core:
        return self.broker.core

    async def run(self, run_id: str) -> RunRecord:
        """Return a run as it is stored."""
        run = await self.core.store.run_by_id(run_id)
        assert run is not None
        return run

    async def eventually(self, run_id: str, *names: str) -> bool:
        """Wait until a run's state has one of these names."""
        async with asyncio.timeout(PATIENCE):
            while (await self.run(run_id)).state.name not in names:
                await asyncio.sleep(0.01)
        return True

    async def states(self, run_id: str) -> list[str]:
        """Return the names of a run's states, oldest first."""
        return [state.name for state in await self.core.store.history(run_id)]


class Peer:
    """One connection of a worker."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, *messages: Any) -> None:
        """Send messages: texts and bytes as they are, anything else as JSON."""
        for message in messages:
            raw = isinstance(message, str | bytes)
            await self.socket.send(message if raw else json.dumps(message))

    async def hear(self, seconds: float = PATIENCE) -> Any:
        """Return the next message."""
        async with asyncio.timeout(seconds):
            return json.loads(await self.socket.recv())

    async def subscribe(self, *keys: str, client_id: str, token: str | None = None) -> None:
        await self.say({"type": "auth", "token": token})
        assert await self.hear() == {"type": "auth_success"}
        await self.say({"type": "subscribe", "keys": keys, "client_id": client_id})

    async def ack(self) -> None:
        await self.say({"type": "ack"})

    async def take(self) -> str:
        """Receive a run and acknowledge it; return its id."""
        run = await self.hear()
        await self.ack()
        return run["id"]

    async def hears_nothing(self, seconds: float = 0.2) -> bool:
        """Say whether nothing comes for a while."""
        try:
            await self.hear(seconds)
        except TimeoutError:
            return True
        return False

    async def closed(self) -> tuple[int, str]:
        """Return the code and reason of the close that comes next."""
        with pytest.raises(ConnectionClosed) as closed:
            await self.hear()
        close = closed.value.rcvd
        assert close is not None, "closed without a word"
        return close.code, close.reason

    def cut(self) -> None:
        """Break the connection without a word."""
        self.socket.transport.abort()


@asynccontextmanager
async def world(path: Path, *, token: str | None = None, **timers: Any) -> AsyncGenerator[World]:
    """A broker on a database of a test's own; a file that is there already is taken up."""
    if not path.exists():
        new_database(path.parent).rename(path)
    settings = Settings(
        port=0,
        db=f"sqlite:///{path}",
        token=token,
        timers=Timers(**{"drain": 0.0, **timers}),
        services=ServicesSection(late=False),
    )
    listener = bind(settings.host, settings.port)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        async with (
            running_broker(settings, path, SystemClock()) as broker,
            serving(create_app(broker.core), listener),
            httpx.AsyncClient(base_url=url_of(listener), headers=headers, trust_env=False, timeout=30) as http,
        ):
            yield World(url_of(listener), http, token, broker=broker)
    finally:
        listener.close()
