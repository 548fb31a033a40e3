"""Every field of every frame: missing, of a wrong type, out of range, and just within it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from runlane.protocol import limits

from .harness import (
    SUBMISSION,
    WORKER,
    Close,
    Host,
    Peer,
    assert_like,
    authenticated,
    dial,
    error,
    new_run,
    producer,
    run,
    text_of,
    worker,
)

ID = "0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90"
MISSING = "(missing)"
LONG = json.dumps("x" * 10**6)

#: The frames, field by field, as JSON.
FRAMES: Mapping[str, Mapping[str, str]] = {
    "beat": {"n": "1"},
    "subscribe": {"client_id": '"w"', "keys": '["edge.fields"]', "limit": "1"},
    "started": {"id": f'"{ID}"', "attempt": "1"},
    "progress": {"id": f'"{ID}"', "attempt": "1", "current": "1"},
    "finished": {"id": f'"{ID}"', "attempt": "1", "state": '{"type":"COMPLETED"}'},
    "release": {"runs": f'[{{"id":"{ID}","attempt":1}}]'},
    "limit": {"limit": "1"},
    "submit": {"ref": "1", "runs": "[]"},
    "watch": {"ids": "[]"},
    "unwatch": {"ids": "[]"},
    "cancel": {"ref": "1", "ids": "[]"},
}
SUBMISSION_FRAMES = {"submit", "watch", "unwatch", "cancel"}

NO_INT = ["null", "true", '"1"', "1.0", "1.5", "[]", "{}", "1e400", "-1", str(2**31), str(2**64), "9" * 5000]
NO_TEXT = ["null", "true", "1", "[]", "{}"]
NO_NUMBER = ["true", '"1"', "[]", "{}", "1e400", "9" * 400]
NO_ID = [*NO_TEXT, '""', f'"{ID.upper()}"', f'"{{{ID}}}"', f'"{ID}\\n"', f'"{ID}\\u0000"', f'" {ID}"', LONG]
NO_LIST = ["null", "true", "1", '"x"', "{}", LONG]
LEASE = f'{{"id":"{ID}","attempt":1}}'

#: frame -> field -> values that it may not have.
WRONG: Mapping[str, Mapping[str, list[str]]] = {
    "beat": {"n": NO_INT},
    "subscribe": {
        "client_id": [MISSING, *NO_TEXT, '""', json.dumps("x" * 201), LONG],
        "keys": [MISSING, *NO_LIST, "[]", json.dumps([f"k{n}" for n in range(limits.MAX_KEYS + 1)])],
        "keys[0]": ["[1]", "[null]", "[[]]", '[""]', '["a b"]', '["k\\n"]', '["k\\u0000"]', f"[{LONG}]", '["🦆"]'],
        "limit": [MISSING, *NO_INT, "1001"],
        "session": ["1", '"x"', f'"{ID.upper()}"'],
        "resume_token": ["1", json.dumps("x" * 101)],
        "running": [*NO_LIST, f"[{','.join([LEASE] * 2001)}]"],
        "running[0]": ["[1]", "[null]", "[[]]"],
        "running[0].id": ["[{}]", '[{"id":1}]'],
        "running[0].attempt": [f'[{{"id":"{ID}"}}]', f'[{{"id":"{ID}","attempt":0}}]'],
    },
    "started": {
        "id": [MISSING, *NO_ID],
        "attempt": [MISSING, *NO_INT, "0"],
        "at": [
            "1",
            "true",
            '"yesterday"',
            '"2026-03-01T08:00:00"',
            '"2026-03-01"',
            '"2026-13-01T08:00:00Z"',
            LONG,
        ],
    },
    "progress": {
        "id": [MISSING, "null", "1", '"x"'],
        "attempt": [MISSING, "null", "true", "0"],
        "current": [MISSING, "null", *NO_NUMBER],
        "total": NO_NUMBER,
        "message": ["1", "true", "{}", json.dumps("x" * 1001), LONG],
    },
    "finished": {
        "id": [MISSING, "null", "1", '"x"'],
        "attempt": [MISSING, "null", "true", "0"],
        "state": [MISSING, "null", '"COMPLETED"', "1", "[]"],
        "state.type": ["{}", '{"type":null}', '{"type":"RUNNING"}', '{"type":"completed"}', '{"type":1}'],
        "state.name": ['{"type":"FAILED","name":""}', '{"type":"FAILED","name":1}'],
        "state.message": ['{"type":"FAILED","message":1}', f'{{"type":"FAILED","message":{LONG}}}'],
        "retriable": ["1", '"true"', "[]"],
        "retry_after": [*NO_NUMBER, "-1", "315360001"],
    },
    "release": {
        "runs": [MISSING, *NO_LIST, f"[{','.join([LEASE] * 2001)}]"],
        "runs[0]": ["[1]", "[null]"],
        "runs[0].id": ["[{}]"],
        "runs[0].attempt": [f'[{{"id":"{ID}","attempt":0}}]', f'[{{"id":"{ID}","attempt":true}}]'],
        "runs[0].delay": [f'[{{"id":"{ID}","attempt":1,"delay":{value}}}]' for value in ("-1", "1e400", '"1"')],
        "runs[0].reason": [f'[{{"id":"{ID}","attempt":1,"reason":{value}}}]' for value in ("null", "1", LONG)],
    },
    "limit": {"limit": [MISSING, *NO_INT, "1001"]},
    "submit": {
        "ref": [MISSING, "null", "true", "1.5", "[]", "-1", str(2**53 + 1), "1e400", json.dumps("x" * 65), LONG],
        "runs": [MISSING, *NO_LIST, f"[{','.join(['{}'] * (limits.MAX_RUNS_PER_SUBMIT + 1))}]"],
    },
    "watch": {
        "ids": [MISSING, *NO_LIST, json.dumps([ID] * (limits.MAX_IDS + 1))],
        "ids[0]": ["[1]", "[null]", '["x"]', f'["{ID.upper()}"]', f"[{LONG}]"],
        "ids[2]": [f'["{ID}","{ID}",1]'],
    },
    "unwatch": {"ids": [MISSING, *NO_LIST], "ids[0]": ["[1]", '["x"]']},
    "cancel": {
        "ref": [MISSING, "null", "1.5"],
        "ids": [MISSING, *NO_LIST, json.dumps([ID] * (limits.MAX_IDS_PER_CANCEL + 1))],
        "ids[0]": ["[1]", '["x"]'],
    },
}


def rows(table: Mapping[str, Mapping[str, list[str]]]) -> list[Any]:
    return list(_rows(table))


def _rows(table: Mapping[str, Mapping[str, list[str]]]) -> Iterator[Any]:
    for frame, wrong in table.items():
        for field, values in wrong.items():
            for value in values:
                shown = value if len(value) < 40 else f"{len(value)} bytes"
                yield pytest.param(frame, field, value, id=f"{frame} {field} {shown}")


def changed(frame: str, field: str, value: str) -> str:
    """Return a frame in which the field is different."""
    fields = {"type": f'"{frame}"', **FRAMES[frame], field.partition("[")[0].partition(".")[0]: value}
    return text_of({name: text for name, text in fields.items() if text != MISSING})


def ready(host: Host, frame: str) -> Any:
    """Return a connection on which this frame is in order."""
    if frame in SUBMISSION_FRAMES:
        return producer(host)
    return authenticated(host, WORKER) if frame == "subscribe" else worker(host)


@pytest.mark.parametrize(("frame", "field", "value"), rows(WRONG))
def test_a_field_that_is_wrong(broker: Host, frame: str, field: str, value: str) -> None:
    async def main() -> None:
        async with ready(broker, frame) as peer:
            await peer.say(changed(frame, field, value))
            (answer,) = await peer.answers()
            ref = 1 if "ref" in FRAMES[frame] and field != "ref" else None
            assert_like(answer, error("invalid_frame", frame=frame, field=field, ref=ref))
            assert len(answer["message"]) < 1000

    run(main())


#: What is within the limits, if barely: no error answers it.
RIGHT: Mapping[str, Mapping[str, list[str]]] = {
    "beat": {"n": [MISSING, "0", str(2**31 - 1), "-0"]},
    "subscribe": {
        "client_id": ['"\\u0000"', json.dumps("🦆" * 200), '"\\n\\u001b[31m\\u2028"'],
        "keys": ['["é.λ:<x>/-"]', '["k","k","k"]', json.dumps([f"k{n}" for n in range(limits.MAX_KEYS)])],
        "limit": ["0", "1000"],
        "session": ["null", f'"{ID}"'],
        "resume_token": ["null", '""', '"\\u0000"'],
        "running": [f"[{LEASE},{LEASE}]", f"[{','.join([LEASE] * 2000)}]", "[]"],
    },
    "started": {"at": ["null", '"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59.999999-23:59"']},
    "progress": {
        "current": ["-1", "0", "1e308", "9" * 300, "0.1", "1" + "0" * 30],
        "total": ["null", "0", "-1"],
        "message": ["null", '""', '"\\u0000"', json.dumps("🦆" * 1000)],
    },
    "release": {"runs": ["[]", f"[{LEASE},{LEASE}]", f"[{','.join([LEASE] * 2000)}]"]},
    "limit": {"limit": ["0", "1000"]},
    "unwatch": {"ids": ["[]", json.dumps([ID] * limits.MAX_IDS)]},
    "watch": {"ids": ["[]"]},
}


@pytest.mark.parametrize(("frame", "field", "value"), rows(RIGHT))
def test_a_field_that_is_unusual(broker: Host, frame: str, field: str, value: str) -> None:
    expected = {"beat": ["beat"], "subscribe": ["subscribed"], "started": ["lease_lost"]}.get(frame, [])

    async def main() -> None:
        async with ready(broker, frame) as peer:
            await peer.say(changed(frame, field, value))
            assert [answer["type"] for answer in await peer.answers(len(expected))] == expected

    run(main())


@pytest.mark.parametrize("path", [WORKER, SUBMISSION])
@pytest.mark.parametrize(
    ("token", "code"),
    [("1", 1008), ("true", 1008), ("[]", 1008), ("{}", 1008), (json.dumps("x" * 1025), 1008), (LONG, 1008)],
    ids=["number", "true", "array", "object", "1025 letters", "10^6 letters"],
)
def test_a_token_that_is_none(guarded: Host, path: str, token: str, code: int) -> None:
    async def main() -> None:
        async with dial(guarded, path) as peer:
            await peer.say(f'{{"type":"auth","token":{token}}}')
            await peer.expect("error", code="invalid_frame", frame="auth", field="token")
            assert await peer.closed() == Close(code, "expected auth")

    run(main())


# --- The items of a submit ---------------------------------------------------------------------------------

RUN: Mapping[str, str] = {"id": f'"{ID}"', "task_key": '"edge.nobody"', "parameters": "{}"}
NESTED_64 = '{"a":' * 64 + "1" + "}" * 64
NESTED_65 = '{"a":' * 65 + "1" + "}" * 65
BIG = limits.MAX_PAYLOAD_BYTES


def of_size(size: int) -> str:
    """Return parameters of this many bytes."""
    return f'{{"x":"{"y" * (size - 8)}"}}'


def headers_of(size: int) -> dict[str, str]:
    """Return headers that have this many bytes as JSON."""
    headers = {f"h{n:02}": "" for n in range(32)}
    room = size - len(json.dumps(headers, separators=(",", ":")))
    for name in headers:
        headers[name] = "x" * min(room, 4096)
        room -= len(headers[name])
    assert room == 0
    return headers


WRONG_ITEMS: list[tuple[str, str, str, str]] = [
    *[("id", value, "invalid_field", "id") for value in [MISSING, *NO_ID]],
    *[("task_key", v, "invalid_field", "task_key") for v in [MISSING, *NO_TEXT, '""', '"a b"', '"k\\n"', LONG]],
    *[
        ("parameters", v, "invalid_field", "parameters")
        for v in ["null", "true", "1", '"x"', "[]", LONG[:500_000] + '"']
    ],
    ("parameters", NESTED_65, "payload_too_deep", "parameters"),
    ("parameters", f'{{"x":{"[" * 500}{"]" * 500}}}', "payload_too_deep", "parameters"),
    ("parameters", of_size(BIG + 1), "payload_too_large", "parameters"),
    *[("name", value, "invalid_field", "name") for value in ["1", "[]", '""', json.dumps("x" * 201), LONG]],
    *[("idempotency_key", value, "invalid_field", "idempotency_key") for value in ["1", '""', LONG]],
    *[("priority", v, "invalid_field", "priority") for v in [*NO_INT, "10"]],
    *[
        (field, value, "invalid_field", field)
        for field in ("scheduled_time", "expires")
        for value in ["1", "true", '"soon"', '"2026-03-01T08:00:00"', '"10000-01-01T00:00:00Z"', "[]"]
    ],
    *[("tags", value, "invalid_field", "tags") for value in [*NO_LIST, json.dumps(["x"] * 33)]],
    *[("tags", value, "invalid_field", "tags[0]") for value in ["[1]", '[""]', "[null]", f"[{LONG}]"]],
    *[("retries", value, "invalid_field", "retries") for value in [*NO_INT, "1001"]],
    *[("retry_delay", value, "invalid_field", "retry_delay") for value in ["true", '"1"', "{}", "-1", "1e400"]],
    *[("retry_delay", value, "invalid_field", "retry_delay[0]") for value in ["[-1]", "[null]", '["1"]']],
    ("retry_delay", json.dumps([1] * 1001), "invalid_field", "retry_delay"),
    *[("retry_jitter", value, "invalid_field", "retry_jitter") for value in ["null", *NO_NUMBER, "-0.1", "10.1"]],
    *[("timeout", value, "invalid_field", "timeout") for value in [*NO_NUMBER, "0", "-1", "315360001"]],
    *[("headers", value, "invalid_field", "headers") for value in ["null", "[]", "1", '"x"']],
    ("headers", json.dumps({f"h{n}": "" for n in range(33)}), "invalid_field", "headers"),
    *[("headers", value, "invalid_field", "headers[...]") for value in ['{"a":1}', '{"a":null}']],
    ("headers", json.dumps({"a": "x" * 4097}), "invalid_field", "headers[...]"),
    ("headers", json.dumps(headers_of(limits.MAX_HEADERS_BYTES + 1)), "payload_too_large", "headers"),
]


@pytest.mark.parametrize(
    ("field", "value", "code", "place"),
    [
        pytest.param(*row, id=f"{row[0]} {row[1] if len(row[1]) < 40 else f'{len(row[1])} bytes'}")
        for row in WRONG_ITEMS
    ],
)
def test_an_item_that_is_wrong(broker: Host, field: str, value: str, code: str, place: str) -> None:
    """It is refused alone: the runs before and after it are created."""
    item = text_of({name: text for name, text in {**RUN, field: value}.items() if text != MISSING})
    before, after = new_run(), new_run()

    async def main() -> None:
        async with producer(broker) as peer:
            await peer.say(
                f'{{"type":"submit","ref":"x","runs":[{json.dumps(before)},{item},{json.dumps(after)}]}}'
            )
            answer = await peer.expect("submitted", ref="x")
            assert [run["created"] for run in answer["runs"]] == [True, False, True]
            assert [answer["runs"][n]["id"] for n in (0, 2)] == [before["id"], after["id"]]
            refused = answer["runs"][1]
            assert refused["id"] == (ID if field != "id" else "")
            assert_like(refused["error"], {"code": code, "field": f"runs[1].{place}"})

    run(main())


@pytest.mark.parametrize(
    "item",
    [
        pytest.param("1", id="a number"),
        pytest.param("null", id="null"),
        pytest.param("[]", id="an array"),
        pytest.param('"x"', id="a text"),
        pytest.param("{}", id="an empty object"),
        pytest.param('{"id":"\\ud800"}', id="an id of half a surrogate pair"),
        pytest.param('{"id":"\\q"}', id="an id with an unknown escape"),
        pytest.param(f'{{"id":"{ID}","task_key":"\\ud800"}}', id="a key of half a surrogate pair"),
        pytest.param(f'{{"id":"{ID}","task_key":"k","name":"\\q"}}', id="a name with an unknown escape"),
        pytest.param(f'{{"id":{LONG}}}', id="an id of 10^6 letters"),
    ],
)
def test_an_item_that_is_no_run(broker: Host, item: str) -> None:
    async def main() -> None:
        async with producer(broker) as peer:
            await peer.say(f'{{"type":"submit","ref":1,"runs":[{item}]}}')
            answers = await peer.answers(1)
            if answers == [Close(4001, answers[0].reason if isinstance(answers[0], Close) else "")]:
                return  # not JSON already for who reads the frame
            assert_like(answers[0], {"type": "submitted", "ref": 1})
            (refused,) = answers[0]["runs"]
            assert not refused["created"]
            assert refused["error"]["code"] == "invalid_field"
            assert refused["error"]["field"].startswith("runs[0]")

    run(main())


#: What is within the limits, if barely, and how the HTTP edge shows it.
RIGHT_ITEMS: list[tuple[str, str, Any]] = [
    ("parameters", "{}", None),
    ("parameters", f'{{"n":{2**64},"m":1e400,"m":{"9" * 400}}}', ...),
    ("parameters", NESTED_64, ...),
    ("parameters", of_size(BIG), ...),
    ("parameters", '{"x":"\\u0000🦆"}', {"x": "\0🦆"}),
    ("parameters", ' { "x" : [ 1 , 2 ] } ', {"x": [1, 2]}),
    ("name", '"\\u0000"', "\0"),
    ("name", json.dumps("🦆" * 200), "🦆" * 200),
    ("name", "null", "edge.nobody"),
    ("task_key", '"λ.é:<x>/-"', "λ.é:<x>/-"),
    ("priority", "9", 9),
    ("scheduled_time", '"0001-01-01T00:00:00+23:59"', None),
    ("scheduled_time", '"9999-12-31T23:59:59.999999-23:59"', None),
    ("expires", '"9999-12-31T23:59:59Z"', "9999-12-31T23:59:59Z"),
    ("expires", '"0001-01-01T00:00:00Z"', "0001-01-01T00:00:00Z"),
    ("tags", json.dumps(["x"] * 32), ["x"] * 32),
    ("tags", '["\\u0000","\\""]', ["\0", '"']),
    ("retries", "1000", None),
    ("retry_delay", "[]", None),
    ("retry_delay", "315360000", None),
    ("retry_delay", json.dumps([1] * 1000), None),
    ("timeout", "1e-300", 1e-300),
    ("headers", json.dumps(headers_of(limits.MAX_HEADERS_BYTES)), ...),
    ("headers", json.dumps({f"h{n}": "🦆" * 500 for n in range(32)}), ...),
    ("headers", '{"":"","\\u0000":"\\n"}', {"": "", "\0": "\n"}),
    ("idempotency_key", '"\\u0000"', "\0"),
]


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        pytest.param(*row, id=f"{row[0]} {row[1] if len(row[1]) < 40 else f'{len(row[1])} bytes'}")
        for row in RIGHT_ITEMS
    ],
)
def test_an_item_that_is_unusual(broker: Host, field: str, value: str, shown: Any) -> None:
    item = new_run()
    text = text_of({**{name: json.dumps(one) for name, one in item.items()}, field: value})

    async def main() -> None:
        async with producer(broker) as peer:
            await peer.say(f'{{"type":"submit","ref":1,"runs":[{text}]}}')
            await peer.expect("submitted", ref=1, runs=[{"id": item["id"], "created": True}])

    run(main())
    answer = broker.http.get(f"/api/task_runs/{item['id']}")
    assert answer.status_code == 200
    if shown is ...:
        assert json.dumps(json.loads(value)) == json.dumps(answer.json()[field])
    elif shown is not None:
        assert answer.json()[field] == shown


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("retry_delay", "[]"),
        ("retry_delay", "315360000"),
        ("retry_jitter", "10"),
        ("retries", "1000"),
        ("timeout", "1e-300"),
        ("headers", '{"":"\\u0000"}'),
        ("expires", '"9999-12-31T23:59:59Z"'),
        ("scheduled_time", '"0001-01-01T00:00:00Z"'),
        ("parameters", NESTED_64),
        ("parameters", of_size(BIG)),
    ],
    ids=lambda text: text if len(text) < 40 else f"{len(text)} bytes",
)
def test_a_run_with_something_unusual_can_be_executed_and_retried(broker: Host, field: str, value: str) -> None:
    item = new_run(f"edge.unusual.{field}", retries=1)
    text = text_of({**{name: json.dumps(one) for name, one in item.items()}, field: value})

    async def main() -> None:
        async with worker(broker, item["task_key"]) as peer, producer(broker) as sender:
            await sender.say(f'{{"type":"submit","ref":1,"runs":[{text}]}}')
            await sender.expect("submitted", ref=1, runs=[{"id": item["id"], "created": True}])
            (first,) = await peer.pushed()
            await peer.finish(first, "FAILED", retry_after=0)
            (second,) = await peer.pushed()
            assert (second["id"], second["attempt"]) == (item["id"], 2)
            if field == "parameters":
                assert second["parameters"] == json.loads(value)
            await peer.finish(second)

    run(main())
    assert broker.state_of(item["id"])[0] == "COMPLETED"


@pytest.mark.parametrize(("field", "value"), [("retry_delay", []), ("retry_delay", 315_360_000)])
def test_a_retry_of_an_unusual_delay(broker: Host, field: str, value: Any) -> None:
    item = new_run(f"edge.delay.{value}".replace("[]", "none"), retries=1, **{field: value})

    async def main(peer: Peer | None = None) -> None:
        async with worker(broker, item["task_key"]) as peer, producer(broker) as sender:
            await sender.submit(item)
            (first,) = await peer.pushed()
            await peer.finish(first, "FAILED")

    run(main())
    assert broker.state_of(item["id"]) in [
        ("SCHEDULED", "AwaitingRetry"),
        ("PENDING", "Pending"),
        ("SCHEDULED", "Requeued"),
    ]
