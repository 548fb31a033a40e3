"""The small routes that Prefect's clients call in passing: CSRF, storage, logs, the events of a batch."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

from msgspec import Meta, Raw, Struct
from starlette.exceptions import HTTPException

from runlane.protocol.ids import uuid7
from runlane.protocol.messages import Time

from ..api.routes import Route
from ..clock import to_datetime, to_micros
from ..core.core import Core
from ..schemas.base import Paged
from ..schemas.ids import Id
from ..storage.operations.keeping import LogLine
from .blocks import TAG
from .reading import read_events

#: Bytes of lines, or of events, in one request.
_MAX_BYTES: Final = 8 * 1024 * 1024

_Level: TypeAlias = Annotated[int, Meta(ge=-32768, le=32767)]


class LogCreate(Struct):
    """A line of a log."""

    name: str
    level: _Level
    message: str
    timestamp: Time
    flow_run_id: Id | None = None
    task_run_id: Id | None = None


class Log(Struct):
    """A line of a log, as it is shown."""

    id: str
    created: Time
    updated: Time
    name: str
    level: int
    message: str
    timestamp: Time
    flow_run_id: str | None
    task_run_id: str | None


class AnyOfIds(Struct):
    """Those with one of these ids."""

    any_: list[Id] | None = None


class LevelFilter(Struct):
    """Those of this level and above."""

    ge_: int | None = None


class TimestampFilter(Struct):
    """Those of a stretch of time."""

    after_: Time | None = None
    before_: Time | None = None


class LogFilter(Struct):
    """Which lines."""

    operator: str | None = None
    task_run_id: AnyOfIds | None = None
    flow_run_id: AnyOfIds | None = None
    level: LevelFilter | None = None
    timestamp: TimestampFilter | None = None


class LogsFilter(Paged):
    """Which lines, in which order."""

    logs: LogFilter | None = None
    sort: Literal["TIMESTAMP_ASC", "TIMESTAMP_DESC"] = "TIMESTAMP_ASC"


class Client(Struct):
    """Who asks."""

    client: str = ""


class Small:
    """The use cases, on one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def csrf_token(self, query: Client) -> None:
        """There are no CSRF tokens: what keeps other sites' pages out is their `Origin`."""
        raise HTTPException(422, "CSRF protection is disabled.")

    async def storage(self) -> dict[str, Any]:
        """Results lie where the clients' own settings say."""
        return {"default_result_storage_block_id": None}

    async def log(self, body: list[LogCreate]) -> None:
        """Keep lines."""
        await self._core.keeping.log(
            [
                LogLine(
                    uuid7(),
                    _lower(line.task_run_id),
                    _lower(line.flow_run_id),
                    line.level,
                    line.name[:200],
                    line.message,
                    to_micros(line.timestamp),
                )
                for line in body
            ]
        )

    async def logs(self, body: LogsFilter) -> list[Log]:
        """Return lines."""
        wanted = body.logs or LogFilter()
        level, timestamp = wanted.level or LevelFilter(), wanted.timestamp or TimestampFilter()
        lines = await self._core.store.kept.log(
            body.size,
            body.offset or 0,
            task_run_ids=_ids(wanted.task_run_id),
            flow_run_ids=_ids(wanted.flow_run_id),
            from_level=level.ge_,
            after=None if timestamp.after_ is None else to_micros(timestamp.after_),
            before=None if timestamp.before_ is None else to_micros(timestamp.before_),
            descending=body.sort == "TIMESTAMP_DESC",
        )
        return [_shown(line) for line in lines]

    async def events(self, body: Raw) -> None:
        """Record events that come without a socket."""
        if reports := read_events(bytes(body)):
            await self._core.events.reporter().record(reports)


def _shown(line: LogLine) -> Log:
    timestamp = to_datetime(line.timestamp)
    return Log(
        id=line.id,
        created=timestamp,
        updated=timestamp,
        name=line.name,
        level=line.level,
        message=line.message,
        timestamp=timestamp,
        flow_run_id=line.flow_run_id,
        task_run_id=line.task_run_id,
    )


def _ids(any_of: AnyOfIds | None) -> list[str] | None:
    return None if any_of is None or any_of.any_ is None else [one.lower() for one in any_of.any_]


def _lower(id_: str | None) -> str | None:
    return None if id_ is None else id_.lower()


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    small = Small(core)
    return [
        Route(
            method="GET",
            path="/api/csrf-token",
            handler=small.csrf_token,
            summary="Say that there are no CSRF tokens",
            tag=TAG,
            answers={422: None},
            query=Client,
        ),
        Route(
            method="GET",
            path="/api/admin/storage",
            handler=small.storage,
            summary="Say where results lie",
            tag=TAG,
            answers={200: dict[str, Any]},
        ),
        Route(
            method="POST",
            path="/api/logs/",
            handler=small.log,
            summary="Keep lines of logs",
            tag=TAG,
            answers={201: type(None)},
            body=list[LogCreate],
            max_bytes=_MAX_BYTES,
        ),
        Route(
            method="POST",
            path="/api/logs/filter",
            handler=small.logs,
            summary="List lines of logs",
            tag=TAG,
            answers={200: list[Log]},
            body=LogsFilter,
        ),
        Route(
            method="POST",
            path="/api/events",
            handler=small.events,
            summary="Record events",
            tag=TAG,
            answers={204: None},
            body=Raw,
            max_bytes=_MAX_BYTES,
        ),
    ]
