"""What a session says on a new connection of what has happened between `subscribe` and its answer."""

from __future__ import annotations

from typing import Any

import pytest

from runlane.protocol import messages as m
from runlane.protocol.ids import uuid7
from runlane.settings import Settings
from runlane.worker.session import Session, Subscription
from tests.sdk.fake_broker import SESSION, FakeBroker, run


class Link:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.welcome = FakeBroker().welcome
        self.heard_at = 0.0
        self.sent: list[Any] = []

    def send(self, frame: m.Frame) -> None:
        self.sent.append(frame)


def subscribed(*resumed: str) -> m.Subscribed:
    return m.Subscribed(session=SESSION, resume_token="token", resumed=resumed)


def on_a_new_connection(session: Session) -> Link:
    """Lose the connection and have another one, that has said `subscribe` and has no answer yet."""
    session.lost()
    link = Link()
    session.opened(link)  # type: ignore[arg-type]
    assert [type(frame) for frame in link.sent] == [m.Subscribe]
    return link


def ready() -> Session:
    session = Session(Settings(), Subscription("worker", ("work",), 10))
    session.opened(Link())  # type: ignore[arg-type]
    session.on_frame(subscribed())
    return session


def test_a_run_that_is_given_back_while_the_session_is_resumed_is_not_kept_by_the_broker() -> None:
    async def main() -> None:
        session = ready()
        run_id = uuid7()
        assert session.reporter.take((run_id, 1))
        link = on_a_new_connection(session)
        assert [held.id for held in link.sent[0].running] == [run_id]
        given_back = m.ReleasedRun(id=run_id, attempt=1, reason="The worker drains.")
        session.reporter.release(given_back)
        session.on_frame(subscribed(run_id))
        assert link.sent[1:] == [m.Release(runs=(given_back,))]
        session.on_frame(subscribed())  # said once
        assert len(link.sent) == 2
        session.lost()

    run(main())


@pytest.mark.parametrize("verdict", ["recorded", "lease_lost", "lost"])
def test_a_snooze_is_said_again_until_it_has_a_verdict(verdict: str) -> None:
    async def main() -> None:
        session = ready()
        run_id = uuid7()
        assert session.reporter.take((run_id, 1))
        on_a_new_connection(session)
        snoozed = m.ReleasedRun(id=run_id, attempt=1, delay=60.0, reason="The task snoozed.")
        session.reporter.release(snoozed)  # while it is subscribing; and then this connection breaks, too
        for _ in range(2):
            link = on_a_new_connection(session)
            assert [held.id for held in link.sent[0].running] == [run_id]
            session.on_frame(subscribed(run_id))
            assert link.sent[1:] == [m.Release(runs=(snoozed,))]
        match verdict:
            case "recorded":
                session.on_frame(m.Recorded(runs=(m.RecordedRun(id=run_id, attempt=1),)))
            case "lease_lost":
                session.on_frame(m.LeaseLost(id=run_id, attempt=1))
            case _:
                on_a_new_connection(session)
                session.on_frame(subscribed())
        assert len(session.reporter) == 0
        assert on_a_new_connection(session).sent[0].running == ()
        session.lost()

    run(main())


def test_what_is_given_back_without_a_connection_is_missing_from_the_list_and_not_said_again() -> None:
    async def main() -> None:
        session = ready()
        first, second = uuid7(), uuid7()
        assert session.reporter.take((first, 1))
        assert session.reporter.take((second, 1))
        on_a_new_connection(session)
        session.reporter.release(m.ReleasedRun(id=first, attempt=1))  # and this connection breaks, too
        session.lost()
        session.reporter.release(m.ReleasedRun(id=second, attempt=1))
        link = on_a_new_connection(session)
        assert link.sent[0].running == ()
        session.on_frame(subscribed())
        assert len(link.sent) == 1
        session.lost()

    run(main())


def test_a_limit_that_changes_while_the_session_is_resumed_is_told() -> None:
    async def main() -> None:
        session = ready()
        link = on_a_new_connection(session)
        assert link.sent[0].limit == 10
        session.set_limit(0)
        session.on_frame(subscribed())
        assert link.sent[1:] == [m.SetLimit(limit=0)]
        session.lost()

    run(main())
