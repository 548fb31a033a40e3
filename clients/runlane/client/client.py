"""The client: one connection to the submission socket, made when first needed and kept up from then on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any, Final, Self

from ..errors import ClientClosed, RunlaneError, SubmitRefused
from ..protocol import codec
from ..protocol.conversation import submission_conversation
from ..protocol.messages import (
    Busy,
    Cancelled,
    CancelledRun,
    Error,
    Frame,
    NewRun,
    RunFinished,
    RunProgress,
    SubmissionDown,
    Submitted,
    SubmittedRun,
)
from ..settings import Settings, load_settings, submission_url
from ..transport import Link, dial, keep_connected
from . import current, portal
from .cancels import Cancels
from .submissions import Submissions
from .watches import ProgressCallback, Watches

#: Seconds that sync code waits for a submit to be confirmed, by default.
SUBMIT_SECONDS: Final = 30.0


class Client:
    """Submits runs and hears of their ends. Belongs to the event loop that it is first used in.

    Used with `async with`, it is the client that tasks submit through in that loop, until it is closed; used
    with `with`, it is the one of the sync code of the whole process. A broker that cannot be reached is tried
    again and again. Async code bounds the waiting with `asyncio.timeout`, and sync code does not wait for longer
    than `submit_timeout` seconds (None: for ever). Raises `SettingsError`.
    """

    def __init__(self, settings: Settings | None = None, *, submit_timeout: float | None = SUBMIT_SECONDS) -> None:
        self.settings: Final = settings or load_settings()
        self.submit_timeout: Final = submit_timeout
        self._begin()

    def _begin(self) -> None:
        self._submissions = Submissions()
        self._watches = Watches()
        self._cancels = Cancels()
        self._keeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        #: Why the broker could not be reached at the last try; None where it could.
        self.trouble: str | None = None

    def __repr__(self) -> str:
        return f"<Client of {self.settings.url}: {self._submissions!r}, {self._watches!r}>"

    async def __aenter__(self) -> Self:
        self._bind()
        current.enter(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        current.leave(self)
        await self.aclose()

    def __enter__(self) -> Self:
        portal.may_block("`with Client()`", "async with Client()")
        return portal.run_sync(self.__aenter__())

    def __exit__(self, *_: object) -> None:
        with suppress(ClientClosed):  # the interpreter exits, and has closed it
            portal.run_sync(self.__aexit__())

    async def submit(self, runs: Iterable[NewRun]) -> list[SubmittedRun]:
        """Create runs and return the broker's answers, in order, once they are committed.

        Calls that wait at the same time share frames. Not atomic: many runs are split over several frames.
        Raises `SubmitRefused` for the first run that was refused (the others are there), `ConnectionFailed`,
        and `ClientClosed`.
        """
        answers = await self.submit_each(runs)
        for answer in answers:
            if answer.error is not None:
                raise SubmitRefused.of(answer.error)
        return answers

    async def submit_each(self, runs: Iterable[NewRun]) -> list[SubmittedRun]:
        """Create runs as `submit` does; a run that was refused has its `error` in the answer."""
        self._use()
        return await self._submissions.put(runs)

    async def cancel(self, run_ids: Sequence[str]) -> list[CancelledRun]:
        """Have runs cancelled, and return the broker's answers, in order, once they are committed.

        Not atomic: many are split over several frames. Each answer has the run's state, or an `error` where there
        is no such run. Raises `CancelRefused`, `ConnectionFailed` and `ClientClosed`.
        """
        self._use()
        return await self._cancels.put(run_ids)

    def watch(self, run_id: str, on_progress: ProgressCallback | None = None) -> asyncio.Future[RunFinished]:
        """Return a future of the run's end, pushed by the broker; cancelling it ends the watch.

        It fails with `RunNotFound`, `ConnectionFailed` or `ClientClosed`. `on_progress` is called with what
        the task says of its progress meanwhile.
        """
        self._use()
        return self._watches.add(run_id, on_progress)

    async def aclose(self) -> None:
        """Close the connection; whoever waits gets `ClientClosed`."""
        self._closed = True
        self._fail(ClientClosed("the client is closed"))
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])

    def forked(self) -> object:
        """Begin anew in a forked child; return what was the parent's, which must not be destroyed there."""
        before = vars(self).copy()
        self._begin()
        return before

    def _use(self) -> None:
        """Check that the client can be used here, and make sure that it connects."""
        self._bind()
        if self._keeper is None:
            # In a context of its own, or it would keep that of whoever came first for good.
            self._keeper = asyncio.create_task(self._keep(), name="runlane client", context=Context())

    @property
    def is_here(self) -> bool:
        """Whether the running loop is the client's own."""
        return self._loop is asyncio.get_running_loop()

    def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._closed or self._loop is not loop:
            raise ClientClosed("the client is closed" if self._closed else "the client belongs to another loop")

    async def _keep(self) -> None:
        url = submission_url(self.settings)
        try:
            await keep_connected(
                lambda seconds: dial(
                    url, self.settings.token, submission_conversation(), codec.SUBMISSION_DOWN, seconds
                ),
                self,
                url,
            )
        except RunlaneError as exc:
            self._fail(exc)
        except BaseException:
            self._fail(ClientClosed("the client has stopped"))
            raise
        finally:
            self._keeper = None  # the next call tries anew

    def _fail(self, error: RunlaneError) -> None:
        self._submissions.fail(error)
        self._watches.fail(error)
        self._cancels.fail(error)

    # --- What the transport calls ------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """A client is ended by cancelling its task alone."""
        return False

    @property
    def resume_seconds(self) -> float | None:
        """A producer has no session: unanswered submits are simply sent again."""
        return None

    @property
    def holds_runs(self) -> bool:
        """A producer holds none."""
        return False

    def unreachable(self, reason: str) -> None:
        """Keep the reason for whoever loses patience."""
        self.trouble = reason

    def opened(self, link: Link[Any]) -> None:
        """Send what an earlier connection left open."""
        self.trouble = None
        self._submissions.opened(link.send, link.welcome.max_message_bytes)
        self._watches.opened(link.send)
        self._cancels.opened(link.send)

    def lost(self) -> None:
        """Hold back what comes until there is a connection again."""
        self._submissions.lost()
        self._watches.lost()
        self._cancels.lost()

    def on_frame(self, frame: SubmissionDown | Frame) -> None:
        """Hand a frame to whom it concerns."""
        match frame:
            case Submitted():
                self._submissions.on_submitted(frame)
            case RunFinished():
                self._watches.on_finished(frame)
            case RunProgress():
                self._watches.on_progress(frame)
            case Cancelled():
                self._cancels.on_cancelled(frame)
            case Busy():
                self._submissions.on_busy(frame)
                self._cancels.on_busy(frame)
            case Error():
                self._submissions.on_error(frame)
                self._watches.on_error(frame)
                self._cancels.on_error(frame)
            case _:  # beats, draining: a close follows, or nothing does
                pass


def current_client() -> Client:
    """Return the running loop's client, made from the environment where there is none.

    Raises `SettingsError`.
    """
    client = current.innermost()
    if client is None:
        settings = current.overridden()
        client = Client(settings)
        if settings is None:
            current.enter(client)
        else:
            current.keep(client)
    return client


def client_here() -> Client | None:
    """Return the running loop's client, if it has one."""
    return current.innermost()


def client_like(client: Client | None) -> Client:
    """Return this client where it is the running loop's, else one of the running loop with its settings."""
    if client is None:
        return current_client()
    if client.is_here:
        return client
    found = current.with_settings(client.settings)
    if found is None:
        found = Client(client.settings, submit_timeout=client.submit_timeout)
        current.keep(found)
    return found
