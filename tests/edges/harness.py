"""A real broker on a thread of its own, peers that say whatever a test wants, and a canary that must survive."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import websockets.sync.client
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from runlane.config import ServicesSection
from runlane.protocol import codec, limits
from runlane.protocol.errors import FrameRefused
from runlane.protocol.ids import uuid7
from runlane.protocol.messages import SUBPROTOCOL
from runlane_broker import logs
from runlane_broker.app import create_app, running_broker
from runlane_broker.clock import SystemClock
from runlane_broker.core.core import Core
from runlane_broker.serving.listening import bind, url_of
from runlane_broker.serving.server import serving
from runlane_broker.settings import Settings, Timers
from tests.support import new_database

T = TypeVar("T")
Frame = dict[str, Any]

WORKER: Final = "/api/task_runs/subscriptions/scheduled"
SUBMISSION: Final = "/api/task_runs/submissions"
TOKEN: Final = "a-token-of-the-edge-tests"
#: Seconds after which what a test waits for will never come.
PATIENCE: Final = 5.0
#: The `n` of the beat that is sent behind what a test sends: its echo says that all of that has been read.
SENTINEL: Final = 987_654
#: Nothing changes by itself while a test looks.
SERVICES = ServicesSection(late=False)
#: Nobody is deaf or silent while a test looks at something else.
TIMERS: Final = Timers(idle_beat=600.0, silent=600.0, idle_silent=3600.0, start=600.0, drain=0.0)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine; one that hangs fails."""

    async def bounded() -> T:
        async with asyncio.timeout(3 * PATIENCE):
            return await main

    return asyncio.run(bounded())


class Records(logging.Handler):
    """What is logged, as the broker's own handler would get it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.addFilter(logs._PeersMistakes())
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def lines(self) -> list[str]:
        """What would stand in the log."""
        return [logs.OneLine().format(record) for record in self.records]

    def faults(self) -> list[str]:
        """What must never stand there: errors, and tracebacks of whatever level."""
        bad = [record for record in self.records if record.levelno >= logging.ERROR or record.exc_info]
        return [logs.OneLine().format(record) for record in bad]


class Host:
    """A broker as `runlane serve` starts it, on port 0 and a thread of its own."""

    def __init__(self, folder: Path, token: str | None = None) -> None:
        self.token = token
        self.path = new_database(folder)
        self.log = Records()
        self.core: Core
        self.app: Starlette
        self.url = ""
        self._started = threading.Event()
        self._failed: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def start(self) -> None:
        logging.getLogger().addHandler(self.log)
        self._thread.start()
        assert self._started.wait(PATIENCE), "the broker did not start"
        if self._failed is not None:
            raise self._failed
        authorization = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        self.http = httpx.Client(base_url=self.url, headers=authorization, timeout=PATIENCE, trust_env=False)
        self.canary = Canary(self)

    def stop(self) -> None:
        self.canary.close()
        self.http.close()
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the broker did not stop"
        logging.getLogger().removeHandler(self.log)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as exc:
            self._failed = exc
            self._started.set()
            raise

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        settings = Settings(
            port=0, db=f"sqlite:///{self.path}", token=self.token, timers=TIMERS, services=SERVICES
        )
        listener = bind(settings.host, settings.port)
        try:
            async with running_broker(settings, self.path, SystemClock()) as broker:
                self.core = broker.core
                self.app = create_app(broker.core)
                async with serving(self.app, listener):
                    self.url = url_of(listener)
                    self._started.set()
                    await self._stop.wait()
        finally:
            listener.close()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the broker's event loop."""

        async def called() -> T:
            return function(*args)

        return self.wait(called())

    def wait(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the broker's event loop."""
        return asyncio.run_coroutine_threadsafe(main, self.loop).result(PATIENCE)

    def state_of(self, run_id: str) -> tuple[str, str]:
        """Return a run's state as the HTTP edge shows it."""
        body = self.http.get(f"/api/task_runs/{run_id}").json()
        return body["state_type"], body["state_name"]

    def history_of(self, run_id: str) -> list[str]:
        """Return the names of a run's states, oldest first."""
        return [state.name for state in self.wait(self.core.store.history(run_id))]

    # Health --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Fail if what came before has left a mark: on the log, on a slot, or on the canary."""
        assert self.http.get("/readyz").status_code == 200
        self.canary.flies()
        self.wait(self._settled())
        assert self.wait(self.core.audit.run(settling=0.0)) == []
        gc.collect()  # a task whose exception nobody looked at says so when it is collected
        gc.freeze()  # the next collection need not look at all this again
        assert self.log.faults() == []
        self.log.records.clear()

    async def _settled(self) -> None:
        """Wait for what a test's peers leave behind to be cleared away."""
        try:
            async with asyncio.timeout(PATIENCE):
                while self._remains():
                    await asyncio.sleep(0.001)
        except TimeoutError:
            raise AssertionError(f"left behind: {self._remains()}") from None

    def _remains(self) -> list[str]:
        core = self.core
        connected = [session for session in core.registry if session.port is not None]
        remains = [
            f"{session!r} has {sorted(core.dispatcher.in_flight(session.id))}"
            for session in connected
            if set(session.held) != set(core.dispatcher.in_flight(session.id))
        ]
        if len(connected) > 1:
            remains.append(f"{len(connected)} connected sessions")
        if "<Hub 0 runs watched" not in repr(core.hub):
            remains.append(repr(core.hub))
        if core.store.waiting or core.store.waiting_bytes:
            remains.append(f"{core.store.waiting} rows and {core.store.waiting_bytes} bytes waiting")
        return remains


class Canary:
    """A worker with one slot and a producer: a run handed in before each case must come through after it."""

    def __init__(self, host: Host) -> None:
        self.key = "edge.canary"
        self._host = host
        self._connections = ExitStack()
        self._worker = self._connect(WORKER)
        self._producer = self._connect(SUBMISSION)
        self._say(self._worker, type="subscribe", client_id="canary", keys=[self.key], limit=0)
        assert self._hear(self._worker)["type"] == "subscribed"
        self._run_id = ""

    def _connect(self, path: str) -> websockets.sync.client.ClientConnection:
        connecting = websockets.sync.client.connect(
            f"ws://127.0.0.1:{self._host.port}{path}",
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            close_timeout=1,
            ping_interval=None,  # its thread would draw random numbers, which Hypothesis notices in other tests
            proxy=None,
        )
        client = self._connections.enter_context(connecting)
        self._say(client, type="auth", token=self._host.token)
        assert self._hear(client)["type"] == "auth_success"
        return client

    def _say(self, client: websockets.sync.client.ClientConnection, **frame: Any) -> None:
        client.send(json.dumps(frame))

    def _hear(self, client: websockets.sync.client.ClientConnection) -> Frame:
        return json.loads(client.recv(timeout=PATIENCE))

    def waits(self) -> None:
        """Hand in a run; nobody takes it yet."""
        self._run_id = uuid7()
        item = {"id": self._run_id, "task_key": self.key, "parameters": {"n": 2**64}}
        self._say(self._producer, type="submit", ref=1, runs=[item])
        assert self._hear(self._producer)["runs"] == [{"id": self._run_id, "created": True}]
        self._say(self._producer, type="watch", ids=[self._run_id])

    def flies(self) -> None:
        """The run is delivered, executed, recorded and told of: the only slot was free, and is again."""
        self._say(self._worker, type="limit", limit=1)
        pushed = self._hear(self._worker)
        assert pushed["type"] == "runs", pushed
        assert [(r["id"], r["attempt"], r["parameters"]) for r in pushed["runs"]] == [
            (self._run_id, 1, {"n": 2**64})
        ]
        lease = {"id": self._run_id, "attempt": 1}
        state = {"type": "COMPLETED"}
        self._worker.send(
            json.dumps([{"type": "started", **lease}, {"type": "finished", **lease, "state": state, "result": 1}])
        )
        assert self._hear(self._worker) == {"type": "recorded", "runs": [lease]}
        self._say(self._worker, type="limit", limit=0)
        finished = self._hear(self._producer)
        assert (finished["type"], finished["id"], finished["result"]) == ("finished", self._run_id, 1)

    def close(self) -> None:
        for client in (self._worker, self._producer):
            self._say(client, type="quit")
        self._connections.close()


# --- Peers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Close:
    """How a connection was, or should be, closed. An expected `reason` is a part of the real one."""

    code: int
    reason: str = ""


#: No close frame came.
BROKEN: Final = Close(1006)


class Peer:
    """A WebSocket that sends what it is told, and holds what it hears to the protocol."""

    def __init__(self, socket: ClientConnection, path: str) -> None:
        self.socket = socket
        self._decoder: Any = codec.WORKER_DOWN if path == WORKER else codec.SUBMISSION_DOWN
        self._heard: list[Frame] = []

    async def say(self, *messages: Any) -> None:
        """Send messages: texts and bytes as they are, anything else as JSON."""
        for message in messages:
            raw = isinstance(message, str | bytes)
            await self.socket.send(message if raw else json.dumps(message))

    async def hear(self) -> Frame:
        """Return the next frame. Raises `ConnectionClosed`."""
        while not self._heard:
            async with asyncio.timeout(PATIENCE):
                text = await self.socket.recv(decode=False)
            assert len(text) <= limits.MAX_MESSAGE_BYTES, f"a message of {len(text)} bytes"
            for frame in self._decoder.decode(text):
                assert not isinstance(frame, FrameRefused), frame.message
            data = json.loads(text)
            self._heard.extend(data if isinstance(data, list) else [data])
        return self._heard.pop(0)

    async def expect(self, type_: str, **fields: Any) -> Frame:
        """Return the next frame, which must be of this type and have these fields."""
        frame = await self.hear()
        assert_like(frame, {"type": type_, **fields})
        return frame

    async def answers(self, count: int = 0) -> list[Frame | Close]:
        """Return what answers all that was sent: up to a beat's echo and `count` frames, or to the close."""
        heard: list[Frame | Close] = []
        echoed = False
        try:
            await self.say({"type": "beat", "n": SENTINEL})
            while not echoed or len(heard) < count:
                frame = await self.hear()
                if frame == {"type": "beat", "n": SENTINEL}:
                    echoed = True
                else:
                    heard.append(frame)
        except ConnectionClosed:
            heard.append(await self.closed())
        return heard

    async def closed(self) -> Close:
        """Return how the broker closed the connection; frames before that are passed over."""
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    await self.socket.recv(decode=False)
            except ConnectionClosed as exc:
                return BROKEN if exc.rcvd is None else Close(exc.rcvd.code, exc.rcvd.reason)

    async def subscribe(self, *keys: str, limit: int = 1, **fields: Any) -> Frame:
        """Open (or resume) a session."""
        await self.say({"type": "subscribe", "client_id": "edge", "keys": keys, "limit": limit, **fields})
        return await self.expect("subscribed")

    async def submit(self, *runs: Frame, ref: int | str = 1) -> list[Frame]:
        """Submit runs, return the broker's answer to each."""
        await self.say({"type": "submit", "ref": ref, "runs": runs})
        return (await self.expect("submitted", ref=ref))["runs"]

    async def pushed(self, count: int = 1) -> list[Frame]:
        """Return the next runs that are pushed."""
        runs: list[Frame] = []
        while len(runs) < count:
            runs += (await self.expect("runs"))["runs"]
        assert len(runs) == count
        return runs

    async def finish(self, run: Frame, type_: str = "COMPLETED", **fields: Any) -> None:
        """Report the end of a run and take its verdict."""
        lease = {"id": run["id"], "attempt": run["attempt"]}
        await self.say({"type": "finished", **lease, "state": {"type": type_}, **fields})
        await self.expect("recorded", runs=[lease])


@asynccontextmanager
async def dial(
    host: Host,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] | None = (SUBPROTOCOL,),
    origin: str | None = None,
    **options: Any,
) -> AsyncIterator[Peer]:
    """A socket that has said nothing yet."""
    async with connect(
        f"ws://127.0.0.1:{host.port}{path}",
        subprotocols=None if subprotocols is None else [Subprotocol(name) for name in subprotocols],
        additional_headers=headers,
        origin=origin,  # type: ignore[arg-type]
        compression=None,
        max_size=None,
        open_timeout=PATIENCE,
        close_timeout=1,
        proxy=None,
        **options,
    ) as client:
        yield Peer(client, path)


@asynccontextmanager
async def authenticated(host: Host, path: str) -> AsyncIterator[Peer]:
    """A socket whose `auth` is answered."""
    async with dial(host, path) as peer:
        await peer.say({"type": "auth", "token": host.token})
        await peer.expect("auth_success")
        yield peer


@asynccontextmanager
async def producer(host: Host) -> AsyncIterator[Peer]:
    """A submission socket, ready."""
    async with authenticated(host, SUBMISSION) as peer:
        yield peer


@asynccontextmanager
async def worker(host: Host, *keys: str, limit: int = 1, leave: bool = True) -> AsyncIterator[Peer]:
    """A worker's socket with a session, which ends with it."""
    async with authenticated(host, WORKER) as peer:
        await peer.subscribe(*keys or (new_key(),), limit=limit)
        yield peer
        if leave:
            await quit_(peer)


async def quit_(peer: Peer) -> None:
    """End a session cleanly."""
    try:
        await peer.say({"type": "quit"})
    except ConnectionClosed:
        return
    assert await peer.closed() == Close(1000, "goodbye")


#: How a peer gets to each place of the conversation, and on which socket that is.
PHASES: Final[Mapping[str, Callable[[Host], Any]]] = {
    "worker connected": lambda host: dial(host, WORKER),
    "worker authenticated": lambda host: authenticated(host, WORKER),
    "worker subscribed": lambda host: worker(host, leave=False),
    "producer connected": lambda host: dial(host, SUBMISSION),
    "producer ready": producer,
}


def new_key() -> str:
    """A task key of this test's own."""
    return f"edge.{uuid7()}"


def new_run(key: str = "edge.nobody", **fields: Any) -> Frame:
    """A run to submit."""
    return {"id": uuid7(), "task_key": key, **fields}


def assert_like(actual: Any, expected: Any) -> None:
    """Compare; a mapping may have more fields than are expected."""
    if isinstance(expected, dict):
        assert isinstance(actual, dict), actual
        for name, value in expected.items():
            if value is ...:
                assert name in actual, f"{name} is missing in {actual}"
            else:
                assert name in actual or value is None, f"{name} is missing in {actual}"
                assert_like(actual.get(name), value)
    elif isinstance(expected, Close):
        assert isinstance(actual, Close), actual
        assert actual.code == expected.code, actual
        assert expected.reason in actual.reason, actual
    elif isinstance(expected, list):
        assert isinstance(actual, list), actual
        assert len(actual) == len(expected), actual
        for one, other in zip(actual, expected, strict=True):
            assert_like(one, other)
    else:
        assert actual == expected


def error(code: str, **fields: Any) -> Frame:
    """An expected `error` frame."""
    return {"type": "error", "code": code, **fields}


def text_of(fields: Mapping[str, str]) -> str:
    """Return a JSON object whose values are given as JSON: they may be such that no library would write them."""
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in fields.items()) + "}"


# --- Bytes ---------------------------------------------------------------------------------------------------


async def talk(host: Host, head: bytes, *rest: bytes) -> bytes:
    """Send a request and, once it has a first answer, the rest; return all that comes until the broker closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    answer = b""
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(head)
            if rest:
                answer = await reader.readuntil(b"\r\n\r\n")
            for chunk in rest:
                writer.write(chunk)
                await writer.drain()
            return answer + await reader.read()
    except ConnectionError:
        return answer
    finally:
        writer.close()


def request(target: str, *headers: str, method: str = "GET", host: str = "127.0.0.1") -> bytes:
    """Return an HTTP request as it stands on the wire."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def upgrade(path: str, *headers: str, host: str = "127.0.0.1") -> bytes:
    """Return a WebSocket upgrade as it stands on the wire."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1")


def ws_frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Return a masked WebSocket frame of less than 126 bytes."""
    assert len(payload) < 126
    return bytes([(0x80 if fin else 0) | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def status_of(answer: bytes) -> int:
    """Return the status of an HTTP answer."""
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer[9:12])


def close_of(answer: bytes) -> int:
    """Return the code of the close frame that ends what a broker sent after an upgrade."""
    _, _, frames = answer.partition(b"\r\n\r\n")
    code = None
    while frames:
        opcode, size = frames[0] & 15, frames[1]
        start = 2
        if size == 126:
            size, start = int.from_bytes(frames[2:4], "big"), 4
        if opcode == 8:
            code = int.from_bytes(frames[start : start + 2], "big")
        frames = frames[start + size :]
    assert code is not None, answer
    return code


def free_port() -> int:
    """Return a port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


Answers = Iterable["Frame | Close"]
Step = Callable[[Peer], Awaitable[None]]
