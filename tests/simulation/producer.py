"""A producer: it submits until it has an answer, watches what it has submitted, and asks for cancellations."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from runlane.protocol import messages as m
from runlane.protocol.codec import SUBMISSION_DOWN, encode, encode_part
from runlane.protocol.errors import FrameRefused
from runlane_broker.core.submit import payload_hash

from .. import judge as j
from .broker import VirtualClock
from .loop import Process
from .network import Link

#: Without an answer for so long, a submit is sent again. Seconds.
_PATIENCE: Final = 5.0


@dataclass
class Wish:
    """A run to be submitted at some time."""

    at: float
    run: m.NewRun
    watched: bool = True
    asked_at: float = -1000.0
    answered: bool = False
    known_as: str = ""
    watching: bool = False
    told: bool = False


@dataclass
class Producer:
    """One life of a producer; its wishes outlive its connections."""

    name: str
    process: Process
    wishes: list[Wish]
    batch: int
    source: random.Random
    clock: VirtualClock
    connect: Callable[[Producer], Link | None]
    note: Callable[[j.Event], None]
    link: Link | None = None
    _ready: bool = False
    _asked: dict[int, list[Wish]] = field(default_factory=dict)
    _number: int = 0

    def start(self) -> None:
        """Begin to submit."""
        self.process.spawn(self._run())

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def done(self) -> bool:
        """Whether every wish has been answered, and every watch."""
        return all(wish.answered and (wish.told or not wish.watched or not wish.known_as) for wish in self.wishes)

    async def _run(self) -> None:
        while True:
            self.link = self.connect(self)
            if self.link is not None:
                asking = asyncio.ensure_future(self._ask())
                await self._listen(self.link)
                asking.cancel()
                self._ready = False
                self.note(j.Fault(at=self.now, who=self.name, what="cut"))
                for wish in self.wishes:
                    wish.watching, wish.asked_at = False, -1000.0
                self._asked.clear()
                self.link.client.send(None)
                self.link = None
            await asyncio.sleep(self.source.uniform(0.02, 0.8))

    async def _listen(self, link: Link) -> None:
        while (text := await link.client.incoming.get()) is not None:
            for frame in SUBMISSION_DOWN.decode(text):
                assert not isinstance(frame, FrameRefused), frame
                self._on_frame(frame)

    async def _ask(self) -> None:
        while True:
            if self._ready:
                self._submit()
            await asyncio.sleep(0.1)

    def _send(self, frame: m.Frame) -> None:
        assert self.link is not None
        self.link.client.send(encode(frame).decode())

    def _submit(self) -> None:
        now = self.now
        due = [
            wish for wish in self.wishes if not wish.answered and max(wish.at, wish.asked_at + _PATIENCE) <= now
        ]
        if not due:
            return
        wishes = due[: self.source.randint(1, self.batch)]
        self._number += 1
        self._asked[self._number] = wishes
        for wish in wishes:
            wish.asked_at = self.now
            self._note_submitted(wish.run)
        self._send(m.Submit(ref=self._number, runs=tuple(encode_part(wish.run) for wish in wishes)))
        if self.source.random() < 0.5:
            self._watch([wish for wish in wishes if wish.watched and wish.run.idempotency_key is None])

    def _note_submitted(self, run: m.NewRun) -> None:
        self.note(
            j.Submitted(
                at=self.now,
                producer=self.name,
                run=run.id,
                key=run.task_key,
                payload=_payload(run),
                idempotency=run.idempotency_key,
                priority=run.priority,
                delayed=run.scheduled_time is not None,
            )
        )

    def _watch(self, wishes: list[Wish]) -> None:
        wanted = [wish for wish in wishes if not wish.watching and not wish.told]
        ids = list(dict.fromkeys(wish.known_as or wish.run.id for wish in wanted))
        for wish in wanted:
            wish.watching = True
        for run_id in ids:
            self.note(j.Watched(at=self.now, producer=self.name, run=run_id))
        if ids:
            self._send(m.Watch(ids=tuple(ids)))

    def _on_frame(self, frame: m.Frame) -> None:
        match frame:
            case m.AuthSuccess():
                self._ready = True
                self._watch([wish for wish in self.wishes if wish.known_as and wish.watched])
            case m.Submitted():
                self._on_submitted(frame)
            case m.Busy():
                for wish in self._asked.pop(int(frame.ref), []):
                    wish.asked_at = self.now + frame.retry_after_seconds - _PATIENCE
            case m.RunFinished():
                self.note(j.Told(at=self.now, producer=self.name, run=frame.id, type=frame.state.type.value))
                for wish in self.wishes:
                    if (wish.known_as or wish.run.id) == frame.id:
                        wish.told = True
            case m.Error():
                if frame.code != "not_found":
                    raise AssertionError(f"{self.name} was refused: {frame}")
                for wish in self.wishes:  # it was watched before it could be submitted
                    if frame.ref == wish.known_as:
                        raise AssertionError(f"{self.name} was told that there is no run which it has submitted")
                    if wish.run.id == frame.ref:
                        wish.watching = False
                self.note(j.Unwatched(at=self.now, producer=self.name, run=str(frame.ref)))
            case _:
                pass

    def _on_submitted(self, frame: m.Submitted) -> None:
        wishes = self._asked.pop(int(frame.ref), [])
        for wish, answer in zip(wishes, frame.runs, strict=bool(wishes)):
            wish.answered = True
            if answer.error is not None:
                self.note(j.Refused(at=self.now, producer=self.name, run=wish.run.id, code=answer.error.code))
                wish.watched = False
                continue
            wish.known_as = answer.id
            payload = _payload(wish.run)
            self.note(
                j.Acknowledged(at=self.now, producer=self.name, run=wish.run.id, as_run=answer.id, payload=payload)
            )
        self._watch([wish for wish in wishes if wish.known_as and wish.watched])


def _payload(run: m.NewRun) -> str:
    return payload_hash(run.task_key, bytes(run.parameters)).hex()


def new_run(run_id: str, key: str, source: random.Random, clock: VirtualClock, **fields: object) -> m.NewRun:
    """Return a run with parameters of its own."""
    parameters = msgspec.json.encode({"n": source.randrange(10**6)})
    return m.NewRun(id=run_id, task_key=key, parameters=msgspec.Raw(parameters), **fields)  # type: ignore[arg-type]


def in_seconds(clock: VirtualClock, seconds: float) -> datetime:
    """Return a time of day from now."""
    return datetime.fromtimestamp(clock.now() / 1e6, UTC) + timedelta(seconds=seconds)
