"""`runlane queue` and `runlane pool`, of a broker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runlane.config import ClientSection
from runlane.errors import ArgumentError
from runlane.queues import NotReached, RequestRefused, WorkQueues

from .harness import TOKEN, Broker, Run


def test_queues_and_pools(runlane: Run, broker: Broker) -> None:
    def do(*words: str) -> str:
        done = runlane(*words, *broker.flags)
        assert (done.code, done.err) == (0, ""), words
        return done.out

    do("pool", "create", "nightly", "--limit", "20", "--type", "process")
    do("queue", "create", "nightly/reports", "--priority", "1", "--limit", "5", "--late-after", "2.5")
    do("queue", "create", "mine", "--description", "What for")
    queues: list[dict[str, Any]] = json.loads(do("queue", "ls", "--pool", "nightly", "--json"))
    assert [(queue["name"], queue["priority"], queue["concurrency_limit"]) for queue in queues] == [
        ("reports", 1, 5),
        ("default", 2, None),
    ]
    assert queues[0]["late_after"] == 2.5
    do("queue", "pause", "nightly/reports")
    assert "PAUSED" in do("queue", "ls")
    do("queue", "resume", "nightly/reports")
    do("queue", "set", "nightly/reports", "--limit", "none", "--priority", "7")
    table = do("queue", "ls", "--pool", "nightly").splitlines()
    assert table[0].split()[:2] == ["name", "priority"]
    assert [line.split()[:3] for line in table[1:]] == [
        ["nightly/default", "2", "NOT_READY"],
        ["nightly/reports", "7", "NOT_READY"],
    ]
    do("pool", "pause", "nightly")
    do("queue", "set", "nightly/default", "--priority", "9")
    shown = [line.split()[:3] for line in do("queue", "ls").splitlines()]
    assert [line for line in shown if line[0].startswith(("nightly", "default-agent-pool/mine"))] == [
        ["default-agent-pool/mine", "2", "NOT_READY"],
        ["nightly/reports", "7", "PAUSED"],
        ["nightly/default", "9", "PAUSED"],
    ]
    (pool,) = [pool for pool in json.loads(do("pool", "ls", "--json")) if pool["name"] == "nightly"]
    assert (pool["is_paused"], pool["concurrency_limit"], pool["type"]) == (True, 20, "process")
    do("queue", "delete", "mine")
    do("pool", "delete", "nightly")
    assert "nightly" not in do("pool", "ls")


def test_the_same_from_a_program(broker: Broker) -> None:
    queues = WorkQueues(ClientSection(url=broker.url, token=TOKEN))
    queues.create("q")
    queues.pause("q")
    assert queues.read("q")["status"] == "PAUSED"
    queues.resume("q")
    assert (queues.read("q")["status"], queues.read("q")["is_paused"]) == ("NOT_READY", False)
    queues.update("q", name="r")
    queues.update("r", name="q", description="again")
    assert queues.read("q")["description"] == "again"
    queues.create_pool("p")
    queues.pause("default", "p")
    assert queues.read("default", "p")["is_paused"]
    queues.resume("default", pool="p")
    assert not queues.read("default", "p")["is_paused"]
    queues.pause_pool("p")
    assert [pool["status"] for pool in queues.pools() if pool["name"] == "p"] == ["PAUSED"]
    queues.resume_pool("p")
    assert [pool["status"] for pool in queues.pools() if pool["name"] == "p"] == ["NOT_READY"]
    with pytest.raises(RequestRefused, match="not found"):
        queues.pause("nope")
    with pytest.raises(RequestRefused, match="already exists") as refused:
        queues.create("q")
    assert refused.value.status == 409
    with pytest.raises(RequestRefused, match="concurrency_limit"):
        queues.update("q", concurrency_limit=-1)
    with pytest.raises(
        ArgumentError, match=r"^no name has a slash: 'p/default'; a queue's pool is given as pool=$"
    ):
        queues.pause("p/default")


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("queue", "pause", "nope"), 1, "runlane: Work pool queue 'default-agent-pool/nope' not found."),
        (("queue", "pause", "a/b/c"), 2, "runlane: a/b/c: a queue is NAME or POOL/NAME, with one slash at most"),
        (("queue", "set", "q"), 2, "runlane queue: set needs something to set (see runlane queue --help)"),
        (
            ("queue", "create", "/q"),
            2,
            "runlane queue: '/q' is neither NAME nor POOL/NAME (see runlane queue --help)",
        ),
        (
            ("queue", "set", "q", "--limit", "x"),
            2,
            "runlane queue set: argument --limit: neither a number nor none: 'x' (see runlane queue set --help)",
        ),
        (("queue", "delete", "one/default"), 1, "runlane: The default queue of a work pool cannot be deleted."),
    ],
)
def test_what_is_refused_is_said_in_a_line(
    runlane: Run, broker: Broker, words: tuple[str, ...], code: int, error: str
) -> None:
    if "one/default" in words:
        runlane("pool", "create", "one", *broker.flags)
    done = runlane(*words, *broker.flags)
    assert (done.code, done.err.strip()) == (code, error)


def test_who_is_not_there_is_said() -> None:
    with pytest.raises(NotReached, match=r"^http://127\.0\.0\.1:9: cannot be reached: Connection refused$"):
        WorkQueues(ClientSection(url="http://127.0.0.1:9")).pools()


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (None, "wants a token, none is set: --token-file, RUNLANE_TOKEN_FILE"),
        ("another-token-than-that", "wants a token, not the one that is set"),
    ],
)
def test_a_token_that_is_missing_or_wrong_is_named(broker: Broker, token: str | None, says: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        WorkQueues(ClientSection(url=broker.url, token=token)).pools()
    assert (refused.value.status, str(refused.value)) == (401, f"{broker.url}: {says}")
