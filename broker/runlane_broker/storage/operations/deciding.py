"""What a decision on a state rests on, read in its transaction, and what it brings with it, written there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from runlane.protocol.states import StateType

from ...orchestration.decisions import Effect, FreeSlots, InsertCache, Proposed, TakeSlots, Write
from ...orchestration.facts import EnclosingFlow, Facts, Lease, TagLimit
from .. import queries as q
from ..queries import transitions as qt
from ..run_records import StateRecord
from ..states import details_text, state_details
from ..transaction import Transaction

_tags = msgspec.json.Decoder(tuple[str, ...]).decode

#: The tags of a run that has none, as they are stored.
NO_TAGS: Final = "[]"


def read_facts(
    tx: Transaction,
    run_id: str,
    proposed: Proposed,
    *,
    flow_run_id: str | None,
    tags: str,
    lease: Lease | None = None,
) -> Facts:
    """Return what the rules need to know of a task run's surroundings. What is not asked is not read."""
    starts = proposed.type is StateType.RUNNING
    return Facts(
        lease=lease,
        flow=None if flow_run_id is None else read_flow(tx, flow_run_id),
        cached=_cached(tx, proposed.details.cache_key) if starts and not proposed.details.refresh_cache else None,
        limits=_limits(tx, run_id, tags) if starts and tags != NO_TAGS else (),
        random=tx.random(),
    )


def read_flow(tx: Transaction, flow_run_id: str) -> EnclosingFlow | None:
    """Return the flow run that a task run belongs to, if it is there."""
    tx.flush()
    row = tx.row(qt.read_enclosing_flow, {"id": flow_run_id})
    if row is None:
        return None
    state_type, run_count, due, text, _ = row
    details = state_details(text, due)
    return EnclosingFlow(
        flow_run_id, StateType(state_type), run_count, details.pause_timeout, details.pause_reschedule
    )


def _cached(tx: Transaction, cache_key: str | None) -> Proposed | None:
    if not cache_key:
        return None
    tx.flush()
    row = tx.row(qt.read_cached, {"cache_key": cache_key, "now": tx.now})
    if row is None:
        return None
    name, message, due, details, data = row
    return Proposed(StateType.COMPLETED, name, message, data, state_details(details, due))


def _limits(tx: Transaction, run_id: str, tags: str) -> tuple[TagLimit, ...]:
    rows = ((tag, tx.row(qt.read_limit, {"tag": tag, "task_run_id": run_id})) for tag in sorted(set(_tags(tags))))
    return tuple(TagLimit(tag, *row) for tag, row in rows if row is not None)


def append_state(
    tx: Transaction, statements: qt.RunStatements, run_id: str, write: Write, *, state_id: str, attempt: int
) -> StateRecord:
    """Append the state that was decided on to the history, and return it."""
    state = write.state
    due = state.details.scheduled_time if state.type is StateType.SCHEDULED else None
    tx.later(
        statements.insert_state,
        {
            "id": state_id,
            "run_id": run_id,
            "type": state.type.value,
            "name": state.label,
            "message": state.message,
            "timestamp": tx.stamp(write.timestamp, 0),  # what follows is later
            "due": due,
            "attempt": attempt,
            "session_id": None,  # no session has reported it
            "details": details_text(state.details),
            "data": state.data,
        },
    )
    return StateRecord(
        state_id, run_id, state.type, state.label, state.message, write.timestamp, due, attempt, state.details,
        state.data,
    )  # fmt: skip


def carry_out(tx: Transaction, run_id: str, state_id: str, timestamp: int, effects: Iterable[Effect]) -> None:
    """Take and give back slots, and keep a result for others."""
    for effect in effects:
        match effect:
            case TakeSlots(tags):
                for tag in tags:
                    tx.run(qt.take_slot, {"tag": tag, "task_run_id": run_id})
            case FreeSlots():
                tx.run(q.free_slots, {"task_run_id": run_id})
            case InsertCache(key, expiration):
                tx.later(
                    qt.insert_cached,
                    {
                        "id": tx.new_id(tx.tick()),  # the newest counts
                        "cache_key": key,
                        "cache_expiration": expiration,
                        "task_run_state_id": state_id,
                        "created": timestamp,
                    },
                )
            case _:  # written with the run itself, or carried out after the commit
                pass
