"""`runlane submit`: submit a run of a task by its key, and wait for its result where told to."""

from __future__ import annotations

import asyncio
import logging
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from ..client import Client
from ..config import ClientSection, ConfigError, load_config
from ..config.flags import add_flags, flags_of
from ..endings import error_of
from ..errors import ArgumentError, PayloadError, RunlaneError, SettingsError
from ..options import task_plan
from ..protocol.messages import NewRun, RunFinished, SubmittedRun
from ..protocol.states import StateType
from ..serializers import dump, load
from ..settings import Settings
from .console import DONE, FAILED, USAGE, Parser, complain, seconds
from .status import is_served, probe

#: Seconds in which the broker has to confirm the run.
CONFIRM_SECONDS: Final = 10.0
#: Seconds in which to find out what the matter is, and the share of a time-out that this may take.
_PROBE_SECONDS: Final = 1.0
_PROBE_SHARE: Final = 0.1

_NULL: Final = msgspec.Raw(b"null")

_EPILOG: Final = """\
Prints the run's id or, with --wait, its result as JSON. What @task(retries=…, priority=…) says is known where
the task's code is, and goes with the runs that are submitted there; here it is said with the options.

exit codes: 0 submitted (--wait: completed), 1 refused, failed or not in time, 2 used wrongly

examples:
  runlane submit tasks.add --args '{"a": 2, "b": 3}' --wait
  runlane submit tasks.report --args @report.json --delay 10m --idempotency-key report-7
  generate | runlane submit tasks.load --args - --wait --timeout 30 --json
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    logging.getLogger("runlane").addHandler(logging.NullHandler())  # what matters is said below, in a line
    try:
        run = _run(options)
        settings = load_config(flags=flags_of(options)).of(Settings)
    except (ArgumentError, ConfigError, SettingsError) as exc:
        return complain(exc, USAGE)
    try:
        return asyncio.run(_submit(settings, run, options))
    except RunlaneError as exc:
        return complain(exc, FAILED)


def _parser() -> Parser:
    parser = Parser(
        prog="runlane submit", description="Submit a run of a task; its code need not be here.", epilog=_EPILOG
    )
    parser.add_argument("key", metavar="KEY", help="the task's key: module.function, or what @task(key=…) says")
    parser.add_argument(
        "--args", metavar="JSON", default="{}", help='arguments by name: {"a": 2}; @FILE or - reads them'
    )
    parser.add_argument(
        "--delay", metavar="SECONDS", type=seconds, help="not before so long from now (also 5m, 2h)"
    )
    parser.add_argument("--priority", metavar="N", type=int, default=0, help="0 to 9, higher first (default: 0)")
    parser.add_argument("--idempotency-key", metavar="KEY", help="while a run of the task has it, it is that one")
    parser.add_argument(
        "--retries",
        metavar="N",
        type=int,
        default=0,
        help="how often it is tried again (default: 0, whatever @task says)",
    )
    parser.add_argument("--retry-delay", metavar="SECONDS", type=seconds, default=0.0, help="how long after")
    output = parser.add_argument_group("output")
    output.add_argument("--wait", action="store_true", help="wait for the run's end, and print its result")
    output.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        help=f"for all of it (default: {CONFIRM_SECONDS:g} to submit, and then as long as it takes)",
    )
    output.add_argument("--json", action="store_true", help="one JSON object: id, created, state, result, error")
    add_flags(parser, ClientSection)
    return parser


def _run(options: Namespace) -> NewRun:
    """Return the run as it is submitted. Raises `ArgumentError`."""
    plan = task_plan(options.key, {}, {}).changed(
        {
            "delay": options.delay,
            "priority": options.priority,
            "idempotency_key": options.idempotency_key,
            "retries": options.retries,
            "retry_delay": options.retry_delay,
        }
    )
    return plan.run(_parameters(options.args))


def _parameters(source: str) -> msgspec.Raw:
    """Return the arguments in the very bytes of a program's: an idempotency key compares them.

    Raises `ArgumentError`.
    """
    try:
        arguments = load(_read(source), "--args")
        if not isinstance(arguments, dict):
            raise ArgumentError('--args: arguments go by name, in an object: {"a": 2, "b": 3}')
        return dump(cast("object", arguments), "--args")
    except PayloadError as exc:
        raise ArgumentError(str(exc)) from None


def _read(source: str) -> bytes:
    try:
        if source == "-" and sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  (closed)
            raise ArgumentError("--args -: there is no standard input")
        if source == "-":
            return sys.stdin.buffer.read().strip()
        return Path(source[1:]).read_bytes().strip() if source.startswith("@") else source.encode()
    except (OSError, UnicodeEncodeError) as exc:
        raise ArgumentError(f"--args cannot be read: {exc}") from None


async def _submit(settings: Settings, run: NewRun, options: Namespace) -> int:
    client = Client(settings)
    confirm, probing, end = _times(options.timeout)
    try:
        try:
            async with asyncio.timeout(confirm):
                (submitted,) = await client.submit((run,))
        except TimeoutError:
            return complain(await asyncio.to_thread(_why_not, settings, confirm, probing), FAILED)
        if options.wait:
            finished = await _end_of(submitted, client, end)
            if finished is None:
                why = await asyncio.to_thread(_why_no_end, settings, run, probing)
                late = f"run {submitted.id} has not ended within {options.timeout:g} s; it goes on{why}"
                return complain(late, FAILED)
            return _tell(submitted, finished, options)
        print(_json({"id": submitted.id, "created": submitted.created}) if options.json else submitted.id)
        return DONE
    finally:
        await client.aclose()


def _times(timeout: float | None) -> tuple[float, float, float | None]:
    """Return the seconds for the confirmation, those for a look at what is wrong, and when waiting ends."""
    if timeout is None:
        return CONFIRM_SECONDS, _PROBE_SECONDS, None
    probing = min(_PROBE_SECONDS, timeout * _PROBE_SHARE)
    left = timeout - probing
    return left, probing, asyncio.get_running_loop().time() + left


def _why_not(settings: Settings, waited: float, patience: float) -> str:
    status = probe(settings, patience)
    return f"{settings.url}: {status.problem or f'has not confirmed the run within {waited:g} s'}"


def _why_no_end(settings: Settings, run: NewRun, patience: float) -> str:
    return "" if is_served(settings, run.task_key, patience) else f", but no worker serves {run.task_key} now"


async def _end_of(submitted: SubmittedRun, client: Client, deadline: float | None) -> RunFinished | None:
    """Wait for the run's end; None: it is too late (`deadline` is a time of the event loop)."""
    try:
        async with asyncio.timeout_at(deadline):
            return await client.watch(submitted.id)
    except TimeoutError:
        return None
    except asyncio.CancelledError:
        complain(f"run {submitted.id} goes on", FAILED)
        raise


def _tell(submitted: SubmittedRun, finished: RunFinished, options: Namespace) -> int:
    completed = finished.state.type is StateType.COMPLETED
    if options.json:
        print(_json(_shown(submitted, finished)))
    elif completed:
        print(bytes(_payload(finished.result)).decode())
    if not completed:
        complain(error_of(finished), FAILED)
    return DONE if completed else FAILED


def _shown(submitted: SubmittedRun, finished: RunFinished) -> dict[str, Any]:
    return {
        "id": submitted.id,
        "created": submitted.created,
        "state": {"type": finished.state.type, "name": finished.state.name, "message": finished.state.message},
        "result": _payload(finished.result),
        "error": _payload(finished.error),
    }


def _payload(payload: msgspec.Raw) -> msgspec.Raw:
    return payload if bytes(payload) else _NULL


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
