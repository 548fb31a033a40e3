"""The client on Windows and macOS, as far as Linux can tell: with what those don't have taken away.

The types of both are checked by `make types`; see foreign/sitecustomize.py for what is pretended here.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.harness import Program, Site

from .harness import Environment

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the other tests tell more"),
]

FOREIGN = Path(__file__).parent / "foreign"
SYSTEMS = ("win32", "darwin")
#: What tells a program to end there. (Linux has no Ctrl-Break: sitecustomize.py makes it of this.)
END = {"win32": signal.SIGUSR2, "darwin": signal.SIGTERM}

TASKS = """
import asyncio
import os
import signal
import subprocess
import sys
import time

from runlane import current_run, task

@task
async def in_loop() -> str:
    return sys.platform

@task
def in_thread() -> str:
    return sys.platform

@task(pool="process")
def in_process() -> str:
    current_run().progress(1, 2)
    return f"{sys.platform} {'SIGHUP' if hasattr(signal, 'SIGHUP') else 'no SIGHUP'}"

@task(pool="process", timeout=0.5)
def too_long() -> None:
    time.sleep(600)

@task(pool="process")
def dies() -> None:
    os._exit(7)
"""

MAIN = """
import asyncio
import tasks
from runlane import RunFailed, RunTimedOut, gather

print(*gather(tasks.in_loop.delay(), tasks.in_thread.delay(), tasks.in_process.delay()), sep=", ")
for task in (tasks.too_long, tasks.dies):
    try:
        task.delay().result()
    except RunFailed as exc:
        print(type(exc).__name__)

async def main() -> None:
    print(await (await tasks.in_loop.adelay()))

asyncio.run(main())
"""

#: Imports all there is, and says what it has found of Linux.
IMPORT_ALL = """if True:
    import importlib, pkgutil, sys
    import runlane
    names = ["_runlane_pytestplugin"] if importlib.util.find_spec("pytest") else []
    needs_broker = {"runlane.testing.engine"}
    for module in pkgutil.walk_packages(runlane.__path__, "runlane."):
        if module.name not in needs_broker and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            names.append(module.name)
    print(sys.platform, len(names), *sorted({"fcntl", "pwd", "grp", "uvloop", "termios"} & {
        name for name, module in sys.modules.items() if module is not None and name not in BEFORE
    }))
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A folder with tasks of all pools."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "tasks.py").write_text(TASKS, "utf-8")
    (folder / "main.py").write_text(MAIN, "utf-8")
    with Site(folder, tmp_path) as site:
        yield site


def abroad(site: Site, system: str, *command: str) -> Program:
    """Start a program on what it takes for another system."""
    return site.run(*command, PYTHONPATH=str(FOREIGN), FOREIGN=system)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_module_can_be_imported(site: Site, client: Environment, system: str) -> None:
    program = f"import sys; BEFORE = set(sys.modules)\n{IMPORT_ALL}"
    platform, count, *posix = abroad(site, system, client.python, "-c", program).ends().split()
    assert platform == system
    assert int(count) > 70
    assert posix == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_round_trip(site: Site, full: Environment, client: Environment, system: str) -> None:
    broker = site.run(full.runlane, "serve", "--port", str(site.port), "--db", f"sqlite:///{site.database}")
    broker.says(r"listening on http://\S+,")
    worker = abroad(site, system, client.runlane, "worker", "tasks.py", "--limit", "3")
    worker.says("subscribed as session")
    printed = abroad(site, system, client.python, "main.py").ends().splitlines()
    signals = "no SIGHUP" if system == "win32" else "SIGHUP"
    assert printed == [f"{system}, {system}, {system} {signals}", "RunTimedOut", "RunFailed", system]
    worker.signal(END[system])
    assert "draining: 0 runs" in worker.ends()


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("command", [("version",), ("worker", "--help"), ("config", "show"), ("status",)])
def test_commands(site: Site, client: Environment, system: str, command: tuple[str, ...]) -> None:
    program = abroad(site, system, client.runlane, *command)
    assert "Traceback" not in program.ends(1 if command == ("status",) else 0)
