"""Prefect's real packages in processes of their own, against a real broker that notes each of their requests.

The packages lie in environments below `.cache/prefect`, which `make test-prefect` makes; nothing of them is ever
imported here. A `Town` is one broker and those who work with it; whatever a test started ends with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import certifi
import httpx
import pytest

from tests.faults.harness import Process, until

ROOT: Final = Path(__file__).parents[2]
PROGRAMS: Final = Path(__file__).with_name("programs")
#: Major versions, and where their environments are.
VERSIONS: Final = ("3", "2")
#: Whether the whole suite is wanted (`make test-prefect`), or only its smoke.
WHOLE: Final = os.environ.get("PREFECT_SUITE") == "whole"
#: Seconds after which what is waited for will not come. A client takes several to start, more beside others.
PATIENCE: Final = 60.0

#: What is answered 404 here and not at a Prefect server, whose block types are there from the start: here the
#: first client that wants one registers it.
LEARNED: Final = ("/api/block_types/slug/", "/api/block_schemas/checksum/")


def python_of(version: str) -> Path:
    """Return the Python that has this version of Prefect; the test is skipped where there is none."""
    python = ROOT / ".cache" / "prefect" / version / "bin" / "python"
    if not python.exists():
        pytest.skip(f"Prefect {version} is not installed: `make test-prefect` does that")
    return python


def one_certificate(folder: Path) -> Path:
    """Return a file with one certificate, which nobody uses.

    A client reads all authorities for each call of a task, and for each run, also where it speaks plain HTTP: that
    is most of what it does, and the tests would take three times as long.
    """
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    inner = Path(certifi.where()).read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    file = folder / "authority.pem"
    file.write_text(f"{begin}{inner}{end}\n", encoding="ascii")
    return file


class Town:
    """A broker, its database, and clients of one version of Prefect."""

    def __init__(self, folder: Path, version: str, settings: dict[str, str], auth: str | None) -> None:
        self.folder = folder
        self.version = version
        self.port = 0
        self.auth = auth
        self.notes = folder / "notes"
        #: While this file is there the broker commits no end that it is told by an event; then it says `held`.
        self.hold = folder / "hold"
        self._python = python_of(version)
        self._settings = settings
        self._record = folder / "record"
        self._certificate = one_certificate(folder)
        self._processes: list[Process] = []
        self._brokers: list[Process] = []
        #: A run as this version creates it, with parameters that its worker finds.
        self.template: dict[str, Any] = {}

    async def broker(self) -> Process:
        """Start the broker, again and again on the same port and database."""
        token = {} if self.auth is None else {"RUNLANE_TOKEN": self.auth}
        records = {"RECORD": str(self._record), "HOLD": str(self.hold)}
        environment = {**records, "PYTHONPATH": str(ROOT), **self._settings, **token}
        program = PROGRAMS / "recording_broker.py"
        database = f"sqlite:///{self.folder / 'runlane.db'}"
        broker = await self._run("broker", [sys.executable], [program, self.port, database], environment)
        self._brokers.append(broker)
        self.port = int((await broker.line(r"listening on http://[^:]+:(\d+)", PATIENCE))[1])
        return broker

    async def prefect_server(self) -> None:
        """Start Prefect's own server instead; returns when it answers."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        records = {"RECORD": str(self._record), "PORT": str(self.port)}
        server = await self.client("server", PROGRAMS / "prefect_server.py", **records)
        await server.line("Application startup complete", 2 * PATIENCE)

    async def worker(self, name: str = "worker", *tasks: str, limit: int = 10, port: int | None = None) -> Process:
        """Start a worker; returns when it is subscribed."""
        before = self._subscribed()
        worker = await self.client(name, PROGRAMS / "worker.py", *tasks, port=port, LIMIT=str(limit))

        def is_subscribed() -> bool:
            assert worker.is_running, f"the worker ended:\n{worker.log}"
            return self._subscribed() > before

        await until(is_subscribed, PATIENCE)
        return worker

    def _subscribed(self) -> int:
        return sum(broker.log.count(" subscribed") for broker in self._brokers)

    async def kill_broker(self) -> None:
        """kill -9."""
        await self._brokers[-1].kill()

    async def boxed(self, name: str, box: Sequence[str], python: Path) -> Process:
        """Start a worker in a box; returns when it is subscribed."""
        before = self._subscribed()
        program = [*box, str(python)]
        worker = await self._run(name, program, [PROGRAMS / "worker.py"], self.environment() | {"LIMIT": "4"})
        await until(lambda: self._subscribed() > before, PATIENCE)
        return worker

    async def client(self, name: str, *arguments: object, port: int | None = None, **environment: str) -> Process:
        """Start a program of a client."""
        return await self._run(name, [str(self._python)], arguments, self.environment(port) | environment)

    def environment(self, port: int | None = None) -> dict[str, str]:
        """Return what a client finds in its environment."""
        return {
            "DO_NOT_TRACK": "1",
            "NOTES": str(self.notes),
            "PREFECT_API_SSL_CERT_FILE": str(self._certificate),
            "PREFECT_API_URL": f"http://127.0.0.1:{port or self.port}/api",
            "PREFECT_EXPERIMENTAL_ENABLE_TASK_SCHEDULING": "1",
            "PREFECT_HOME": str(self.folder / "home"),
            "PREFECT_LOCAL_STORAGE_PATH": str(self.folder / "storage"),
            "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PYTHONWARNINGS": "ignore",
            **({} if self.auth is None else {"PREFECT_API_AUTH_STRING": self.auth}),
        }

    async def submit(self, what: str, *rest: object) -> list[list[Any]]:
        """Run `programs/submit.py`, return what it has printed."""
        number = len(self._processes)
        process = await self.client(f"submit-{number}", PROGRAMS / "submit.py", what, *rest)
        code = await process.wait(5 * PATIENCE)
        assert code == 0, process.log
        return [json.loads(line) for line in process.log.splitlines() if line.startswith('["')]

    async def calls(self, *calls: tuple[Any, ...]) -> list[list[Any]]:
        """Submit calls (a task's name, and its arguments), and wait for all."""
        return await self.submit("calls", json.dumps([[name, arguments] for name, *arguments in calls]))

    async def detached(self, *calls: tuple[Any, ...]) -> list[str]:
        """Submit calls, and wait for none; their ids."""
        said = await self.submit("detached", json.dumps([[name, arguments] for name, *arguments in calls]))
        return [run_id for _, run_id in said]

    async def get(self, path: str) -> Any:
        """Ask the broker."""
        return await self._ask("GET", path, None)

    async def post(self, path: str, body: Any) -> Any:
        """Ask the broker, or tell it."""
        return await self._ask("POST", path, body)

    async def delete(self, path: str) -> None:
        """Have the broker delete something."""
        await self._ask("DELETE", path, None)

    async def states(self, run_ids: list[str]) -> list[str]:
        """Return the types of the runs' states."""
        return [(await self.get(f"/api/task_runs/{run_id}"))["state_type"] for run_id in run_ids]

    async def all_completed(self, run_ids: list[str], seconds: float = PATIENCE) -> None:
        """Wait until all of these runs are COMPLETED."""
        deadline = asyncio.get_running_loop().time() + seconds
        while (states := await self.states(run_ids)) != ["COMPLETED"] * len(run_ids):
            assert asyncio.get_running_loop().time() < deadline, states
            await asyncio.sleep(0.1)

    def noted(self, what: str) -> list[str]:
        """Return the names of which something was noted, in order."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [line.split()[0] for line in lines if line.split()[1] == what]

    def requests(self) -> list[tuple[str, str, int]]:
        """Return all requests: method, path, status."""
        lines = self._record.read_text().splitlines() if self._record.exists() else []
        return [(method, path, status) for method, path, _, status in map(json.loads, lines)]

    def answers(self) -> dict[tuple[str, str], set[int]]:
        """Return with which statuses each request was answered: method, and path without its ids."""
        found: dict[tuple[str, str], set[int]] = {}
        for method, path, status in self.requests():
            found.setdefault((method, re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|sha256:\w+", "ID", path)), set()).add(
                status
            )
        return found

    def holes(self) -> list[tuple[str, str, int]]:
        """Return the requests that a Prefect server would have answered otherwise."""
        return [
            (method, path, status)
            for method, path, status in self.requests()
            if _is_hole(method, status) and not path.startswith(LEARNED)
        ]

    async def close(self) -> None:
        """End whatever was started."""
        for process in self._processes:
            await process.kill()

    async def _run(self, name: str, program: list[str], arguments: Any, environment: dict[str, str]) -> Process:
        process = await Process.start(self.folder / f"{name}.log", arguments, environment, program=program)
        self._processes.append(process)
        return process

    async def _ask(self, method: str, path: str, body: Any) -> Any:
        headers = {} if self.auth is None else {"Authorization": f"Bearer {self.auth}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", trust_env=False) as client:
            answer = await client.request(method, path, json=body, headers=headers)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None


def _is_hole(method: str, status: int) -> bool:
    return status != 101 if method == "WS" else status in (404, 405) or status >= 500


@asynccontextmanager
async def town(
    folder: Path,
    version: str,
    *,
    auth: str | None = None,
    start: bool = True,
    judged: bool = True,
    **settings: str,
) -> AsyncGenerator[Town]:
    """Open a town. At the end, if it is `judged`, no request may have found a hole."""
    folder.mkdir(exist_ok=True)
    opened = Town(folder, version, settings, auth)
    try:
        if start:
            await opened.broker()
        yield opened
        assert not judged or opened.holes() == []
    finally:
        await opened.close()
