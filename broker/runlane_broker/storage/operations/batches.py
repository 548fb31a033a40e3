"""Leasing many task runs to one session with three statements, whatever their number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ..queries import batches as qb
from ..records import Holder, LeasedRun
from ..run_records import RunRecord
from ..transaction import Row, Transaction
from .showing import shown_runs

#: Runs of one statement: so many may be read of which few fit.
MAX_BATCH: Final = 32

_headers = msgspec.json.Decoder(dict[str, str]).decode
_texts = msgspec.json.Encoder().encode


def lease_batch(
    tx: Transaction, holder: Holder, run_ids: Sequence[str], room: int
) -> tuple[int, dict[str, LeasedRun]]:
    """Lease the first of these runs to a session that holds, while their parameters leave room (bytes).

    Return how many were looked at, and those that were leased. One that was not has expired or does not wait.
    """
    shown: dict[str, RunRecord] = {}
    if holder.dialect is None:
        parameters = dict(tx.rows(qb.read_all_parameters, {"ids": _list(run_ids)}))
    else:
        shown = shown_runs(tx, _list(run_ids))
        parameters = {run.id: run.parameters for run in shown.values()}
    looked_at = _fitting((len(parameters.get(run_id, b"")) for run_id in run_ids), room)
    rows = _lease(tx, holder, run_ids[:looked_at])
    leased = {
        id_: LeasedRun(id_, attempt, key, parameters[id_], timeout, expires, _headers(headers), shown.get(id_))
        for id_, attempt, key, timeout, expires, headers in rows
    }
    return looked_at, leased


def _lease(tx: Transaction, holder: Holder, run_ids: Sequence[str]) -> list[Row]:
    leases: list[str] = []
    for run_id in run_ids:
        timestamp = tx.tick()
        leases.append(f"{run_id}{tx.new_id(timestamp)}{timestamp}")
    rows = tx.rows(qb.lease_runs, {"leases": _list(leases), "now": tx.now, "session_id": holder.session_id})
    tx.run(qb.insert_leased_states, {"ids": _list([row[0] for row in rows])})
    return rows


def _fitting(sizes: Iterable[int], room: int) -> int:
    """Return how many begin within the room."""
    count = 0
    for size in sizes:
        if room <= 0:
            break
        room -= size
        count += 1
    return count


def _list(texts: Sequence[str]) -> str:
    return _texts(texts).decode()
