"""`judge`: all questions to one history."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from . import database, deliveries, producers
from .events import BROKER, DATABASE, Event
from .evidence import Evidence
from .violations import Violation

_QUESTIONS = (
    database.histories,
    database.rewritten,
    database.reporters,
    producers.phantoms,
    producers.endings,
    producers.idempotency,
    producers.ends_told,
    producers.watchers,
    producers.cancelled_starts,
    deliveries.leases,
    deliveries.verdicts,
    deliveries.postponements,
    deliveries.limits,
)


def judge(
    history: Iterable[Event], *, ordered: Collection[str] = (), excuses: Collection[str] = (BROKER, DATABASE)
) -> list[Violation]:
    """Return what is wrong with a history, whose events are in the order in which they happened.

    It needs at least one `Snapshot`. Whether all was done in the end is asked only if there is a `Quiet`.
    `ordered` are the keys whose runs must be leased in their order. `excuses` are those whose faults explain any
    redelivery at the time, beside those of the worker itself: with none of them, whatever happens to a broker must
    not cost one.
    """
    evidence = Evidence.of(history)
    found = [violation for question in _QUESTIONS for violation in question(evidence)]
    found += deliveries.redeliveries(evidence, excuses)
    found += deliveries.order(evidence, frozenset(ordered))
    return found
