"""Opening, resuming and ending sessions; the broker's own row."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from runlane.protocol.states import StateType

from .. import queries as q
from ..queue_records import Served
from ..records import Freed, HeldRecord, Resumption
from ..transaction import Transaction
from .base import Operation
from .lease_rows import LeaseRow, has_reported, session_leases
from .leasing import Freeing
from .serving import serve, serve_again


def hash_token(token: str) -> bytes:
    """Return what is stored of a resume token. It has 128 random bits, so that a plain hash will do."""
    return hashlib.sha256(token.encode()).digest()


@dataclass(frozen=True, slots=True)
class OpenSession(Operation[Served]):
    """Insert a session of this broker, at epoch 1. `dialect` is None for `runlane.v1`, otherwise `PREFECT`.

    `queues` are `pool/queue`: one that is not there raises `Refused`.
    """

    session_id: str
    broker_id: str
    client_id: str
    token_hash: bytes
    dialect: str | None = None
    queues: tuple[str, ...] = ()

    def execute(self, tx: Transaction) -> Served:
        """Insert the row; return what it serves of work queues."""
        timestamp = tx.now
        tx.run(
            q.insert_session,
            {
                "id": self.session_id,
                "broker_id": self.broker_id,
                "epoch": 1,
                "client_id": self.client_id,
                "token_hash": self.token_hash,
                "created": timestamp,
                "updated": timestamp,
                "dialect": self.dialect,
            },
        )
        return serve(tx, self.queues) if self.queues else Served()


@dataclass(frozen=True, slots=True)
class ResumeSession(Operation["Resumption | None"]):
    """A worker is back with its session, and says which runs it holds.

    In the database and in its list: resumed. Only in its list: lost, unless this lease has reported its end and
    only the verdict went missing. Only in the database: it never arrived, and is released at once.

    `queues` as with `OpenSession`; those that are gone since are left out.
    """

    session_id: str
    broker_id: str
    token: str
    running: tuple[tuple[str, int], ...]
    queues: tuple[str, ...] = ()

    def execute(self, tx: Transaction) -> Resumption | None:
        """Compare and set the epoch, then settle both lists. None: no such session, or not this token."""
        row = tx.row(q.read_session, {"session_id": self.session_id})
        if row is None or not hmac.compare_digest(hash_token(self.token), row[2]):
            return None
        epoch, client_id, _ = row
        changed = tx.run(
            q.resume_session,
            {
                "session_id": self.session_id,
                "old_epoch": epoch,
                "broker_id": self.broker_id,
                "timestamp": tx.now,
            },
        )
        return self._settle(tx, epoch + 1, client_id) if changed else None

    def _settle(self, tx: Transaction, epoch: int, client_id: str) -> Resumption:
        listed = set(self.running)
        held: list[HeldRecord] = []
        freeing = Freeing(lost=False, max_losses=0)
        for lease in session_leases(tx, self.session_id):
            if (lease.id, lease.attempt) in listed:
                listed.discard((lease.id, lease.attempt))
                held.append(held_record(lease))
            else:
                freeing.free(tx, lease, "The run had not arrived when the connection broke.")
        reported = [e for e in self.running if e in listed and has_reported(tx, *e, self.session_id)]
        lost = [entry for entry in self.running if entry in listed and entry not in reported]
        return Resumption(
            epoch,
            client_id,
            tuple(held),
            tuple(i for i, _ in reported),
            tuple(lost),
            freeing.freed(),
            serve_again(tx, self.queues) if self.queues else Served(),
        )


def held_record(lease: LeaseRow) -> HeldRecord:
    """Return a lease as its session holds it."""
    started = lease.state_type != StateType.PENDING
    cancelling = lease.state_type == StateType.CANCELLING
    return HeldRecord(lease.id, lease.attempt, lease.task_key, started, cancelling)


@dataclass(frozen=True, slots=True)
class EndSession(Operation[Freed]):
    """End a session that is still at this epoch, and free all it holds. `lost`: it died, which counts."""

    session_id: str
    epoch: int
    reason: str
    lost: bool
    max_losses: int

    def execute(self, tx: Transaction) -> Freed:
        """Delete the row, then free its runs. A session resumed meanwhile is left alone."""
        if tx.run(q.delete_session, {"session_id": self.session_id, "epoch": self.epoch}) == 0:
            return Freed()
        freeing = Freeing(lost=self.lost, max_losses=self.max_losses)
        for lease in session_leases(tx, self.session_id):
            freeing.free(tx, lease, self.reason)
        return freeing.freed()


@dataclass(frozen=True, slots=True)
class StartBroker(Operation[None]):
    """Register this broker and adopt the sessions of those before it."""

    broker_id: str
    version: str

    def execute(self, tx: Transaction) -> None:
        """Replace the broker's row; the sessions stay as they are, and may resume."""
        tx.run(q.delete_brokers, {})
        tx.run(
            q.insert_broker,
            {
                "id": self.broker_id,
                "version": self.version,
                "started": tx.now,
                "heartbeat": tx.now,
                "commit_number": 0,
            },
        )
        tx.run(q.adopt_sessions, {"broker_id": self.broker_id})


@dataclass(frozen=True, slots=True)
class BeatBroker(Operation[None]):
    """Say that this broker is alive."""

    broker_id: str

    def execute(self, tx: Transaction) -> None:
        """Touch the row."""
        tx.run(q.beat, {"broker_id": self.broker_id, "timestamp": tx.now})
