"""Runlane as users get it: the built wheel in environments of its own, driven from an empty folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import runlane
from tests.examples.harness import Site
from tests.test_readme import expected_output, python_blocks

from .harness import ROOT, Environment

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

#: What a worker on a small machine gets, and no more.
CLIENT = {"runlane", "msgspec", "orjson", "websockets"}
#: What is never imported there, be it installed or not.
BROKER = {"runlane_broker", "starlette", "sqlalchemy", "uvicorn", "uvloop", "aiosqlite", "alembic", "rich"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An empty folder, but for the files of the README's quick start."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name, block in python_blocks().items():
        (folder / name).write_text(block, "utf-8")
    with Site(folder, tmp_path) as site:
        yield site


def serve(site: Site, full: Environment) -> None:
    """Start a broker; it ends with the site."""
    database = f"sqlite:///{site.database}"
    broker = site.run(full.runlane, "serve", "--port", str(site.port), "--db", database)
    broker.says(r"listening on http://\S+,")


def work(site: Site, environment: Environment) -> None:
    """Start a worker; it ends with the site."""
    site.run(environment.runlane, "worker", "tasks.py").says("subscribed as session")


def python(site: Site, environment: Environment, program: str) -> str:
    """Run a program to its good end; return what it prints."""
    return site.run(environment.python, "-c", program).ends()


def test_the_quick_start(site: Site, full: Environment) -> None:
    assert 5 < sum(1 for block in python_blocks().values() for line in block.splitlines() if line.strip()) <= 20
    serve(site, full)
    work(site, full)
    assert site.run(full.python, "main.py").ends() == expected_output()


def test_workers_and_producers_need_no_broker_of_their_own(
    site: Site, full: Environment, client: Environment
) -> None:
    serve(site, full)
    assert "ready" in site.run(client.runlane, "status", "--wait", "--timeout", "20").ends()
    work(site, client)
    assert site.run(client.python, "main.py").ends() == expected_output()
    submit = (client.runlane, "submit", "tasks.add", "--args", '{"a": 2, "b": 3}', "--wait")
    assert site.run(*submit).ends() == "5\n"


def test_commands_that_need_no_broker_at_all(site: Site, client: Environment) -> None:
    assert site.run(client.runlane, "version").ends() == f"runlane {runlane.__version__}\n"
    assert "--drain-timeout" in site.run(client.runlane, "worker", "--help").ends()
    shown = json.loads(site.run(client.runlane, "config", "show", "--json").ends())
    assert site.url in json.dumps(shown)


def test_it_is_the_wheel_that_runs(site: Site, full: Environment, client: Environment) -> None:
    program = "import runlane, sys; print(runlane.__file__, *sys.path, sep='\\n')"
    for environment in (full, client):
        file, *path = python(site, environment, program).splitlines()
        assert Path(file).is_relative_to(environment.folder)
        assert not [entry for entry in path if Path(entry).is_relative_to(ROOT)]


def test_a_client_is_light(site: Site, client: Environment, full: Environment) -> None:
    installed = "from importlib.metadata import distributions as d; print(*{x.name for x in d()})"
    assert set(python(site, client, installed).split()) == CLIENT
    imported = "from runlane import *; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    for environment in (client, full):
        assert not set(python(site, environment, imported).split()) & BROKER


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_the_commands_of_the_broker_say_what_to_install(site: Site, client: Environment, command: str) -> None:
    (line,) = site.run(client.runlane, command).ends(2).splitlines()
    assert line.startswith(f"runlane: runlane {command} needs the broker: install runlane[broker] ")


def test_the_test_kit_says_what_to_install(site: Site, client: Environment) -> None:
    program = "import runlane.testing as t\nwith t.sync_broker(): pass"
    *_, line = site.run(client.python, "-c", program).ends(1).splitlines()
    assert line.startswith(
        "runlane.errors.RunlaneError: runlane.testing needs the broker: install runlane[broker] "
    )


def test_the_test_kit_works(site: Site, full: Environment) -> None:
    program = """if True:
        from runlane.testing import sync_broker
        from tasks import add
        with sync_broker(add) as broker:
            future = add.delay(2, 3)
            broker.drain()
            print(future.result())
    """
    assert python(site, full, program) == "5\n"


def test_the_demo_runs(site: Site, full: Environment) -> None:
    assert "equal to a local computation" in site.run(full.runlane, "demo").ends(seconds=90)
