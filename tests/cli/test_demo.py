"""`runlane demo`: what it shows, live and not, and how it ends."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from runlane_broker.demo import job
from runlane_broker.demo.display import Display, make_display
from runlane_broker.demo.history import Step
from runlane_broker.demo.processes import Processes
from runlane_broker.demo.report import Outcome, Report
from runlane_broker.demo.tasks import Measured
from runlane_broker.errors import StartupError

from .harness import Run


def outcome(number: int) -> Outcome:
    measured = Measured("x", lines=10, bytes=1000, worker=7 + number % 2, started=100.5 + number, seconds=0.25)
    return Outcome(Path(f"f{number}.py"), f"id-{number}", 100.0, measured)


def report(*, wrong: bool = False) -> Report:
    outcomes = tuple(map(outcome, range(4)))
    history = (
        Step("Scheduled", datetime(2026, 1, 1, tzinfo=UTC)),
        Step("Completed", datetime(2026, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC), "fine"),
    )
    return Report(outcomes, 2.0, (outcomes[0].path,) if wrong else (), outcomes[3], history)


@pytest.mark.process
def test_the_demo(folder: Path) -> None:
    (folder / "runlane.toml").write_text("nonsense = 1")  # what is told here is told to others
    done = subprocess.run(
        (sys.executable, "-m", "runlane", "demo"),
        env={**os.environ, "RUNLANE_TOKEN": "", "RUNLANE_NONSENSE": "1"},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    count = re.search(r"Measuring the ([\d,]+) \.py files", done.stdout)
    assert count is not None
    assert re.search(
        rf"^verified +{count[1]} of {count[1]} equal to a local computation", done.stdout, re.MULTILINE
    )
    assert re.search(rf"^  {count[1]} of {count[1]}$", done.stdout, re.MULTILINE)
    assert len(re.findall(r"^ +\d+ +[\d,]+ +[\d,]+ +[\d,]+ +[\d.]+ s *$", done.stdout, re.MULTILINE)) == 2
    states = re.findall(r"^\d\d:\d\d:\d\d\.\d{3} +\+(\d\.\d{3}) s +(\w+) *$", done.stdout, re.MULTILINE)
    assert [name for _, name in states] == ["Scheduled", "Pending", "Running", "Completed"]
    assert [float(after) for after, _ in states] == sorted(float(after) for after, _ in states)
    assert states[0][0] == "0.000"


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_that_is_ended_leaves_nothing_behind(folder: Path, number: signal.Signals) -> None:
    command = (sys.executable, "-m", "runlane", "demo")
    environ = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("A broker listens on ")
        assert process.stdout.readline().startswith("2 workers")
        process.send_signal(number)
        assert process.wait(20) == 130
    assert list(folder.iterdir()) == []


def test_a_live_display_has_a_bar_and_figures() -> None:
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=True, width=100), live=True)
    with display.progress(4) as count:
        for number in range(4):
            count(outcome(number))
    assert "4/4" in out.getvalue()
    assert "worker process" in out.getvalue()
    assert "2,000" in out.getvalue()


def test_a_plain_display_has_lines() -> None:
    out = io.StringIO()
    display = Display(Console(file=out), live=False)
    with display.progress(1000) as count:
        for number in range(1000):
            count(outcome(number))
    assert out.getvalue().splitlines() == [f"  {n} of 1,000" for n in ("250", "500", "750", "1,000")]


def test_nothing_moves_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not make_display({})._live  # standard output is no terminal here
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert make_display({})._live
    assert not make_display({"CI": "true"})._live


def test_the_report() -> None:
    out = io.StringIO()
    Console(file=out, width=110).print(report().render())
    text = out.getvalue()
    assert "2.00 s, 2 runs/s" in text
    assert "p50 2500.0 ms, p99 3500.0 ms" in text
    assert re.search(r"8 +2 +2,000 +20 +0\.50 s", text)
    assert "the run that waited longest (f3.py):" in text
    assert re.search(r"\+1\.500 s +Completed +fine", text)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_wrong_answer_fails(runlane: Run, monkeypatch: pytest.MonkeyPatch, wrong: bool) -> None:
    async def run(_: Display) -> Report:
        return report(wrong=wrong)

    monkeypatch.setattr(job, "run", run)
    done = runlane("demo")
    assert done.code == int(wrong)
    assert "verified   3 of 4" in done.out or not wrong
    assert done.err == ("runlane: wrong answers for f0.py\n" if wrong else "")


@pytest.mark.process
def test_a_worker_that_ends_ends_the_demo(folder: Path) -> None:
    async def main() -> None:
        async with Processes(folder) as processes:
            await processes._start("worker-1", "no-such-command")
            await processes.guard(asyncio.sleep(30))

    with pytest.raises(StartupError, match="the worker-1 has ended: runlane: argument COMMAND: invalid choice"):
        asyncio.run(main())


def test_what_cannot_start_is_told_in_a_line(runlane: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(_: Display) -> Report:
        raise StartupError("the broker has ended: why")

    monkeypatch.setattr(job, "run", run)
    done = runlane("demo")
    assert (done.code, done.complaint) == (1, "runlane: the broker has ended: why")
