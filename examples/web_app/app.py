"""A web server that has its work done by workers, and shows how far that is."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.routing import Route
from tasks import render

from runlane import ArgumentError, Client, RunFuture, RunlaneError, RunProgress

SUBMIT_SECONDS = 2.0  #: that a request waits for a broker which is away; `adelay` alone would wait for ever


async def index(_: Request) -> FileResponse:
    return FileResponse(Path(__file__).with_name("index.html"))


async def create(request: Request) -> JSONResponse:
    try:
        pages = int((await request.json())["pages"])
    except (ValueError, TypeError, KeyError):
        return JSONResponse({"detail": "'pages' must be a number"}, status_code=422)
    try:
        async with asyncio.timeout(SUBMIT_SECONDS):
            future = await render.adelay(pages)
    except TimeoutError:
        return JSONResponse(
            {"detail": "the broker cannot be reached"}, status_code=503, headers={"retry-after": "5"}
        )
    return JSONResponse({"id": future.id}, status_code=202)


async def events(request: Request) -> StreamingResponse | JSONResponse:
    """Follow a run by its id: this need not be the server that has submitted it."""
    try:
        future = render.future(request.path_params["id"])
    except ArgumentError as exc:
        return JSONResponse({"detail": str(exc)}, status_code=404)
    return StreamingResponse(
        follow(request.state.client, future),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def follow(client: Client, future: RunFuture[str]) -> AsyncIterator[str]:
    news: asyncio.Queue[RunProgress | None] = asyncio.Queue()
    end = client.watch(future.id, on_progress=news.put_nowait)
    end.add_done_callback(lambda _: news.put_nowait(None))
    try:
        while progress := await news.get():
            yield event("progress", current=progress.current, total=progress.total, message=progress.message)
        yield event("result", value=await future)
    except RunlaneError as exc:
        yield event("failure", message=getattr(exc, "message", str(exc)))
    finally:
        end.cancel()  # the browser may have left: nobody needs to be told any more


def event(name: str, **data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
    async with Client() as client:  # one connection to the broker, for everything that this server does
        yield {"client": client}


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", index),
        Route("/reports", create, methods=["POST"]),
        Route("/reports/{id}/events", events),
    ],
)
