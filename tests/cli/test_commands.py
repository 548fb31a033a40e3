"""What every command has in common: help, exit codes, errors in a line, and what none imports without need."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import runlane as package
from runlane import cli

from .harness import Run

COMMANDS = ("serve", "worker", "demo", "submit", "status", "queue", "pool", "config", "version")


def test_the_help_names_every_command(runlane: Run) -> None:
    done = runlane("--help")
    assert (done.code, done.err) == (0, "")
    for command in COMMANDS:
        assert f"\n    {command} " in done.out
    assert "exit codes:" in done.out
    assert "examples:" in done.out
    assert max(map(len, done.out.splitlines())) <= 110


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(runlane: Run, command: str) -> None:
    done = runlane(command, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"usage: runlane {command} ")


@pytest.mark.parametrize("command", ["serve", "worker", "submit", "status", "config"])
def test_help_has_examples_and_exit_codes(runlane: Run, command: str) -> None:
    text = runlane(command, "--help").out
    assert f"\nexamples:\n  runlane {command}" in text
    assert command == "config" or "\nexit codes: 0 " in text


@pytest.mark.parametrize("argv", [["version"], ["--version"]])
def test_version(runlane: Run, argv: list[str]) -> None:
    assert runlane(*argv) == (done := runlane(*argv))
    assert (done.code, done.out, done.err) == (0, f"runlane {package.__version__}\n", "")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "runlane: the following arguments are required: COMMAND (see runlane --help)"),
        (["dance"], "runlane: argument COMMAND: invalid choice: 'dance'"),
        (["--dance"], "runlane: the following arguments are required: COMMAND"),
        (["serve", "--prt", "1"], "runlane serve: unrecognized arguments: --prt 1 (see runlane serve --help)"),
        (["serve", "--port"], "runlane serve: argument --port: expected one argument"),
        (["serve", "--port", "x"], "runlane: --port must be a whole number, not 'x'"),
        (["serve", "--port", "70000"], "runlane: --port must be between 0 and 65535, not 70000"),
        (["serve", "--log-level", "loud"], "runlane: --log-level must be one of debug, info, warning, error"),
        (["serve", "--token-file", "none"], "runlane: --token-file cannot be read: none: No such file"),
        (["serve", "--host", "0.0.0.0"], "runlane: host: 0.0.0.0 can be reached from outside"),
        (["serve", "--db", "mysql://h/d"], "runlane: db: 'mysql' is not supported"),
        (["demo", "--fast"], "runlane demo: unrecognized arguments: --fast"),
        (
            ["worker", "x", "--bogus"],
            "runlane worker: unrecognized arguments: --bogus (see runlane worker --help)",
        ),
        (["worker"], "runlane worker: the following arguments are required: MODULE"),
        (["worker", "x", "--limit", "many"], "runlane: --limit must be a whole number, not 'many'"),
        (["worker", "x", "--drain-timeout", "long"], "runlane: --drain-timeout must be a duration"),
        (["worker", "x", "--log-format", "xml"], "runlane: --log-format must be one of console, json, not 'xml'"),
        (["status", "--timeout", "3"], "runlane status: --timeout needs --wait"),
        (["status", "--wait", "--timeout", "x"], "runlane status: argument --timeout: must be a duration"),
        (["status", "--url", "ftp://h"], "runlane: --url must begin with http:// or https://, not 'ftp://h'"),
        (["submit"], "runlane submit: the following arguments are required: KEY"),
        (["submit", "k", "--args", "{"], "runlane: --args: no JSON that can be read: "),
        (["submit", "k", "--args", "[1]"], "runlane: --args: arguments go by name, in an object"),
        (["submit", "k", "--args", '{"x": NaN}'], "runlane: --args: no JSON that can be read: "),
        (["submit", "k", "--args", "@none.json"], "runlane: --args cannot be read: "),
        (["submit", "k", "--args", '{"x": ' + "[" * 70 + "]" * 70 + "}"], "runlane: --args nests deeper than 64"),
        (
            ["submit", "k", "--args", '{"x": "' + "x" * 600_000 + '"}'],
            "runlane: --args: 600008 bytes of JSON; at most",
        ),
        (["submit", "a key"], "runlane: key: "),
        (["submit", "k", "--priority", "11"], "runlane: priority: "),
        (["submit", "k", "--priority", "high"], "runlane submit: argument --priority: invalid int value: 'high'"),
        (["submit", "k", "--delay", "-1"], "runlane submit: argument --delay: must be 0 seconds or more"),
        (["submit", "k", "--idempotency-key", ""], "runlane: idempotency_key: "),
        (["config"], "runlane config: the following arguments are required: action"),
        (["config", "set"], "runlane config: argument action: invalid choice: 'set'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_use_is_told_in_a_line(runlane: Run, argv: list[str], says: str) -> None:
    done = runlane(*argv)
    assert (done.code, done.out) == (2, "")
    assert done.complaint.startswith(says)


@pytest.mark.parametrize("argv", [["serve"], ["worker", "x"], ["submit", "k"], ["status"], ["config", "show"]])
def test_every_command_reads_the_same_settings(
    runlane: Run, monkeypatch: pytest.MonkeyPatch, argv: list[str]
) -> None:
    monkeypatch.setenv("RUNLANE_TOKN", "x")
    done = runlane(*argv)
    assert done.code == 2
    assert done.complaint == "runlane: RUNLANE_TOKN: unknown setting; did you mean RUNLANE_TOKEN?"


def test_interrupted(monkeypatch: pytest.MonkeyPatch, runlane: Run) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupt)
    assert runlane("status").code == 130


@pytest.mark.process
def test_a_reader_may_have_had_enough() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = (sys.executable, "-m", "runlane", "config", "show")
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.process
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk")
def test_a_disk_may_be_full() -> None:
    command = (sys.executable, "-m", "runlane", "config", "show")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "runlane: [Errno 28] No space left on device\n")


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="a shell")
@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        ("version >&-", 0, ""),
        ("submit k --args - <&-", 2, "runlane: --args -: there is no standard input\n"),
    ],
)
def test_standard_input_and_output_may_be_closed(argv: str, code: int, says: str) -> None:
    command = f"{sys.executable} -m runlane {argv}"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, says)


@pytest.mark.process
@pytest.mark.parametrize("argv", [["--help"], ["version"], ["config", "show"]], ids=" ".join)
def test_a_small_command_waits_for_no_library(argv: list[str]) -> None:
    program = f"""if True:
        import sys
        from runlane import cli
        try:
            cli.main({argv})
        except SystemExit:
            print(*{{name.partition(".")[0] for name in sys.modules}}, file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"asyncio", "msgspec", "orjson", "rich", "runlane_broker", "sqlalchemy", "tomllib", "websockets"}
    assert not heavy & set(done.stderr.split())
    assert "argparse" in done.stderr
