"""The command, as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

import runlane
from runlane import cli, worker
from runlane.protocol import messages as m

from .fake_broker import fake_broker, pushed, run

APP = """
import asyncio
from runlane import task

@task
async def add(a: int, b: int) -> int:
    await asyncio.sleep(0.05)
    return a + b

@task
def other() -> None: ...

number = 5
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "app_of_cli.py").write_text(APP)
    (tmp_path / "empty_of_cli.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(cli, "_configure_logging", lambda *_, **__: None)
    return "app_of_cli"


def exit_code(*argv: str) -> object:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return caught.value.code


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["worker", "no_such_module"], "there is no module 'no_such_module'"),
        (["worker", "no_such.py"], "there is no file no_such.py"),
        (["worker", "empty_of_cli"], "there is no task in empty_of_cli"),
        (["worker", "app_of_cli:number"], "app_of_cli.number is no task"),
        (["worker", "app_of_cli:add,gone"], "app_of_cli.gone does not exist"),
        (["worker", "app_of_cli", "--limit", "0"], "limit must be between"),
        (["worker", "app_of_cli", "--url", "gopher://x"], "--url must begin"),
        (["dance"], "invalid choice"),
        ([], "required"),
    ],
)
def test_wrong_use_is_told_in_a_line(
    app: str, capsys: pytest.CaptureFixture[str], argv: list[str], says: str
) -> None:
    assert exit_code(*argv) == 2
    assert says in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("version") == 0
    assert capsys.readouterr().out == f"runlane {runlane.__version__}\n"


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGTERM")
@pytest.mark.parametrize("target", ["app_of_cli", "app_of_cli.py:add"])
def test_sigterm_drains(app: str, target: str) -> None:
    async def main() -> None:
        async with fake_broker() as broker:
            environ = {**os.environ, "RUNLANE_URL": broker.settings.url, "PYTHONPATH": os.pathsep.join(sys.path)}
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "runlane", "worker", target, "--limit", "3", "--json-logs",
                env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            peer = await broker.peer()
            subscribe = await peer.subscribed()
            assert set(subscribe.keys) >= {"app_of_cli.add"}
            await peer.push(pushed("app_of_cli.add", a=2, b=3))
            await peer.expect(m.Started)
            process.send_signal(signal.SIGTERM)
            assert await peer.expect(m.SetLimit) == m.SetLimit(limit=0)
            report = await peer.expect(m.Finished)
            assert bytes(report.result) == b"5"
            await peer.record(report)
            await peer.goodbye()
            out, err = await process.communicate()
            assert process.returncode == 0, err.decode()
            assert out.decode().startswith(f"runlane {runlane.__version__} worker: app_of_cli.add")
            assert len(out.splitlines()) == 1
            assert b'"level":"info"' in err

    run(main())


@pytest.mark.parametrize(
    ("code", "says", "lines"),
    [
        ("import no_such", "ModuleNotFoundError: No module named 'no_such'", 4),
        ("def f():\n    raise RuntimeError('boom')\nf()", "RuntimeError: boom", 7),
        ("x = = 1", "SyntaxError: invalid syntax (bad_of_cli.py, line 1)", 4),
    ],
)
def test_a_module_that_cannot_be_imported(
    app: str, capsys: pytest.CaptureFixture[str], code: str, says: str, lines: int
) -> None:
    Path("bad_of_cli.py").write_text(code)
    assert exit_code("worker", "bad_of_cli.py") == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == f"runlane: cannot import bad_of_cli.py: {says}"
    assert "importlib" not in error
    assert "discovery.py" not in error
    assert len([line for line in error.splitlines() if set(line.strip()) - set("^~")]) <= lines + 1
    sys.modules.pop("bad_of_cli", None)


def test_what_is_left_out_is_said(
    app: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("shop_of_cli.py").write_text(
        "from runlane import task\nfrom app_of_cli import add\n@task(key='own')\ndef own(): ...\n"
    )
    monkeypatch.setattr(worker, "work", lambda _: 0)
    assert exit_code("worker", "shop_of_cli.py") == 0
    _, left_out = capsys.readouterr().out.splitlines()
    assert left_out == (
        "imported there, and not served: app_of_cli.add; to serve these, too: shop_of_cli.py:own,add"
    )
