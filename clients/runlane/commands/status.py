"""`runlane status`: is the broker there, and ready? Waits for it where told to."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from http.client import HTTPException
from itertools import islice
from typing import Any, Final, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from ..config import ClientSection, ConfigError, load_config
from ..config.flags import add_flags, flags_of
from ..rest import not_reached, wanted_token
from .console import DONE, FAILED, USAGE, Parser, complain, one_line, seconds

#: Seconds that an answer may take.
PATIENCE: Final = 5.0
#: Seconds between two looks.
_PAUSE: Final = 0.25
_MAX_ANSWER: Final = 1024 * 1024
#: Task keys that are listed, one a line.
_MAX_LINES: Final = 20

_EPILOG: Final = """\
exit codes: 0 ready (with a complaint, if it does not take the token), 1 not ready or not there, 2 used wrongly

examples:
  runlane status
  runlane status --wait --timeout 30 && runlane worker tasks.py
  runlane status --url https://broker.example --json
"""


@dataclass(frozen=True, slots=True)
class Status:
    """What a broker says of itself; `problem` says why it is not ready, why nobody answers, or what is wrong
    with the token. `unserved`: the task keys whose runs wait without a worker, and how many do; None: not known.
    """

    url: str
    reachable: bool
    ready: bool
    version: str | None = None
    problem: str | None = None
    unserved: dict[str, int] | None = None


class _NoAnswer(Exception):
    """No broker answers there."""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.timeout is not None and not options.wait:
        parser.error("--timeout needs --wait")
    try:
        client = load_config(flags=flags_of(options)).of(ClientSection)
    except ConfigError as exc:
        return complain(exc, USAGE)
    timeout = 60.0 if options.timeout is None else options.timeout
    status = wait_ready(client, timeout) if options.wait else probe(client)
    if status.ready:
        status = _with_unserved(status, client)
    if options.json:
        print(json.dumps(asdict(status)))
    elif status.ready:
        print(f"runlane {status.version} at {status.url}: ready")
        for key, count in islice((status.unserved or {}).items(), _MAX_LINES):
            print(f"waiting without a worker: {one_line(key)} ({count})")
    if status.problem is not None and not options.json:
        complain(f"{status.url}: {status.problem}", FAILED)
    return DONE if status.ready else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="runlane status", description="Say whether the broker is there and ready.", epilog=_EPILOG
    )
    parser.add_argument("--wait", action="store_true", help="wait until it is")
    parser.add_argument("--timeout", metavar="SECONDS", type=seconds, help="how long (default: 60)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    add_flags(parser, ClientSection)
    return parser


def wait_ready(client: ClientSection, timeout: float) -> Status:
    """Look until the broker is ready, for so many seconds at most; return what was seen last."""
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        status = probe(client, min(max(left, 0.1), PATIENCE))
        left = deadline - time.monotonic()
        if status.ready or left <= 0:
            return status
        time.sleep(min(_PAUSE, left))


def probe(client: ClientSection, patience: float = PATIENCE) -> Status:
    """Ask the broker. Never raises."""
    try:
        version = _version(*_get(client, "/api/version", patience))
        code, _ = _get(client, "/readyz", patience)
    except _NoAnswer as exc:
        return Status(client.url, reachable=False, ready=False, problem=str(exc))
    ready = code == 200
    return Status(client.url, True, ready, version, None if ready else "not ready: it starts, or stops")


def _version(code: int, body: bytes) -> str:
    try:
        version = json.loads(body) if code == 200 else None
    except ValueError:
        version = None
    if not isinstance(version, str):
        raise _NoAnswer(f"is no Runlane broker, or not reached: /api/version answers {code}")
    return one_line(version)


def is_served(client: ClientSection, task_key: str, patience: float = PATIENCE) -> bool:
    """Say whether a worker is connected that serves a key; True where that cannot be known. Never raises."""
    body = json.dumps({"task_worker_filter": {"task_keys": [task_key]}}).encode()
    try:
        return _list(*_get(client, "/api/task_workers/filter", patience, body)) != []
    except _NoAnswer:
        return True


def _with_unserved(status: Status, client: ClientSection) -> Status:
    """Add what takes a token, or say what is wrong with that."""
    try:
        code, body = _get(client, "/api/task_workers/missing", PATIENCE)
    except _NoAnswer:
        return status
    if code == 401:
        return replace(status, problem=wanted_token(client))
    keys = _list(code, body)
    return status if keys is None else replace(status, unserved={key["task_key"]: key["waiting"] for key in keys})


def _list(code: int, body: bytes) -> list[dict[str, Any]] | None:
    """Return a list of objects; None for any other answer, as of an earlier broker."""
    try:
        answer = json.loads(body) if code == 200 else None
    except ValueError:
        return None
    return cast("list[dict[str, Any]]", answer) if isinstance(answer, list) else None


def _get(client: ClientSection, path: str, patience: float, body: bytes | None = None) -> tuple[int, bytes]:
    """Return the status and the body of an answer; `body`: post this. Raises `_NoAnswer`."""
    json_type = {} if body is None else {"Content-Type": "application/json"}
    request = Request(client.url + path, body, json_type)  # noqa: S310  (http or https: `Url` has seen to that)
    if client.token is not None:
        request.add_unredirected_header("Authorization", f"Bearer {client.token}")
    try:
        with urlopen(request, timeout=patience) as response:  # noqa: S310
            return response.status, response.read(_MAX_ANSWER)
    except HTTPError as exc:
        with exc:
            return exc.code, b""
    except (OSError, HTTPException, ValueError) as exc:
        raise _NoAnswer(not_reached(exc)) from None
