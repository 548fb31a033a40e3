"""Who may take leases."""

from __future__ import annotations

from .. import queries as q
from ..records import Holder
from ..transaction import Transaction


def holds(tx: Transaction, holder: Holder) -> bool:
    """Say whether the session is still this broker's at this epoch."""
    params = {"session_id": holder.session_id, "broker_id": holder.broker_id, "epoch": holder.epoch}
    return tx.row(q.holds_session, params) is not None
