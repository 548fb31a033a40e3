"""`runlane serve` that cannot start as told (2), or here and now (1): one line, no traceback; and its end."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import httpx
import pytest

import runlane
from runlane.logs import JsonFormatter
from runlane.protocol.closing import CloseCode
from runlane_broker import cli, logs, program
from runlane_broker.errors import StartupError
from runlane_broker.serving.listening import bind, url_of
from runlane_broker.settings import Settings, load
from runlane_broker.storage.lock import FileLock
from tests.support import new_database

from .harness import TOKEN, WORKER, Host, authenticated, free_port, new_key, run

PROGRAM = (sys.executable, "-m", "runlane", "serve")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In an empty folder, without anybody's settings, and with this process's logging as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    for variable in list(os.environ):
        if variable.startswith("RUNLANE_"):
            monkeypatch.delenv(variable)
    names = ("", "runlane", "uvicorn", "uvicorn.error", "alembic", "asyncio")
    levels = {name: logging.getLogger(name).level for name in names}
    logging.getLogger("runlane").setLevel(logging.ERROR)  # brokers of other tests may run in this process
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    yield
    root.handlers = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Call `runlane serve` here, where it must not get as far as its start line; return its code and its line."""

    def started(*_: Any) -> None:
        raise AssertionError("it has started")

    def call(*flags: str, **variables: str) -> tuple[int, str]:
        monkeypatch.setattr(program, "running_broker", started)
        monkeypatch.setenv("RUNLANE_PORT", "0")  # somebody may listen on the default one
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        try:
            code = cli.serve([*flags])
        except SystemExit as exc:  # from the parser
            code = int(str(exc.code))
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1, err
        assert err.startswith("runlane"), err
        assert "Traceback" not in err
        assert err.strip().isprintable(), err
        return code, err

    return call


# --- Told wrongly: 2 -------------------------------------------------------------------------------------------

SECRET = "correct-horse-battery"


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("RUNLANE_PROT", "1", "did you mean RUNLANE_PORT"),
        ("RUNLANE_DBS", "x", "did you mean RUNLANE_DB"),
        ("RUNLANE_TIMERS_BAET", "1", "did you mean RUNLANE_TIMERS_BEAT"),
        ("RUNLANE_", "1", "RUNLANE_"),
        ("RUNLANE_XYZZY", "1", "RUNLANE_XYZZY"),
        ("RUNLANE_port", "1", "RUNLANE_port"),
        ("RUNLANE_A\nB", "1", "RUNLANE_A"),
        ("RUNLANE_PORT", "http", "RUNLANE_PORT"),
        ("RUNLANE_PORT", "80.5", "RUNLANE_PORT"),
        ("RUNLANE_PORT", "-1", "port"),
        ("RUNLANE_PORT", "65536", "port"),
        ("RUNLANE_PORT", "9" * 5000, "port"),
        ("RUNLANE_PORT", "80\n80", "RUNLANE_PORT"),
        ("RUNLANE_WINDOW_SIZE", "many", "RUNLANE_WINDOW_SIZE"),
        ("RUNLANE_WINDOW_SIZE", "0", "window_size"),
        ("RUNLANE_WINDOW_SIZE", "100001", "window_size"),
        ("RUNLANE_MAX_LOSSES", "0", "max_losses"),
        ("RUNLANE_TIMERS_BEAT", "soon", "RUNLANE_TIMERS_BEAT"),
        ("RUNLANE_TIMERS_BEAT", "0", "timers.beat"),
        ("RUNLANE_TIMERS_BEAT", "-1", "timers.beat"),
        ("RUNLANE_TIMERS_BEAT", "nan", "timers.beat"),
        ("RUNLANE_TIMERS_BEAT", "3.1", "timers.silent"),
        ("RUNLANE_TIMERS_SILENT", "3.9", "timers.silent"),
        ("RUNLANE_TIMERS_SILENT", "inf", "timers.silent"),
        ("RUNLANE_TIMERS_SILENT", "1e300", "timers.silent"),
        ("RUNLANE_TIMERS_IDLE_BEAT", "23", "timers.idle_silent"),
        ("RUNLANE_TIMERS_IDLE_BEAT", "1", "timers.idle_beat"),
        ("RUNLANE_TIMERS_IDLE_SILENT", "39", "timers.idle_silent"),
        ("RUNLANE_TIMERS_RESUME", "0.9", "timers.resume"),
        ("RUNLANE_TIMERS_SWEEP", "2.6", "timers.resume"),
        ("RUNLANE_TIMERS_DRAIN", "-1", "timers.drain"),
        ("RUNLANE_TIMERS_DRAIN", "nan", "timers.drain"),
        ("RUNLANE_TIMERS_DRAIN", "inf", "timers.drain"),
        ("RUNLANE_HOST", "0.0.0.0", "set RUNLANE_TOKEN"),
        ("RUNLANE_HOST", "::", "set RUNLANE_TOKEN"),
        ("RUNLANE_HOST", "192.0.2.1", "set RUNLANE_TOKEN"),
        ("RUNLANE_HOST", "runs.example", "set RUNLANE_TOKEN"),
        ("RUNLANE_HOST", "a\nb", "host"),
        ("RUNLANE_TOKEN", "", "token"),
        ("RUNLANE_TOKEN", "short", "token"),
        ("RUNLANE_TOKEN", "x" * 15, "token"),
        ("RUNLANE_TOKEN", "x" * 1025, "token"),
        ("RUNLANE_TOKEN", "fifteen letters and a space", "token"),
        ("RUNLANE_TOKEN", "sixteen-letters-é", "token"),
        ("RUNLANE_TOKEN_FILE", "no-such-file", "no-such-file"),
        ("RUNLANE_TOKEN_FILE", ".", "token"),
        ("RUNLANE_TOKEN_FILE", "", "token"),
        ("RUNLANE_DB", "runlane.db", "db"),
        ("RUNLANE_DB", "sqlite:", "db"),
        ("RUNLANE_DB", "sqlite://", "db"),
        ("RUNLANE_DB", "sqlite:///", "db"),
        ("RUNLANE_DB", "sqlite:///:memory:", "db"),
        ("RUNLANE_DB", "sqlite://host/file", "db"),
        ("RUNLANE_DB", "sqlite:///file?mode=ro", "db"),
        ("RUNLANE_DB", "postgresql://localhost/runlane", "postgresql"),
        ("RUNLANE_DB", "mysql://localhost/runlane", "mysql"),
        ("RUNLANE_DB", "nonsense://x", "nonsense"),
        ("RUNLANE_DB", "sqlite+pysqlcipher:///x", "sqlite+pysqlcipher"),
        ("RUNLANE_DB", "a\nb", "db"),
        ("RUNLANE_DB", "sqlite:///~no-such-user-of-this-machine/x.db", "db"),
        ("RUNLANE_DB", "postgresql://host:port/x", "db"),
    ],
)
def test_a_variable_that_is_wrong(
    serve: Callable[..., tuple[int, str]], variable: str, value: str, says: str
) -> None:
    code, line = serve(**{variable: value})
    assert code == 2, line
    assert says.lower().replace(".", "_") in line.lower().replace(".", "_")
    assert len(line) < 500 or len(value) > 500


@pytest.mark.parametrize(
    "flags",
    [
        ["--colour"],
        ["--port"],
        ["--port", "http"],
        ["--port", "70000"],
        ["--db", "mysql://x"],
        ["--token-file", "no-such-file"],
        ["--host", "0.0.0.0"],
        ["--log-level", "loud"],
        ["--log-format", "xml"],
        ["--po", "1"],
        ["argument"],
        ["--port", "1", "argument\n"],
    ],
    ids=" ".join,
)
def test_a_flag_that_is_wrong(serve: Callable[..., tuple[int, str]], flags: list[str]) -> None:
    assert serve(*flags)[0] == 2


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"short\n", b"two words and more of them", b"\xff" * 20, b"x" * 2000]
)
def test_a_token_file_that_holds_no_token(
    serve: Callable[..., tuple[int, str]], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "token").write_bytes(content)
    code, line = serve("--token-file", "token")
    assert code == 2
    assert "token" in line


def test_a_secret_is_not_repeated(serve: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    wrong = f"{SECRET} with a space"
    assert SECRET not in serve(RUNLANE_TOKEN=wrong)[1]
    (tmp_path / "token").write_text(wrong)
    assert SECRET not in serve("--token-file", "token")[1]


# --- Not here and now: 1 ---------------------------------------------------------------------------------------


def test_a_port_that_is_in_use(serve: Callable[..., tuple[int, str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, line = serve("--port", str(port))
    assert code == 1
    assert line == f"runlane: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_a_port_that_another_broker_is_about_to_use() -> None:
    """It counts as in use from the first moment: a broker that only thinks that it listens serves nobody."""
    with closing(bind("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StartupError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize(
    "host", ["a" * 70, "☃" * 70, "no.such.host.invalid", "999.1.1.1", "192.0.2.1", "-", "a..b"]
)
def test_an_address_that_there_is_not(serve: Callable[..., tuple[int, str]], host: str) -> None:
    code, line = serve("--port", "0", RUNLANE_HOST=host, RUNLANE_TOKEN=TOKEN)
    assert code == 1
    assert f"cannot listen on {host}:0" in line


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_addresses_of_this_machine(host: str) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    Settings(host=host).check()
    with closing(bind(host, 0)) as listener:
        assert re.fullmatch(r"http://(127\.0\.0\.1|\[::1\]):\d+", url_of(listener))
        assert listener.proto == socket.IPPROTO_TCP  # or every answer waits for an acknowledgement


def no_folder(path: Path) -> str:
    return str(path / "no" / "such" / "folder.db")


def a_folder(path: Path) -> str:
    (path / "folder.db").mkdir()
    return str(path / "folder.db")


def within_a_file(path: Path) -> str:
    (path / "file").touch()
    return str(path / "file" / "x.db")


def no_database(path: Path) -> str:
    (path / "text.db").write_text(
        "This is a text, and rather long for one, so that it is no empty database. " * 20
    )
    return str(path / "text.db")


def foreign(path: Path) -> str:
    with closing(sqlite3.connect(path / "foreign.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
    return str(path / "foreign.db")


def newer(path: Path) -> str:
    database = new_database(path)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    return str(database)


def unversioned(path: Path) -> str:
    database = new_database(path)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DROP TABLE alembic_version")
    return str(database)


def version_missing(path: Path) -> str:
    database = new_database(path)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM alembic_version")
    return str(database)


def damaged(path: Path) -> str:
    database = new_database(path)
    data = bytearray(database.read_bytes())
    data[100:4096] = b"\xff" * (4096 - 100)
    database.write_bytes(data)
    return str(database)


def cut_off(path: Path) -> str:
    database = new_database(path)
    database.write_bytes(database.read_bytes()[:5000])
    return str(database)


def read_only(path: Path) -> str:
    """A file of a format that this SQLite may only read: nobody can write it, not even root."""
    database = new_database(path)
    data = bytearray(database.read_bytes())
    data[18] = 3
    database.write_bytes(data)
    return str(database)


def name_too_long(path: Path) -> str:
    return str(path / ("x" * 300))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (no_folder, "there is no folder"),
        (a_folder, "is a directory"),
        (within_a_file, "a directory"),
        (no_database, "not a database"),
        (foreign, "not a Runlane database"),
        (newer, "newer version"),
        (unversioned, "cannot use the database"),
        (version_missing, "database"),
        (damaged, "cannot use the database"),
        (cut_off, "cannot use the database"),
        (read_only, "readonly"),
        (name_too_long, "too long"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_a_database_that_cannot_be_used(
    serve: Callable[..., tuple[int, str]], tmp_path: Path, make: Callable[[Path], str], says: str
) -> None:
    path = make(tmp_path)
    code, line = serve("--port", "0", "--db", f"sqlite:///{path}")
    assert code == 1
    assert path in line
    assert says in line


def test_a_database_that_another_process_is_writing(serve: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    path = new_database(tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        code, line = serve("--port", "0", "--db", f"sqlite:///{path}")
    assert code == 1
    assert "locked" in line


def test_a_second_broker_on_the_same_file(serve: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    path = new_database(tmp_path)
    lock = FileLock(path)
    try:
        for name in (path, tmp_path / "." / path.name):
            code, line = serve("--port", "0", "--db", f"sqlite:///{name}")
            assert (code, line) == (1, f"runlane: another broker is using the database {path}\n")
    finally:
        lock.release()


def test_a_start_that_fails_leaves_nothing_behind(serve: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    """Neither the lock nor the port: the next try may go well."""
    port = free_port()
    path = Path(foreign(tmp_path))
    assert serve("--port", str(port), "--db", f"sqlite:///{path}")[0] == 1
    FileLock(path).release()
    bind("127.0.0.1", port).close()


# --- Told rightly ----------------------------------------------------------------------------------------------


def test_a_flag_counts_before_a_variable(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"  {TOKEN}\n")
    environ = {"RUNLANE_PORT": "1", "RUNLANE_HOST": "::1", "RUNLANE_TIMERS_DRAIN": "0", "PATH": "x"}
    settings = load(environ, {"port": 2, "host": None, "token_file": str(tmp_path / "token")})
    assert (settings.port, settings.host, settings.token, settings.timers.drain) == (2, "::1", TOKEN, 0)
    assert TOKEN not in repr(settings)


def test_the_clients_variables_are_no_mistake() -> None:
    assert load({"RUNLANE_URL": "http://127.0.0.1:1"}, {}).port == Settings().port


@pytest.mark.process
def test_from_start_to_sigterm(tmp_path: Path) -> None:
    """One start line; `draining` and 1012 for who is connected; nothing lost, and the next start finds it."""
    database = f"sqlite:///{tmp_path / 'runlane.db'}"
    restored: list[tuple[str, str]] = []
    for number in range(2):
        with ExitStack() as stack:
            process, host = started(stack, tmp_path, "--db", database)
            run(submit_and_hold(host, number))
            held = run(hold_until_closed(host, process))
            assert held == [("draining", CloseCode.RESTART)]
            out, err = process.communicate(timeout=10)
        assert process.returncode == 0, err
        assert out == ""
        assert "Traceback" not in err
        assert "ERROR" not in err
        line = re.compile(
            rf" INFO runlane: runlane {re.escape(runlane.__version__)} listening on (http://127\.0\.0\.1:\d+), "
            rf"database {re.escape(database)}, restored (\d+) queued and (\d+) running runs$",
            re.MULTILINE,
        )
        found = line.findall(host.head + err)
        assert [url for url, _, _ in found] == [host.url]
        restored += [(queued, running) for _, queued, running in found]
    assert restored == [("0", "0"), ("1", "0")]


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(tmp_path: Path, number: signal.Signals) -> None:
    with ExitStack() as stack:
        process, _ = started(stack, tmp_path, "--log-format", "json")
        process.send_signal(number)
        process.send_signal(number)
        _, err = process.communicate(timeout=10)
    assert process.returncode in (0, 130), err
    assert "Traceback" not in err


class Remote:
    """A broker in another process, as the harness's clients need it."""

    token = None

    def __init__(self, url: str, head: str) -> None:
        self.url = url
        self.head = head

    port = Host.port


def started(stack: ExitStack, folder: Path, *flags: str) -> tuple[subprocess.Popen[str], Any]:
    """Start a broker in a process of its own."""
    path = os.pathsep.join(str(Path(package.__file__ or "").parents[1]) for package in (runlane, cli))
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*path.split(os.pathsep), *sys.path]),
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        [*PROGRAM, "--port", "0", *flags],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stack.callback(close, process)
    assert process.stderr is not None
    head = ""
    while "listening on" not in head:
        text = process.stderr.readline()
        assert text, f"it has not started: {head}"
        head += text
    found = re.search(r"listening on (http://[^\s,]+)", head)
    assert found is not None, head
    assert httpx.get(f"{found[1]}/readyz", trust_env=False).status_code == 200
    return process, Remote(found[1], head)


def close(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
        process.communicate()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


async def submit_and_hold(host: Any, number: int) -> None:
    from .harness import new_run, producer

    if number == 0:
        async with producer(host) as peer:
            await peer.submit(new_run("edge.waits"))


async def hold_until_closed(host: Any, process: subprocess.Popen[str]) -> list[tuple[str, int]]:
    """Subscribe, let the broker be told to stop, and return what the worker hears."""
    async with authenticated(host, WORKER) as peer:
        await peer.subscribe(new_key())
        process.send_signal(signal.SIGTERM)
        frame = await peer.expect("draining", retry_after_seconds=...)
        return [(frame["type"], (await peer.closed()).code)]


# --- Log lines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["a\nb", "a\rb", "a\x1b[31mb", "a\x9b31mb", "a\x85b", "a\u2028b", "a\0b", "a\x7fb"]
)
@pytest.mark.parametrize("formatter", [logs.OneLine(), JsonFormatter()], ids=["console", "json"])
def test_a_log_line_is_one_line(formatter: logging.Formatter, text: str) -> None:
    """Whatever a peer calls itself."""
    line = formatter.format(logging.LogRecord("runlane", logging.INFO, "", 1, "worker %s", (text,), None))
    assert line.splitlines() == [line]
    assert line.isprintable()


def test_a_log_line_in_json_holds_any_text() -> None:
    """Half a surrogate, too, which no encoder of UTF-8 takes."""
    line = JsonFormatter().format(logging.LogRecord("runlane", logging.INFO, "", 1, "a\ud800b", None, None))
    assert json.loads(line) == {"time": ANY, "level": "info", "logger": "runlane", "message": "a\ud800b"}


# --- Listening ---------------------------------------------------------------------------------------------------


def test_whoever_connects_while_a_broker_starts_waits_and_is_not_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run_broker(_: Settings, listener: socket.socket) -> None:
        with socket.create_connection(listener.getsockname()[:2], timeout=10):
            connected.append(gc.isenabled())

    connected: list[bool] = []
    monkeypatch.setattr(program, "run_broker", run_broker)
    assert cli.serve(["--port", "0", "--db", f"sqlite:///{tmp_path / 'runlane.db'}"]) == 0
    assert connected == [False]
    assert gc.isenabled()


def test_a_broker_listens_before_it_imports_what_takes_long() -> None:
    code = "import sys, runlane_broker.cli; print(*{'sqlalchemy', 'starlette', 'uvicorn'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
