"""Real processes and how to hurt them, and the audit of what they leave behind.

A `Site` is one broker, its database, its workers and a file in which tasks note each execution. Whatever a test
started is killed and reaped when its site ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from runlane import Client
from runlane.protocol import codec
from runlane.protocol import messages as m
from runlane.protocol.ids import uuid7
from runlane.protocol.limits import MAX_MESSAGE_BYTES
from runlane.protocol.states import FINAL, StateType
from runlane.settings import Settings, submission_url, worker_url
from runlane_broker.orchestration.states import LEASABLE, TRANSITIONS

T = TypeVar("T")
F = TypeVar("F", bound=m.Frame)

#: Whether the long forms are wanted: the sizes of the acceptance, which take minutes.
LONG = os.environ.get("FAULTS_LONG") == "1"
#: Seconds after which what is waited for will not come.
PATIENCE = 30.0
TASKS = Path(__file__).with_name("tasks.py")
#: Timers for tests that wait for a lease to end.
QUICK_TIMERS = {"beat": 0.5, "idle_beat": 1.0, "silent": 1.5, "idle_silent": 3.0, "resume": 1.0, "sweep": 0.1}


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine."""
    return asyncio.run(main)


async def until(condition: Callable[[], T], seconds: float = PATIENCE, interval: float = 0.02) -> T:
    """Wait until the condition returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"in vain: {condition!r}"
        await asyncio.sleep(interval)
    return found


async def within(seconds: float, awaitable: Awaitable[T]) -> T:
    """Wait for this, but not forever."""
    async with asyncio.timeout(seconds):
        return await awaitable


def new_run(key: str, /, **arguments: Any) -> m.NewRun:
    """Return a run to submit, with its parameters."""
    return m.NewRun(id=uuid7(), task_key=key, parameters=msgspec.Raw(msgspec.json.encode(arguments)))


# --- Processes --------------------------------------------------------------------------------------------


class Process:
    """A process of ours and its log."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, begin: int) -> None:
        self._process = process
        self._log = log
        self._begin = begin

    @classmethod
    async def start(
        cls,
        log: Path,
        arguments: Iterable[object],
        environment: Mapping[str, str],
        module: str = "runlane",
        program: Iterable[str] | None = None,
    ) -> Process:
        """Run a module (`runlane`), or another program; no setting of the caller's environment gets through."""
        command = (sys.executable, "-m", module) if program is None else program
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RUNLANE_")}
        begin = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command, *map(str, arguments),
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, env={**clean, **environment},
            )  # fmt: skip
        return cls(process, log, begin)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    @property
    def log(self) -> str:
        """What this process has said."""
        return self._log.read_bytes()[self._begin :].decode("utf-8", "replace")

    async def line(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        """Wait for a line of the log."""

        def look() -> re.Match[str] | None:
            found = re.search(pattern, self.log)
            if found or self.is_running:
                return found
            raise AssertionError(f"ended with {self._process.returncode}: no {pattern!r} in:\n{self.log}")

        try:
            return await until(look, seconds)
        except AssertionError as exc:
            if not self.is_running:
                raise
            raise AssertionError(f"no {pattern!r} in:\n{self.log}") from exc

    def signal(self, number: signal.Signals) -> None:
        if self.is_running:
            self._process.send_signal(number)

    async def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for its end, return its exit code."""
        return await within(seconds, self._process.wait())

    async def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        await self.wait()

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def rss(self) -> int:
        """Return the resident memory, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


async def get(port: int, path: str) -> int | None:
    """Return the status of an HTTP GET, None where nobody listens."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return None
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readline()
        return int(head.split()[1]) if head else None
    except OSError:
        return None
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


# --- The site ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Execution:
    """One call of a task, as it noted it itself. Times are in seconds: monotonic, and of the day."""

    run: str
    attempt: int
    pid: int
    started: float
    started_at: float
    ended: float | None


#: How often the broker's auditor looks.
OFTEN: Final = {"RUNLANE_SERVICES_AUDIT_INTERVAL": "0.3"}


class Site:
    """Starts brokers on one port and one database, and workers for them."""

    def __init__(self, folder: Path, timers: Mapping[str, float]) -> None:
        self.folder = folder
        self.database = folder / "runlane.db"
        self._executions = folder / "executions"
        self._timers = {f"RUNLANE_TIMERS_{name.upper()}": str(value) for name, value in timers.items()}
        #: What every process gets in its environment, beside what it is started with.
        self.environment: dict[str, str] = {}
        self._processes: list[Process] = []
        # Bound and never listening: nobody else gets this port while the broker is down.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def launch(self, name: str, *arguments: object, module: str = "runlane", **environment: str) -> Process:
        """Start a process, and wait for nothing."""
        both = {**self.environment, **environment}
        process = await Process.start(self.folder / f"{name}.log", arguments, both, module)
        self._processes.append(process)
        return process

    async def broker(self, seconds: float = PATIENCE) -> Process:
        """Start the broker, again and again on the same port; returns when it is ready."""
        database = f"sqlite:///{self.database}"
        broker = await self.launch(
            "broker", "serve", "--port", self.port, "--db", database, **self._timers, **OFTEN
        )
        await broker.line("listening on", seconds)
        return broker

    async def worker(self, limit: int = 10, name: str = "worker", url: str | None = None) -> Process:
        """Start a worker; returns when it is subscribed."""
        worker = await self.launch(
            name, "worker", TASKS, "--limit", limit, "--url", url or self.url, EXECUTIONS=str(self._executions)
        )
        await worker.line("subscribed as session")
        return worker

    def client(self, url: str | None = None) -> Client:
        """Return a client of the SDK."""
        return Client(Settings(url=url or self.url))

    async def ready(self, seconds: float = PATIENCE) -> float:
        """Wait for /readyz to say yes; return the seconds that took."""
        since = time.monotonic()
        while await get(self.port, "/readyz") != 200:
            assert time.monotonic() - since < seconds, "the broker does not become ready"
            await asyncio.sleep(0.005)
        return time.monotonic() - since

    def executions(self) -> list[Execution]:
        """Return what the tasks noted, in the order of their starts."""
        if not self._executions.exists():
            return []
        starts: dict[tuple[Any, ...], dict[str, Any]] = {}
        ends: dict[tuple[Any, ...], int] = {}
        # A line that is being written is left for the next look.
        for text in self._executions.read_text(encoding="ascii").splitlines(keepends=True):
            if not text.endswith("\n"):
                continue
            line = json.loads(text)
            key = (line["run"], line["attempt"], line["pid"])
            if line["event"] == "end":
                ends[key] = line["monotonic_ns"]
                continue
            assert key not in starts, f"one lease was executed twice: {key}"
            starts[key] = line
        return [
            Execution(
                *key, line["monotonic_ns"] / 1e9, line["time_ns"] / 1e9, ends[key] / 1e9 if key in ends else None
            )
            for key, line in starts.items()
        ]

    def counts(self) -> Counter[str]:
        """Return how often each run was executed."""
        return Counter(execution.run for execution in self.executions())

    async def started(self, ids: Collection[str], seconds: float = PATIENCE) -> None:
        """Wait until all of these runs execute, or have."""
        await until(lambda: set(ids) <= self.counts().keys(), seconds)

    def read(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Look into the database while the broker uses it."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=5)) as connection:
            return connection.execute(query, parameters).fetchall()

    async def state(self, run_id: str, name: str, seconds: float = PATIENCE) -> None:
        """Wait until the run's current state has this name."""
        query = "SELECT 1 FROM task_run WHERE id = ? AND state_name = ?"
        await until(lambda: self.read(query, run_id, name), seconds)

    async def audit(self, ids: Collection[str], states: Mapping[str, int] | None = None) -> dict[str, Row]:
        """Kill all processes and look at what they leave; see `audit`. By default all runs are completed."""
        await self.end()
        rows = audit(self.database, ids)
        expected = {"COMPLETED": len(ids)} if states is None else states
        assert Counter(row.state for row in rows.values()) == expected
        return rows

    async def end(self) -> None:
        """Kill and reap whatever still runs. No broker's auditor has found anything."""
        for process in self._processes:
            await process.kill()
        for process in self._processes:
            assert "it was set right" not in process.log

    async def close(self) -> None:
        await self.end()
        self._reserved.close()


@asynccontextmanager
async def site(folder: Path, **timers: float) -> AsyncGenerator[Site]:
    """Have a site in this folder; nothing is started yet."""
    place = Site(folder, timers)
    try:
        yield place
    finally:
        await place.close()


async def ends_of(client: Client, ids: Iterable[str]) -> list[m.RunFinished]:
    """Wait for the ends of these runs, as a producer does."""
    return await asyncio.gather(*(client.watch(run_id) for run_id in ids))


# --- The audit --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A run as the database has it, with its history: the names of its states, oldest first."""

    state: str
    name: str
    attempt: int
    failures: int
    losses: int
    history: list[str] = field(default_factory=list)


_RUNS = "SELECT id, state_id, state_type, state_name, attempt, failures, losses, session_id FROM task_run"
_STATES = "SELECT task_run_id, id, type, name, attempt FROM task_run_state ORDER BY task_run_id, timestamp"


def audit(database: Path, ids: Collection[str]) -> dict[str, Row]:
    """Hold a stopped broker's database to all that must be true of it; return its runs.

    Each submitted run is there once, and no other; the last state of its history is its own; each state may
    follow the one before it; it has as many attempts as leases, numbered 1, 2, 3 …; it ended once at most; it
    is leased if, and only if, its state says so; and the file is sound.
    """
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        runs = connection.execute(_RUNS).fetchall()
        states = connection.execute(_STATES).fetchall()
        payloads = [row[0] for row in connection.execute("SELECT task_run_id FROM task_run_payload")]
    submitted = set(ids)
    assert len(submitted) == len(ids) == len(runs) == len(payloads)
    assert {row[0] for row in runs} == submitted == set(payloads)
    histories: dict[str, list[tuple[Any, ...]]] = {}
    for run_id, *state in states:
        histories.setdefault(run_id, []).append(tuple(state))
    return {row[0]: _checked(row, histories[row[0]]) for row in runs}


def _checked(run: tuple[Any, ...], history: list[tuple[Any, ...]]) -> Row:
    run_id, state_id, type_, name, attempt, failures, losses, session = run
    told = f"run {run_id}: {[state[2] for state in history]}"
    assert history[-1][:3] == (state_id, type_, name), told
    before: StateType | None = None
    for (_, _, name_before, _), (_, kind, label, _) in pairwise([(None, None, None, None), *history]):
        if label == "Late":  # it is where it was
            assert (name_before, kind) == ("Scheduled", before), told
            continue
        assert StateType(kind) in TRANSITIONS[before], told
        before = StateType(kind)
    leases = [lease for _, kind, _, lease in history if kind == StateType.PENDING]
    assert leases == list(range(1, attempt + 1)), told
    assert sum(kind in FINAL for _, kind, _, _ in history) == (type_ in FINAL), told
    assert (session is not None) == (type_ in LEASABLE), told
    return Row(type_, name, attempt, failures, losses, [state[2] for state in history])


# --- Sockets spoken by hand -------------------------------------------------------------------------------


class Wire:
    """An authenticated connection without an SDK behind it: it sends and hears what the test says."""

    def __init__(self, socket: ClientConnection, decoder: codec.FrameDecoder[Any]) -> None:
        self._socket = socket
        self._decoder = decoder
        self._frames: list[Any] = []

    async def send(self, *frames: m.Frame) -> None:
        for message in codec.pack(codec.encode(frame) for frame in frames):
            await self._socket.send(message, text=True)

    async def frames(self) -> list[Any]:
        """Wait for a message, return its frames, beats left out."""
        frames, self._frames = self._frames, []
        while not frames:
            message = await within(PATIENCE, self._socket.recv(decode=False))
            frames = [frame for frame in self._decoder.decode(message) if not isinstance(frame, m.Beat)]
        return frames

    async def expect(self, kind: type[F]) -> F:
        """Return the next frame, which must be of this kind."""
        first, *self._frames = await self.frames()
        assert isinstance(first, kind), first
        return first

    async def closed(self) -> int | None:
        """Wait until the broker closes; return its code."""
        with suppress(ConnectionClosed):
            while True:
                await self.frames()
        return self._socket.close_code

    def abort(self) -> None:
        """Break the connection."""
        self._socket.transport.abort()


@asynccontextmanager
async def _wire(url: str, decoder: codec.FrameDecoder[Any]) -> AsyncGenerator[Wire]:
    async with connect(
        url, subprotocols=[Subprotocol(m.SUBPROTOCOL)], compression=None, max_size=MAX_MESSAGE_BYTES,
        ping_interval=None, close_timeout=0.5,
    ) as socket:  # fmt: skip
        wire = Wire(socket, decoder)
        await wire.send(m.Auth())
        await wire.expect(m.AuthSuccess)
        yield wire


class Place(Protocol):
    """Where a broker can be found."""

    @property
    def url(self) -> str: ...


def producer_wire(place: Place) -> Any:
    """Connect to the submission socket."""
    return _wire(submission_url(Settings(url=place.url)), codec.SUBMISSION_DOWN)


def worker_wire(place: Place) -> Any:
    """Connect to the worker socket."""
    return _wire(worker_url(Settings(url=place.url)), codec.WORKER_DOWN)


async def subscribed(wire: Wire, key: str, earlier: m.Subscribed | None = None, *held: m.HeldRun) -> m.Subscribed:
    """Subscribe by hand, or resume the session of an earlier answer; return the answer."""
    if earlier is None:
        await wire.send(m.Subscribe(client_id="by hand", keys=(key,), limit=1))
    else:
        await resume(wire, key, earlier, *held)
    return await wire.expect(m.Subscribed)


async def resume(wire: Wire, key: str, earlier: m.Subscribed, *held: m.HeldRun) -> None:
    """Ask for the session of an earlier answer, holding these runs."""
    await wire.send(
        m.Subscribe(
            client_id="by hand", keys=(key,), limit=1,
            session=earlier.session, resume_token=earlier.resume_token, running=held,
        )
    )  # fmt: skip
