"""A worker: it speaks the protocol as the real one does, and makes all the mistakes that it may."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from runlane.protocol import messages as m
from runlane.protocol.codec import WORKER_DOWN, encode
from runlane.protocol.errors import FrameRefused

from .. import judge as j
from .loop import Process
from .network import Link

Lease = tuple[str, int]
#: A report without a verdict is repeated after this long. Seconds.
_REMIND: Final = 10.0
#: A run is started, or given back, within this time. Seconds.
_STARTS_WITHIN: Final = 4.0


@dataclass
class Manners:
    """How a worker behaves: probabilities for each run, and seconds."""

    starts_in: float = 0.01
    takes: float = 0.3
    slow_start: float = 0.0
    fails: float = 0.0
    gives_back: float = 0.0
    finishes_though_cancelled: float = 0.3
    #: Within this time it tries again where it has no connection; less than half of the grace.
    returns_in: float = 0.8
    #: It speaks of a lease that is over, as a worker with a bug would, or one whose frames were held up.
    insists: float = 0.0


@dataclass
class _Held:
    session: str
    key: str
    final: m.Finished | m.Release | None = None
    until: float = 0.0  # what is given back is not wanted before
    started: bool = False
    task: asyncio.Task[None] | None = None
    said_at: float = 0.0


@dataclass
class Worker:
    """One life of a worker process."""

    name: str
    process: Process
    keys: tuple[str, ...]
    limit: int
    manners: Manners
    source: random.Random
    connect: Callable[[Worker], Link | None]
    note: Callable[[j.Event], None]
    #: Since when it could have come back to the broker.
    reachable_since: Callable[[], float]
    link: Link | None = None
    identity: m.Subscribed | None = None
    held: dict[Lease, _Held] = field(default_factory=dict)
    _ready: bool = False
    _leaving: bool = False
    _away_since: float = 0.0
    _heard: float = 0.0
    _beat_seconds: float = 2.0
    _resume_seconds: float = 5.0

    def start(self) -> None:
        """Begin to work."""
        self.process.spawn(self._run())

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    # The connection ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._leaving:
            self.link = self.connect(self)
            if self.link is not None:
                beats = asyncio.ensure_future(self._beat())
                await self._listen(self.link)
                beats.cancel()
                self._ready = False
                self.link.client.send(None)
                self.link = None
            await asyncio.sleep(self.source.uniform(0.02, self.manners.returns_in))

    async def _listen(self, link: Link) -> None:
        self._heard = self.now
        while (text := await link.client.incoming.get()) is not None:
            self._heard = self.now
            for frame in WORKER_DOWN.decode(text):
                assert not isinstance(frame, FrameRefused), frame
                self._on_frame(frame)
        self._away_since = self.now

    def _send(self, frame: m.Frame, *, at_once: bool = False) -> None:
        if self.link is not None and (self._ready or at_once):
            self.link.client.send(encode(frame).decode())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._beat_seconds)
            if self.link is not None and self.now - self._heard > 3 * self._beat_seconds:
                self._give_up(self.link)
            elif self._ready:
                self._send(m.Beat(n=1))
                for lease, held in self.held.items():
                    if held.final is not None and self.now - held.said_at >= _REMIND:
                        self._say(lease, held)

    def _give_up(self, link: Link) -> None:
        """The broker says nothing any more: read nothing more of this connection, and open another."""
        link.client.ended = True
        link.client.incoming.put_nowait(None)

    def _on_frame(self, frame: m.Frame) -> None:
        if self._leaving:
            return
        match frame:
            case m.AuthSuccess():
                self._beat_seconds = frame.beat_seconds
                self._resume_seconds = frame.resume_seconds
                self._subscribe()
            case m.Subscribed():
                self._on_subscribed(frame)
            case m.Runs():
                for run in frame.runs:
                    self._on_run(run)
            case m.Recorded():
                for run in frame.runs:
                    self._on_recorded(run)
            case m.LeaseLost():
                self._on_lost((frame.id, frame.attempt))
            case m.CancelRun():
                self._on_cancel((frame.id, frame.attempt))
            case m.Error():
                raise AssertionError(f"{self.name} was refused: {frame}")
            case _:
                pass

    def _subscribe(self) -> None:
        earlier = self.identity
        self._send(
            m.Subscribe(
                client_id=self.name,
                keys=self.keys,
                limit=self.limit,
                session=earlier.session if earlier else None,
                resume_token=earlier.resume_token if earlier else None,
                running=tuple(m.HeldRun(id=run, attempt=attempt) for run, attempt in self.held),
            ),
            at_once=True,
        )

    def _on_subscribed(self, frame: m.Subscribed) -> None:
        lost = tuple((run.id, run.attempt) for run in frame.lost)
        resumed = set(frame.resumed)
        self.note(
            j.Subscribed(
                at=self.now,
                worker=self.name,
                session=frame.session,
                limit=self.limit,
                resumed=frame.resumed,
                lost=lost,
            )
        )
        if self.now - max(self._away_since, self.reachable_since()) > self._resume_seconds / 2:
            self.note(j.Fault(at=self._away_since, who=self.name, what="away", until=self.now))
        self.identity = frame
        self._ready = True
        for lease in [lease for lease in self.held if lease[0] not in resumed or lease in lost]:
            self._forget(lease)
        for lease, held in self.held.items():
            if held.started:
                self._send(m.Started(id=lease[0], attempt=lease[1]))
            if held.final is not None:
                self._say(lease, held)

    # Runs ----------------------------------------------------------------------------------------------------

    def _of(self, lease: Lease, held: _Held) -> dict[str, Any]:
        return {"at": self.now, "worker": self.name, "session": held.session, "run": lease[0], "attempt": lease[1]}

    def _on_run(self, run: m.PushedRun) -> None:
        assert self.identity is not None, "pushed before it was subscribed"
        lease = (run.id, run.attempt)
        held = _Held(self.identity.session, run.task_key)
        self.note(j.Received(**self._of(lease, held)))
        if lease in self.held:
            return
        self.held[lease] = held
        held.task = asyncio.ensure_future(self._execute(lease, held))

    async def _execute(self, lease: Lease, held: _Held) -> None:
        dice, manners = self.source.random(), self.manners
        if dice < manners.slow_start:
            self.note(j.Fault(at=self.now, who=self.name, what="slow to start", until=self.now + 30))
            await asyncio.sleep(self.source.uniform(5, 15))
        # A worker in order is quicker than the time it has for this, 6 s at least: who is not is slow, see above.
        await asyncio.sleep(min(self.source.expovariate(1 / manners.starts_in), _STARTS_WITHIN))
        if self.source.random() < manners.gives_back:
            self._give_back(lease, held)
            return
        self.note(j.Started(**self._of(lease, held)))
        held.started = True
        self._send(m.Started(id=lease[0], attempt=lease[1]))
        try:
            await asyncio.sleep(self.source.expovariate(1 / manners.takes))
            if self.source.random() < 0.2:
                self._send(m.Progress(id=lease[0], attempt=lease[1], current=1.0))
                await asyncio.sleep(self.source.expovariate(1 / manners.takes))
        except asyncio.CancelledError:
            if self.source.random() >= manners.finishes_though_cancelled:
                self._finish(lease, held, "CANCELLED")
                return
        self.note(j.Executed(**self._of(lease, held)))
        self._finish(lease, held, "FAILED" if self.source.random() < manners.fails else "COMPLETED")

    def _give_back(self, lease: Lease, held: _Held) -> None:
        self.note(j.Released(**self._of(lease, held)))
        delay = self.source.choice([None, None, 0.0, 0.5, 3.0])
        release = m.Release(runs=(m.ReleasedRun(id=lease[0], attempt=lease[1], delay=delay),))
        if delay is not None:
            held.final, held.until = release, self.now + delay
            self._say(lease, held)
            return
        self.held.pop(lease, None)
        if self._ready:  # or the broker does not hear that the lease is over, and may believe what comes then
            self._insist(lease)
        self._send(release)

    def _finish(self, lease: Lease, held: _Held, type_: Any) -> None:
        if self.held.get(lease) is not held:
            return
        held.final = m.Finished(id=lease[0], attempt=lease[1], state=m.FinalState(type=type_))
        self._say(lease, held)
        if self.source.random() < self.manners.insists / 2:  # and it gives back what has ended, written or not
            again = m.Release(runs=(m.ReleasedRun(id=lease[0], attempt=lease[1]),))
            asyncio.get_running_loop().call_later(self.source.expovariate(20), self._send, again)

    def _say(self, lease: Lease, held: _Held) -> None:
        assert held.final is not None
        held.said_at = self.now
        if isinstance(held.final, m.Finished):
            self.note(j.Reported(**self._of(lease, held), type=held.final.state.type))
        self._send(held.final)

    def _on_recorded(self, run: m.RecordedRun) -> None:
        lease = (run.id, run.attempt)
        held = self.held.pop(lease, None)
        if held is not None and isinstance(held.final, m.Release):
            self.note(j.Postponed(**self._of(lease, held), until=held.until))
            self._insist(lease)
        elif held is not None:
            self.note(j.Recorded(**self._of(lease, held), gone=run.gone))

    def _on_lost(self, lease: Lease) -> None:
        held = self.held.get(lease)
        if held is not None:
            self.note(j.LeaseLost(**self._of(lease, held)))
            self._forget(lease)

    def _forget(self, lease: Lease) -> None:
        held = self.held.pop(lease)
        if held.task is not None:
            held.task.cancel()
        self._insist(lease)

    def _insist(self, lease: Lease) -> None:
        """Say something of a lease that is over, later. It changes nothing, and nobody writes it down."""
        if self.source.random() >= self.manners.insists:
            return
        run_id, attempt = lease
        frames = [
            m.Started(id=run_id, attempt=attempt),
            m.Finished(id=run_id, attempt=attempt, state=m.FinalState(type="COMPLETED")),
            m.Finished(id=run_id, attempt=attempt, state=m.FinalState(type="FAILED")),
            m.Release(runs=(m.ReleasedRun(id=run_id, attempt=attempt),)),
        ]
        for frame in self.source.sample(frames, 3):
            seconds = self.source.expovariate(1 / self.manners.takes)
            asyncio.get_running_loop().call_later(seconds, self._send, frame)

    def _on_cancel(self, lease: Lease) -> None:
        held = self.held.get(lease)
        if held is None or held.final is not None or held.task is None:
            return
        if held.started:
            held.task.cancel()
        else:
            held.task.cancel()
            self._finish(lease, held, "CANCELLED")

    # Ends ----------------------------------------------------------------------------------------------------

    async def leave(self) -> None:
        """SIGTERM: stop everything, and give it back by ending the session."""
        self.note(j.Fault(at=self.now, who=self.name, what="quit"))
        self._leaving = True
        held, self.held = self.held, {}
        for run in held.values():
            if run.task is not None:
                run.task.cancel()
        self._send(m.Quit())
        self._ready = False
        await asyncio.sleep(0.2)
        self.process.kill()
