"""The submission socket: runs up, their ends down."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import msgspec
from starlette.websockets import WebSocket

from runlane.protocol import codec, limits
from runlane.protocol import messages as m
from runlane.protocol.closing import CloseCode
from runlane.protocol.conversation import submission_conversation
from runlane.protocol.errors import ErrorCode, FrameRefused
from runlane.protocol.ids import is_id
from runlane.protocol.payloads import ABSENT

from ..access import Access
from ..core.core import Core
from ..core.submit import conflict_code, new_run
from ..errors import Overloaded, StoreUnavailable
from ..storage.records import Created, Creation, FinalRun, NewRunRecord, TransitionOutcome
from .connection import Connection, Handler

_CREATED = (Creation.CREATED, Creation.LEASED)
_REFUSED = {
    Creation.ID_CONFLICT: "this id is taken by a run with another key or other parameters",
    Creation.IDEMPOTENCY_CONFLICT: "this idempotency key is taken by a run with other parameters",
}


#: Runs that are looked for in one go, at most: results may be large, and who asks for them may not take them. What
#: several frames ask for is looked for together: few at first, more while what is found does not pile up.
_IDS_PER_LOOK = 50
_FEW = 4

#: What an item costs of a `submit` that creates nothing, and all of them together at most.
_VAIN_ITEM = 2.5
_VAIN_SUBMIT = 1000.0
#: What it costs to watch a run that there is not, or once more on one connection; and how many are remembered.
_VAIN_WATCH = 0.02
_TOLD = 1000

#: Characters of an item's error: as many answers as a frame may have items must fit into one message.
_MAX_ITEM_TEXT = 120


class _Sought(NamedTuple):
    """Runs that are to be looked for."""

    ids: Sequence[str]
    #: Which of the connection's questions it is, or a part of.
    question: int
    #: What was submitted before.
    before: asyncio.Future[None] | None
    #: Called when the question is answered: by its last part.
    release: Callable[[], None] | None


class SubmissionConnection(Connection):
    """A producer's connection; to the core it is a `Watcher`."""

    #: A stranger can ask for very much, and take none of it.
    strangers_high_water = 64 * 1024

    def __init__(self, socket: WebSocket, core: Core, access: Access) -> None:
        super().__init__(socket, core, access, submission_conversation(), codec.SUBMISSION_UP)
        #: What is watched, and the question of which each run expects its answer: the last that named it.
        self._watched: dict[str, int] = {}
        self._questions = 0
        #: Some of those whose end was told here.
        self._told: set[str] = set()
        self._sought: deque[_Sought] = deque()
        #: Those that are being looked for at this moment.
        self._sought_now: frozenset[str] = frozenset()
        self._looking: asyncio.Task[None] | None = None
        self._together = _FEW
        self._clear = asyncio.Event()
        self._clear.set()
        self._last_submit: asyncio.Future[None] | None = None

    async def _take(self, text: str) -> None:
        """Take a message's frames, of a peer that takes what it is sent: it may not ask for more before that."""
        await self._clear.wait()
        await super()._take(text)

    # Submitting --------------------------------------------------------------------------------------------

    def _on_submit(self, frame: m.Submit, size: int) -> None:
        try:
            self._core.submissions.check_load()
        except Overloaded as exc:
            self.send(m.Busy(ref=frame.ref, retry_after_seconds=exc.retry_after))
            return
        items = [self._parse(raw, i) for i, raw in enumerate(frame.runs)]
        records = [item for item in items if isinstance(item, NewRunRecord)]
        self._last_submit = committed = asyncio.get_running_loop().create_future()
        done = partial(self._submitted, frame.ref, items, committed, self.hold(size))
        if records:
            self._core.submissions.submit(records, done)
        else:
            done(())
            self.in_vain(min(max(0.5, _VAIN_ITEM * len(items)), _VAIN_SUBMIT))

    def _parse(self, raw: msgspec.Raw, index: int) -> NewRunRecord | m.SubmittedRun:
        place = f"runs[{index}]"
        try:
            return new_run(codec.decode_new_run(raw, place, limits.MAX_PAYLOAD_BYTES), self._core.clock.now())
        except FrameRefused as exc:
            return _refused(_id_of(raw), exc.code, exc.message, exc.field)

    def _submitted(
        self,
        ref: int | str,
        items: Sequence[NewRunRecord | m.SubmittedRun],
        committed: asyncio.Future[None],
        release: Callable[[], None],
        outcomes: Any,
    ) -> None:
        release()
        committed.set_result(None)
        if isinstance(outcomes, StoreUnavailable):
            self.send(m.Busy(ref=ref, retry_after_seconds=1.0))
            return
        if isinstance(outcomes, Exception):
            self.send(
                m.Error(code=ErrorCode.INTERNAL, message="the runs were not created", frame="submit", ref=ref)
            )
            return
        results = iter(outcomes)
        if any(created.how in _CREATED for created in outcomes):
            self.of_use()
        answers = (item if isinstance(item, m.SubmittedRun) else _answer(item, next(results)) for item in items)
        self.send(m.Submitted(ref=ref, runs=tuple(answers)))
        # What was looked for a moment ago, and perhaps not found: nobody shall hear of that after this.
        again = [run.id for run in outcomes if run.id in self._sought_now and run.id in self._watched]
        if again:
            self._seek(again)

    # Watching ----------------------------------------------------------------------------------------------

    def _on_watch(self, frame: m.Watch, size: int) -> None:
        again = sum(run_id in self._watched or run_id in self._told for run_id in frame.ids)
        self.in_vain(again * _VAIN_WATCH)
        self._core.watching.watch(self, frame.ids)
        self._seek(frame.ids, self.hold(size))

    def _seek(self, ids: Sequence[str], release: Callable[[], None] | None = None) -> None:
        """Look for these, after what was submitted before. Earlier questions for them need no answer any more."""
        self._questions = question = self._questions + 1
        self._watched.update(dict.fromkeys(ids, question))
        chunks = [ids[at : at + _IDS_PER_LOOK] for at in range(0, len(ids), _IDS_PER_LOOK)] or [()]
        for chunk in chunks:
            last = release if chunk is chunks[-1] else None
            self._sought.append(_Sought(chunk, question, self._last_submit, last))
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_up())

    async def _look_up(self) -> None:
        """Look for what is sought, until there is nothing, and only while what was found has been taken.

        That is after what was submitted before on this connection: frames are taken in their order.
        """
        try:
            while self._sought:
                await self._clear.wait()
                batch = self._next_look()
                for before in {sought.before for sought in batch if sought.before is not None}:
                    await asyncio.shield(before)
                ids = [run_id for sought in batch for run_id in sought.ids]
                self._sought_now = frozenset(ids)
                ended, unknown = await self._core.watching.look_up(self, ids)
                self._sought_now = frozenset()
                # What was asked for again meanwhile has its answer coming: there may be such a run by now.
                self._not_found([run_id for run_id in unknown if self._watched[run_id] <= batch[-1].question])
                await self._tell(ended)
                self._together = _FEW if self._outbox.congested else min(2 * self._together, _IDS_PER_LOOK)
                for sought in batch:
                    if sought.release is not None:
                        sought.release()
        except StoreUnavailable:
            self.close(CloseCode.OVERLOADED, "the database cannot be read now")
        finally:
            self._looking = None

    def _next_look(self) -> list[_Sought]:
        batch = [self._sought.popleft()]
        room = self._together - len(batch[0].ids)
        while self._sought and len(self._sought[0].ids) <= room:
            batch.append(self._sought.popleft())
            room -= len(batch[-1].ids)
        return batch

    async def _tell(self, ended: Sequence[FinalRun]) -> None:
        """Tell of these, unless it does not want to know any more. Results may be large, and many may ask."""
        for run in ended:
            await self._clear.wait()
            await self._standing.turn()
            if run.id in self._watched:
                self.run_finished(run)
                self._core.watching.unwatch(self, [run.id])  # it may have been asked for again meanwhile

    def _not_found(self, unknown: Sequence[str]) -> None:
        self.in_vain(len(unknown) * _VAIN_WATCH)
        self._forget(unknown)
        for run_id in unknown:
            self.send(m.Error(code=ErrorCode.NOT_FOUND, message="there is no such run", frame="watch", ref=run_id))

    def _on_unwatch(self, frame: m.Unwatch, _size: int) -> None:
        self._forget(frame.ids)

    def _forget(self, ids: Sequence[str]) -> None:
        for run_id in ids:
            self._watched.pop(run_id, None)
        self._core.watching.unwatch(self, ids)

    def run_finished(self, run: FinalRun) -> None:
        """Push the end of a run."""
        self._talk.become_known()
        self._watched.pop(run.id, None)
        if len(self._told) >= _TOLD:
            self._told.clear()
        self._told.add(run.id)
        self.send(
            m.RunFinished(
                id=run.id,
                state=m.RunState(type=run.type, name=run.name, message=run.message),
                result=ABSENT if run.result is None else msgspec.Raw(run.result),
                error=ABSENT if run.error is None else msgspec.Raw(run.error),
            )
        )

    def run_progress(self, run_id: str, current: float, total: float | None, message: str | None) -> None:
        """Push a run's progress; a congested connection gets the next one."""
        if not self._outbox.congested:
            self.send(m.RunProgress(id=run_id, current=current, total=total, message=message))

    def on_congested(self) -> None:
        """Look for nothing more that would have to wait here."""
        self._clear.clear()

    def on_clear(self) -> None:
        """Look again."""
        self._clear.set()

    # Cancelling --------------------------------------------------------------------------------------------

    def _on_cancel(self, frame: m.Cancel, size: int) -> None:
        """Cancel these, in one transaction. It is taken while new runs are put off, too: it makes less work."""
        self._core.cancellations.submit(frame.ids, partial(self._cancelled, frame, self.hold(size)))

    def _cancelled(self, frame: m.Cancel, release: Callable[[], None], outcomes: Any) -> None:
        release()
        if isinstance(outcomes, StoreUnavailable):
            self.send(m.Busy(ref=frame.ref, retry_after_seconds=1.0))
            return
        if isinstance(outcomes, Exception):
            message = "the runs were not cancelled"
            self.send(m.Error(code=ErrorCode.INTERNAL, message=message, frame="cancel", ref=frame.ref))
            return
        runs = zip(frame.ids, outcomes, strict=True)
        self.send(m.Cancelled(ref=frame.ref, runs=tuple(_cancelled(run_id, outcome) for run_id, outcome in runs)))

    # The rest ----------------------------------------------------------------------------------------------

    def _on_quit(self, _frame: m.Quit, _size: int) -> None:
        self.close(CloseCode.NORMAL, "goodbye")

    handlers: ClassVar[Mapping[type[m.Frame], Handler]] = {
        m.Auth: Connection.on_auth,
        m.Submit: _on_submit,
        m.Watch: _on_watch,
        m.Unwatch: _on_unwatch,
        m.Cancel: _on_cancel,
        m.Beat: Connection.on_beat,
        m.Quit: _on_quit,
    }

    async def run(self) -> None:
        """Serve the connection to its end, and that of what it reads."""
        try:
            await super().run()
        finally:
            if self._looking is not None:
                await asyncio.gather(self._looking, return_exceptions=True)

    def on_closed(self) -> None:
        """Nobody is there to be told."""
        if self._looking is not None:
            self._looking.cancel()
        self._sought.clear()  # what is called when it is found leads back here
        self._core.watching.unwatch(self, tuple(self._watched))


class _Head(msgspec.Struct):
    id: str = ""


_head = msgspec.json.Decoder(_Head)


def _id_of(raw: msgspec.Raw) -> str:
    """Return the id of an item that is otherwise wrong, so that its sender knows which it was.

    Only where it is an id: an answer must not outgrow the question.
    """
    try:
        run_id = _head.decode(raw).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return run_id if is_id(run_id) else ""


def _refused(run_id: str, code: ErrorCode, message: str, field: str | None = None) -> m.SubmittedRun:
    """Return the answer to a refused item: short, for a frame may have a thousand of them."""
    field = None if field is None else field[:_MAX_ITEM_TEXT]
    error = m.ItemError(code=code, message=message[:_MAX_ITEM_TEXT], field=field)
    return m.SubmittedRun(id=run_id, created=False, error=error)


def _answer(run: NewRunRecord, created: Created) -> m.SubmittedRun:
    code = conflict_code(created.how)
    if code is not None:
        return _refused(run.id, code, _REFUSED[created.how])
    return m.SubmittedRun(id=created.id, created=created.how is not Creation.EXISTED)


def _cancelled(run_id: str, outcome: TransitionOutcome | None) -> m.CancelledRun:
    """Return what has become of a run, in a few words: a frame may have a thousand of them."""
    if outcome is None:
        return m.CancelledRun(id=run_id, error=m.ItemError(code=ErrorCode.NOT_FOUND, message="no such run"))
    return m.CancelledRun(
        id=run_id, state=m.RunState(type=outcome.state.type, name=outcome.state.name[:_MAX_ITEM_TEXT])
    )
