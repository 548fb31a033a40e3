"""Workers as programs: `serve`, the command's options, `--reload`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runlane.protocol import messages as m
from runlane.worker.reload import Reloader, python_files
from tests.sdk.fake_broker import FakeBroker, fake_broker, pushed, run

from .support import result_of

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGTERM"),
]

SCRIPT = """
import asyncio, os, sys
from contextlib import asynccontextmanager
from runlane import current_run, task
from runlane.worker import serve

@task
async def add(a: int, b: int) -> int:
    return a + b

@task
async def wait() -> None:
    await asyncio.sleep(60)

@task(pool="process")
def elsewhere() -> bool:
    return os.getpid() != os.getppid()

@task
def have() -> str:
    return current_run().resources

@asynccontextmanager
async def lifespan():
    print("begin", flush=True)
    yield "resources"
    print("end", flush=True)

if __name__ == "__main__":
    seconds = float(sys.argv[1])
    serve(add, wait, elsewhere, have, limit=3, lifespan=lifespan, client_id="script", drain_timeout=seconds)
    print("goodbye", flush=True)
"""


@asynccontextmanager
async def program(broker: FakeBroker, folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run Python in a folder, told where the broker is."""
    environ = {**os.environ, "RUNLANE_URL": broker.settings.url, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=folder, env=environ,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_serve_is_a_whole_program(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SCRIPT)

    async def main() -> None:
        async with fake_broker() as broker, program(broker, tmp_path, "app.py", "5") as process:
            peer = await broker.peer(10)
            subscribe = await peer.subscribed()
            assert (subscribe.client_id, subscribe.limit) == ("script", 3)
            assert set(subscribe.keys) == {"app.add", "app.wait", "app.elsewhere", "app.have"}
            for key, arguments, result in (
                ("app.add", {"a": 2, "b": 3}, 5),
                ("app.elsewhere", {}, True),
                ("app.have", {}, "resources"),
            ):
                await peer.push(pushed(key, **arguments))
                assert result_of(await peer.finished()) == result
            process.send_signal(signal.SIGTERM)
            await peer.goodbye()
            out, err = await process.communicate()
            assert process.returncode == 0, err.decode()
            assert out.decode().split() == ["begin", "end", "goodbye"]
            assert "serving app.add" in err.decode()

    run(main())


def test_a_second_signal_ends_it_at_once_with_130(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SCRIPT)

    async def main() -> None:
        async with fake_broker() as broker, program(broker, tmp_path, "app.py", "50") as process:
            peer = await broker.peer(10)
            await peer.subscribed()
            await peer.push(one := pushed("app.wait"))
            await peer.expect(m.Started)
            process.send_signal(signal.SIGINT)
            await peer.expect(m.SetLimit)
            process.send_signal(signal.SIGINT)
            assert (await peer.expect(m.Release)).runs[0].id == one.id
            await peer.goodbye()
            out, err = await process.communicate()
            assert process.returncode == 130, err.decode()
            assert out.decode().split() == ["begin", "end"]
            assert "Traceback" not in err.decode()

    run(main())


def test_serve_without_a_guard_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"))

    async def main() -> None:
        async with fake_broker() as broker, program(broker, tmp_path, "app.py", "5") as process:
            _, err = await process.communicate()
            assert process.returncode == 1
            assert 'put it under `if __name__ == "__main__":`' in err.decode()

    run(main())


def test_the_command_takes_a_lifespan_and_a_name(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SCRIPT)
    command = ("-m", "runlane", "worker", "app.py", "--lifespan", "app.py:lifespan", "--name", "me", "--fence")

    async def main() -> None:
        async with fake_broker() as broker, program(broker, tmp_path, *command) as process:
            peer = await broker.peer(10)
            assert (await peer.subscribed()).client_id == "me"
            await peer.push(pushed("app.have"))
            assert result_of(await peer.finished()) == "resources"
            process.terminate()
            await peer.goodbye()
            out, err = await process.communicate()
            assert process.returncode == 0, err.decode()
            assert out.decode().splitlines()[1:] == ["begin", "end"]

    run(main())


@pytest.mark.parametrize("target", ["app", "app:nothing", "app:number"])
def test_a_lifespan_that_is_none_is_told_in_a_line(tmp_path: Path, target: str) -> None:
    (tmp_path / "app.py").write_text("from runlane import task\nnumber = 5\n@task\ndef one() -> None: ...\n")
    done = subprocess.run(
        [sys.executable, "-m", "runlane", "worker", "app.py", "--lifespan", target],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "lifespan" in done.stderr or "cannot be called" in done.stderr


TASKS = "from runlane import task\n@task(key='{}')\ndef one() -> None: ...\n"


def test_reload_starts_again_after_a_change(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(TASKS.format("first"))
    command = ("-m", "runlane", "worker", "app.py", "--reload")

    async def main() -> None:
        async with fake_broker() as broker, program(broker, tmp_path, *command) as process:
            assert process.stderr is not None
            peer = await broker.peer(10)
            assert (await peer.subscribed()).keys == ("first",)
            file.write_text("this is no Python")
            await peer.goodbye()
            async for line in process.stderr:
                if b"will be started again after a change" in line:
                    break
            file.write_text(TASKS.format("second"))
            peer = await broker.peer(10)
            assert (await peer.subscribed()).keys == ("second",)
            process.terminate()
            await peer.goodbye()
            await process.communicate()
            assert process.returncode == 0

    run(main())


def test_reload_looks_at_own_code_alone(tmp_path: Path) -> None:
    for name in (
        "a.py",
        "b.txt",
        "pkg/c.py",
        ".hidden/d.py",
        "env/lib/e.py",
        "env/pyvenv.cfg",
        "__pycache__/f.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert {path.relative_to(tmp_path).as_posix() for path in python_files(tmp_path)} == {"a.py", "pkg/c.py"}


def test_reload_ends_when_the_command_does(tmp_path: Path) -> None:
    assert Reloader([sys.executable, "-c", "pass"], tmp_path, 0.05).run() == 0
