"""What can be said of a task and of a run, beside the arguments: checked at once, by the wire's own rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias, TypedDict, cast

import msgspec

from .client import current
from .errors import ArgumentError
from .protocol import codec
from .protocol.errors import FrameRefused
from .protocol.ids import uuid7
from .protocol.limits import MAX_PAYLOAD_BYTES
from .protocol.messages import NewRun
from .serializers import CONTENT_TYPE, Serializer

#: Where a worker executes a task: its event loop, a thread, or a process.
Pool: TypeAlias = Literal["async", "thread", "process"]
#: Seconds, or a `timedelta`.
Duration: TypeAlias = float | timedelta
#: What `except` takes.
ExceptionTypes: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]

#: Seconds that a run may wait, and live, at most: ten years, as for any duration of the wire.
_LONGEST: Final = 315_360_000.0


class _Common(TypedDict, total=False):
    """What a task sets for all of its runs, and a run for itself. Durations are seconds or a `timedelta`.

    `retries`: how often a failed run is tried again; `retry_delay`: how long after (one, or one per retry;
    the last one counts for all further), of which up to the share `retry_jitter` is added at random.
    `timeout`: of one execution. `expires`: not started after this. `priority`: 0 to 9, higher first.
    `tags`: for finding runs. `headers`: texts that the worker gets as they are.
    """

    retries: int
    retry_delay: Duration | Sequence[Duration]
    retry_jitter: float
    timeout: Duration | None
    expires: Duration | datetime | None
    priority: int
    tags: Iterable[str]
    headers: Mapping[str, str]


class TaskOptions(_Common, total=False):
    """What `@task` takes, beside what a run can have, too: `retries`, `timeout`, `priority` …

    `key`: the task's stable name; by default `module.function`. `pool`: where a worker executes it; by default
    its event loop (`async def`) or a thread. `fence`: cancel an execution whose worker cannot reach the broker,
    before its lease can be elsewhere. `serializer`: another form than JSON for arguments and results.
    `retry_on`: of the exceptions that the task raises, only these are retried; `no_retry_on`: these are not.
    """

    key: str | None
    pool: Pool | None
    fence: bool
    serializer: Serializer | None
    retry_on: ExceptionTypes
    no_retry_on: ExceptionTypes


class RunOptions(_Common, total=False):
    """What `.options(…)` takes, in place of the task's own `retries`, `timeout`, `priority` …

    `delay` (or `countdown`): not before this long from the submission; `eta`: not before this time. `expires`:
    not started after this time, or this long from the submission. Times have a time zone. `idempotency_key`:
    while a run of the task has it, no second one is created. `name`: for people to read.
    """

    delay: Duration | None
    countdown: Duration | None
    eta: datetime | None
    idempotency_key: str | None
    name: str | None


_COMMON: Final = _Common.__optional_keys__
_TASK: Final = TaskOptions.__optional_keys__
_RUN: Final = RunOptions.__optional_keys__


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How runs are submitted: what they have in common, and the times that count from each submission."""

    template: NewRun
    delay: float | None = None  # seconds
    eta: datetime | None = None
    expires: float | datetime | None = None

    def run(self, parameters: msgspec.Raw) -> NewRun:
        """Return a new run with these parameters."""
        if self.delay is None and self.eta is None and self.expires is None:
            return msgspec.structs.replace(self.template, id=uuid7(), parameters=parameters)
        now = current.now()
        start = self.eta if self.delay is None else now + timedelta(seconds=self.delay)
        end = self.expires
        if end is not None and not isinstance(end, datetime):
            end = now + timedelta(seconds=end)
        if start is not None and end is not None and end <= start:
            raise ArgumentError("expires: the run would expire before it may start")
        return msgspec.structs.replace(
            self.template, id=uuid7(), parameters=parameters, scheduled_time=start, expires=end
        )

    def changed(self, options: Mapping[str, Any]) -> RunPlan:
        """Return a plan with these `RunOptions` instead. Raises `ArgumentError`."""
        check_names(options, _RUN)
        plan = self._with_start(options)
        if "expires" in options:
            plan = replace(plan, expires=_expiry(options["expires"]))
        fields = {name: value for name, value in options.items() if name in _FIELDS}
        return replace(plan, template=_template(self.template, fields)) if fields else plan

    def _with_start(self, options: Mapping[str, Any]) -> RunPlan:
        given = {name: options[name] for name in ("delay", "countdown", "eta") if options.get(name) is not None}
        if len(given) > 1:
            raise ArgumentError(f"{' and '.join(given)} say the same thing: give one of them")
        match given.popitem() if given else None:
            case None:
                return self
            case ("eta", eta):
                return replace(self, delay=None, eta=_time(eta, "eta"))
            case (name, delay):
                return replace(self, delay=_seconds(delay, name), eta=None)


def task_plan(key: str, options: TaskOptions, headers: Mapping[str, str]) -> RunPlan:
    """Return how a task's runs are submitted; `headers` are those of its form. Raises `ArgumentError`."""
    check_names(options, _TASK)
    blank = NewRun(id=uuid7(), task_key=key, headers=dict(headers))
    common = {name: value for name, value in options.items() if name in _COMMON}
    return RunPlan(_template(blank, {})).changed(common)


def check_names(options: Mapping[str, Any], known: frozenset[str]) -> None:
    """Refuse an option that there is not. Raises `ArgumentError`."""
    if unknown := sorted(options.keys() - known):
        raise ArgumentError(f"there is no option {unknown[0]!r}; there are {', '.join(sorted(known))}")


def _template(before: NewRun, options: Mapping[str, Any]) -> NewRun:
    """Return a run with these fields, held to the wire's own rules. Raises `ArgumentError`."""
    changes = {name: _FIELDS[name](value, before) for name, value in options.items()}
    run = msgspec.structs.replace(before, **changes)
    try:
        codec.decode_new_run(codec.encode_part(run), "options", MAX_PAYLOAD_BYTES)
    except FrameRefused as exc:
        name = (exc.field or "").removeprefix("options.").replace("task_key", "key")
        raise ArgumentError(f"{name}: {exc.message.partition(' - at `$')[0]}") from None
    except (TypeError, UnicodeEncodeError) as exc:  # of a type, or a text, that JSON has not
        raise ArgumentError(f"{', '.join(changes) or 'key'}: {exc}") from None
    return run


def _headers(value: Mapping[str, str], before: NewRun) -> dict[str, str]:
    if not isinstance(cast("object", value), Mapping):
        raise ArgumentError(f"headers: texts by name, not {type(value).__name__}")
    if CONTENT_TYPE in value:
        raise ArgumentError(f"headers: {CONTENT_TYPE!r} is the serializer's")
    own = {name: text for name, text in before.headers.items() if name == CONTENT_TYPE}
    return {**value, **own}


def _tags(value: Iterable[str], _: NewRun) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(cast("object", value), Iterable):
        raise ArgumentError(f"tags: a list of texts, not {'a text' if isinstance(value, str) else repr(value)}")
    return tuple(value)


def _retry_delay(value: Duration | Sequence[Duration], _: NewRun) -> float | tuple[float, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_seconds(one, "retry_delay") for one in value)
    return _seconds(value, "retry_delay")


def _timeout(value: Duration | None, _: NewRun) -> float | None:
    return None if value is None else _seconds(value, "timeout")


def _same(value: Any, _: NewRun) -> Any:
    return value


#: What becomes a field of the run, and how.
_FIELDS: Final = {
    "headers": _headers,
    "idempotency_key": _same,
    "name": _same,
    "priority": _same,
    "retries": _same,
    "retry_delay": _retry_delay,
    "retry_jitter": _same,
    "tags": _tags,
    "timeout": _timeout,
}


def _expiry(value: Any) -> float | datetime | None:
    if value is None or isinstance(value, datetime):
        return value and _time(value, "expires")
    seconds = _seconds(value, "expires")
    if seconds == 0:
        raise ArgumentError("expires: more than no time at all")
    return seconds


def _time(value: Any, name: str) -> datetime:
    if not isinstance(value, datetime):
        raise ArgumentError(f"{name}: a datetime, not {type(value).__name__}")
    if value.utcoffset() is None:
        raise ArgumentError(
            f"{name}: {value} has no time zone; say which: datetime(…, tzinfo=UTC), or .astimezone()"
        )
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ArgumentError(f"{name}: {value} is not between the years 1 and 9999 of UTC") from None


def _seconds(value: Any, name: str) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ArgumentError(f"{name}: seconds or a timedelta, not {type(cast('object', value)).__name__}")
    if not math.isfinite(seconds) or not 0 <= seconds <= _LONGEST:
        raise ArgumentError(f"{name}: {value} is not between 0 and {_LONGEST:.0f} seconds")
    return float(seconds)
