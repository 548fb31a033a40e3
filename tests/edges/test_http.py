"""The HTTP edge: bodies that are wrong, statuses, and who may come in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.routing import Route, WebSocketRoute

from runlane.protocol import limits
from runlane.protocol.ids import uuid7
from runlane.protocol.messages import SUBPROTOCOL
from runlane_broker import access
from runlane_broker.api import parsing
from runlane_broker.core import submit
from runlane_broker.storage.store import Store
from tests.support import DEEP

from .harness import (
    SUBMISSION,
    TOKEN,
    WORKER,
    Close,
    Host,
    dial,
    request,
    run,
    status_of,
    talk,
    text_of,
    upgrade,
)
from .test_fields import ID, LONG, MISSING, NESTED_64, NESTED_65, headers_of, of_size

CREATE = "/api/task_runs/"
BODY = {"task_key": '"edge.http"', "state": '{"type":"SCHEDULED"}'}
MAX = parsing.MAX_BODY_BYTES
EVENTS = ("/api/events/in", "/api/events/out")
PUBLIC = {"/livez", "/readyz", "/api/version", "/api/health", "/api/ready", "/api/openapi.json", "/api/docs"}


def post(host: Host, body: Any, **options: Any) -> Any:
    return host.http.post(CREATE, content=body, **options)


# --- Bodies ----------------------------------------------------------------------------------------------------

NO_JSON: dict[str, bytes] = {
    "nothing": b"",
    "a space": b" ",
    "text": b"hello",
    "half an object": b'{"task_key":',
    "two objects": b'{"task_key":"k"} {}',
    "NaN": b'{"priority":NaN}',
    "no UTF-8": b'{"task_key":"\xff"}',
    "no UTF-8 in a payload": b'{"task_key":"k","dynamic_key":"0","parameters":{"x":"\xff"}}',
    "a surrogate": b'{"task_key":"\xed\xa0\x80"}',
    "half a surrogate pair": b'{"task_key":"\\ud800"}',
    "UTF-16": '{"task_key":"k"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a form": b"task_key=k&dynamic_key=0",
    "arrays too deep": b'{"parameters":' + b"[" * DEEP + b"]" * DEEP + b"}",
}


@pytest.mark.parametrize("case", NO_JSON)
def test_a_body_that_is_no_json(broker: Host, case: str) -> None:
    answer = post(broker, NO_JSON[case])
    assert answer.status_code == 422
    body = answer.json()
    assert body["exception_message"] == "Invalid request received."
    assert body["exception_detail"][0]["loc"] == ["body"]
    assert body["exception_detail"][0]["type"] == "json_invalid"
    assert len(answer.content) < 4000


@pytest.mark.parametrize("body", [b"null", b"1", b'"x"', b"[]", b"true", b"[" * 100_000])
def test_a_body_that_is_no_object(broker: Host, body: bytes) -> None:
    answer = post(broker, body)
    assert answer.status_code == 422
    assert answer.json()["exception_detail"][0]["loc"] == ["body"]


TEXTS = ["null", "true", "1", "[]", '""']
WRONG: list[tuple[str, str, list[Any]]] = [
    *[("task_key", v, ["task_key"]) for v in [MISSING, *TEXTS, '"a b"', '"k\\n"', '"\\u0000"', LONG]],
    *[("dynamic_key", v, ["dynamic_key"]) for v in [*TEXTS[1:], LONG, '"\\u0000"']],
    *[("name", v, ["name"]) for v in ["1", LONG]],
    *[("state", v, ["state"]) for v in ["1", '"SCHEDULED"', "[]"]],
    *[("state", v, ["state", "type"]) for v in ["{}", '{"type":"RUNNIN"}', '{"type":null}', '{"type":1}']],
    ("state", '{"type":"SCHEDULED","name":""}', ["state", "name"]),
    ("state", '{"type":"SCHEDULED","state_details":1}', ["state", "state_details"]),
    *[
        (
            "state",
            f'{{"type":"SCHEDULED","state_details":{{"scheduled_time":{v}}}}}',
            ["state", "state_details", "scheduled_time"],
        )
        for v in ("1", '"soon"', '"2026-03-01T08:00:00"')
    ],
    *[("tags", v, ["tags"]) for v in ["null", "1", '"x"', "{}", json.dumps(["x"] * 33)]],
    *[("tags", v, ["tags", 0]) for v in ["[1]", '[""]']],
    *[("empirical_policy", v, ["empirical_policy"]) for v in ["1", "[]"]],
    *[
        ("empirical_policy", f'{{"retries":{v}}}', ["empirical_policy", "retries"])
        for v in ["-1", "1001", "1.5", "true"]
    ],
    *[
        ("empirical_policy", f'{{"retry_delay":{v}}}', ["empirical_policy", "retry_delay"])
        for v in ["-1", "1e400"]
    ],
    ("empirical_policy", '{"retry_jitter_factor":11}', ["empirical_policy", "retry_jitter_factor"]),
    *[("id", v, ["id"]) for v in ["1", '"x"', '""']],
    *[
        ("parameters", v, ["parameters"])
        for v in ["null", "1", '"x"', "[]", NESTED_65, of_size(limits.MAX_PAYLOAD_BYTES + 1)]
    ],
    *[("idempotency_key", v, ["idempotency_key"]) for v in ["1", '""']],
    *[("priority", v, ["priority"]) for v in ["null", "true", "1.0", "-1", "10", str(2**64)]],
    *[("expires", v, ["expires"]) for v in ["1", '"soon"']],
    *[("timeout", v, ["timeout"]) for v in ["true", '"1"', "1e400", "0", "-1"]],
    *[("headers", v, ["headers"]) for v in ["null", "[]", "1"]],
    ("headers", json.dumps(headers_of(limits.MAX_HEADERS_BYTES + 1)), ["headers"]),
]


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [pytest.param(f, v, p, id=f"{f} {v if len(v) < 40 else f'{len(v)} bytes'}") for f, v, p in WRONG],
)
def test_a_field_that_is_wrong(broker: Host, field: str, value: str, place: list[Any]) -> None:
    answer = post(broker, text_of({n: v for n, v in {**BODY, field: value}.items() if v != MISSING}))
    assert answer.status_code == 422
    detail = answer.json()["exception_detail"][0]
    assert detail["loc"] == ["body", *place]
    assert detail["msg"]
    assert len(answer.content) < 4000


@pytest.mark.parametrize(
    "value",
    [
        {"colour": "1"},
        {"Task_Key": '"k"'},
        {"state": '{"type":"SCHEDULED","colour":1}'},
        {"empirical_policy": '{"colour":1}'},
        {"": "1"},
        {"x" * 10_000: "1"},
    ],
    ids=lambda value: next(iter(value))[:10],
)
def test_a_field_that_there_is_not(broker: Host, value: dict[str, str]) -> None:
    answer = post(broker, text_of({**BODY, **value}))
    assert answer.status_code == 422
    assert "unknown field" in answer.json()["exception_detail"][0]["msg"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("parameters", NESTED_64),
        ("parameters", of_size(limits.MAX_PAYLOAD_BYTES)),
        ("parameters", f'{{"n":{2**64},"n":1e400}}'),
        ("state", "null"),
        ("state", '{"type":"PENDING","name":"\\n"}'),
        ("empirical_policy", '{"retry_delay":[]}'),
        ("empirical_policy", '{"retries":null,"retry_delay":null,"retry_jitter_factor":null}'),
        ("headers", '{"":""}'),
        ("task_key", '"k"'),
    ],
    ids=lambda text: text if len(text) < 40 else f"{len(text)} bytes",
)
def test_a_field_that_is_unusual(broker: Host, field: str, value: str) -> None:
    answer = post(broker, text_of({**BODY, field: value}))
    assert answer.status_code == 201
    again = broker.http.get(f"{CREATE}{answer.json()['id']}")
    assert again.status_code == 200
    if field == "parameters":
        assert value in again.text


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", "x"]
)
def test_the_content_type_does_not_matter(broker: Host, content_type: str) -> None:
    assert post(broker, text_of(BODY), headers={"Content-Type": content_type}).status_code == 201


# --- Sizes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "status"), [(MAX, 422), (MAX + 1, 413), (5 * MAX, 413)])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_size_of_a_body(broker: Host, size: int, status: int, chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for start in range(0, size, 65_536):
            yield b" " * min(65_536, size - start)

    answer = post(broker, chunks() if chunked else b" " * size)
    assert answer.status_code == status
    if status == 413:
        assert str(MAX) in answer.json()["detail"]


def test_a_body_without_end_is_cut_off(broker: Host) -> None:
    """The answer does not wait for the end of a body that is too long already."""
    head = request(CREATE, "Transfer-Encoding: chunked", method="POST")
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"

    async def main() -> bytes:
        return await talk(broker, head + chunk * 17)

    assert status_of(run(main())) == 413


@pytest.mark.parametrize(
    ("headers", "body", "statuses"),
    [
        (["Content-Length: -1"], b"", {400}),
        (["Content-Length: x"], b"", {400}),
        (["Content-Length: 2", "Content-Length: 3"], b"{}", {400}),
        (["Content-Length: 2", "Transfer-Encoding: chunked"], b"0\r\n\r\n", {400, 422}),
        (["Transfer-Encoding: chunked"], b"zz\r\n{}\r\n0\r\n\r\n", {400}),
        (["Transfer-Encoding: chunked"], b"0\r\n\r\n", {422}),
        (["Content-Length: 0"], b"", {422}),
        ([" : x"], b"", {400}),
        (["X: a\0b"], b"", {400}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_request_that_is_none(broker: Host, headers: list[str], body: bytes, statuses: set[int]) -> None:
    assert status_of(run(talk(broker, request(CREATE, *headers, method="POST") + body))) in statuses


@pytest.mark.parametrize("cut", [b"POST", b"POST /api/task_runs/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le"])
def test_a_request_that_is_cut_off(broker: Host, cut: bytes) -> None:
    async def main() -> None:
        async with dial(broker, SUBMISSION):
            await abort(broker, cut)
            await abort(broker, request(CREATE, "Content-Length: 100", method="POST") + b"{")
            await abort(broker, request(CREATE, "Transfer-Encoding: chunked", method="POST") + b"5\r\n{")

    run(main())


async def abort(host: Host, data: bytes) -> None:
    import asyncio

    _, writer = await asyncio.open_connection("127.0.0.1", host.port)
    writer.write(data)
    await writer.drain()
    writer.transport.abort()


# --- Statuses --------------------------------------------------------------------------------------------------


def test_created_found_and_conflicts(broker: Host) -> None:
    run_id = uuid7()
    body = {**BODY, "id": f'"{run_id}"', "parameters": '{"x":1}', "idempotency_key": f'"{run_id}"'}
    other = {**body, "id": f'"{uuid7()}"'}
    cases: list[tuple[dict[str, str], int, str]] = [
        (body, 201, run_id),
        (body, 200, run_id),
        ({**body, "priority": "9"}, 200, run_id),
        (other, 200, run_id),
        ({**body, "parameters": '{"x":2}', "idempotency_key": "null"}, 409, "id_conflict"),
        ({**body, "task_key": '"edge.other"'}, 409, "id_conflict"),
        ({**other, "parameters": "{}"}, 409, "idempotency_conflict"),
    ]
    for sent, status, what in cases:
        answer = post(broker, text_of(sent))
        assert answer.status_code == status, answer.text
        assert answer.json()["id" if status < 400 else "code"] == what


@pytest.mark.parametrize(
    ("run_id", "status"),
    [
        (ID, 404),
        ("x", 404),
        ("%00", 404),
        ("%ff", 404),
        ("%F0%9F%A6%86", 404),
        ("0" * 36, 404),
        (f"{{{ID}}}", 404),
        (f"{ID}%0A", 404),
        (f"{ID}/", 404),
        ("x" * 10_000, 404),
        ("..", 404),
        ("%2e%2e", 404),
        ("İ" * 36, 404),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_a_run_that_there_is_not(broker: Host, run_id: str, status: int) -> None:
    answer = broker.http.get(f"{CREATE}{run_id}", follow_redirects=True)
    assert answer.status_code == status
    assert answer.json()["detail"]


def test_an_id_in_capitals(broker: Host) -> None:
    run_id = post(broker, text_of(BODY)).json()["id"]
    assert broker.http.get(f"{CREATE}{run_id.upper()}").json()["id"] == run_id


@pytest.mark.parametrize(
    "query", ["", "?task_run_id=", "?task_run_id=x", "?id=1", f"?task_run_id={ID}x", "?task_run_id=%00"]
)
def test_states_of_nothing(broker: Host, query: str) -> None:
    answer = broker.http.get(f"/api/task_run_states/{query}")
    assert answer.status_code == 422
    assert answer.json()["exception_detail"][0]["loc"] == ["query", "task_run_id"]


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/", "/api/task_run", "/api/task_runs/x/y", "/docs", "/openapi.json"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_path_that_there_is_not(broker: Host, path: str, method: str) -> None:
    answer = broker.http.request(method, path)
    assert answer.status_code == 404
    assert answer.json() == {"detail": "Not Found", "exception_message": "Not Found"}


@pytest.mark.parametrize("path", [CREATE, f"{CREATE}{ID}", "/livez", "/readyz", "/api/version"])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "__init__", "POST", "GET"])
def test_a_method_that_there_is_not(broker: Host, path: str, method: str) -> None:
    if method in ({"POST"} if path == CREATE else {"GET", "PATCH", "DELETE"} if ID in path else {"GET"}):
        method = "PROPFIND"
    answer = run(talk(broker, request(path, method=method)))
    if method == "__init__":
        assert status_of(answer) in (400, 405)
    else:
        assert status_of(answer) == 405
        assert b"\r\nallow: " in answer.lower()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/api/version", f"{CREATE}{ID}"])
def test_head(broker: Host, path: str) -> None:
    answer = broker.http.head(path)
    assert answer.status_code == (404 if ID in path else 200)
    assert answer.content == b""


# --- Load ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("waiting", "size"), [(submit.MAX_WAITING, 0), (0, submit.MAX_WAITING_BYTES)])
def test_too_much_waits_for_its_commit(
    broker: Host, waiting: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Store, "waiting", waiting)
        patch.setattr(Store, "waiting_bytes", size)
        answer = post(broker, text_of(BODY))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert post(broker, text_of(BODY)).status_code == 201


def test_a_broker_that_drains(broker: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = post(broker, text_of(BODY)).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(broker.core.submissions, "draining", True)
        patch.setattr(broker.core, "ready", False)
        answers = [post(broker, text_of(BODY)), broker.http.get("/readyz")]
        assert broker.http.get("/livez").status_code == 200
        assert broker.http.get(f"{CREATE}{run_id}").status_code == 200
    for answer in answers:
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1


# --- Who may come in -------------------------------------------------------------------------------------------


def targets(host: Host) -> Iterator[tuple[str, str]]:
    """Yield a method and a path of every route there is. A kind of route that is new here fails: look at it."""
    for route in host.app.routes:
        if isinstance(route, WebSocketRoute):
            continue
        assert isinstance(route, Route), route
        for method in route.methods or ():
            yield method, route.path.replace("{id:uuid}", ID)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer wrong",
        "Bearer",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer \xff",
    ],
)
def test_every_route_but_the_public_ones_wants_a_token(guarded: Host, authorization: str | None) -> None:
    headers = [] if authorization is None else [f"Authorization: {authorization}"]
    seen = set()
    for method, path in targets(guarded):
        answer = run(talk(guarded, request(path, *headers, method=method)))
        if path in PUBLIC:
            assert status_of(answer) == 200, (method, path)
        else:
            assert status_of(answer) == 401, (method, path)
            assert b"www-authenticate: bearer" in answer.lower()
            seen.add(path)
    assert {CREATE, f"{CREATE}{ID}"} <= seen


def test_every_route_opens_to_the_token(guarded: Host) -> None:
    for method, path in targets(guarded):
        answer = run(talk(guarded, request(path, f"Authorization: Bearer {TOKEN}", method=method)))
        assert status_of(answer) not in (401, 403), (method, path)


def test_the_only_public_paths() -> None:
    assert access.PUBLIC == PUBLIC
    assert frozenset({WORKER, SUBMISSION, *EVENTS}) == access.SOCKETS


def test_every_socket_wants_a_token(guarded: Host) -> None:
    paths = [route.path for route in guarded.app.routes if isinstance(route, WebSocketRoute)]
    assert set(paths) == {WORKER, SUBMISSION, *EVENTS}

    async def main(path: str, subprotocol: str, reason: str) -> None:
        async with dial(guarded, path, subprotocols=(subprotocol,)) as peer:
            await peer.say({"type": "beat"})
            assert await peer.closed() == Close(1008, reason)

    for path in (WORKER, SUBMISSION):
        run(main(path, SUBPROTOCOL, "expected auth, got beat"))
    run(main(WORKER, "prefect", "expected a message of type 'auth'"))
    for path in EVENTS:
        run(main(path, "prefect", "Expected 'auth' message"))


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/api/version", CREATE, WORKER + "/", "/" + WORKER])
def test_no_other_socket(guarded: Host, path: str) -> None:
    offer = f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"
    assert status_of(run(talk(guarded, upgrade(path, offer)))) == 401
    authorized = upgrade(path, offer, f"Authorization: Bearer {TOKEN}")
    assert status_of(run(talk(guarded, authorized))) in (403, 404)


RUN_PATH = f"{CREATE}{ID}"


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (RUN_PATH, "x/?", 401),
        (RUN_PATH, "x/livez?", 401),
        (RUN_PATH, "127.0.0.1/livez?", 401),
        (RUN_PATH, "livez", 401),
        (RUN_PATH, "", 401),
        ("/" + RUN_PATH, "x", 401),
        ("//livez", "x", 401),
        ("/livez/" + RUN_PATH, "x", 401),
        ("/livez/.." + RUN_PATH, "x", 401),
        ("/livez/%2e%2e" + RUN_PATH, "x", 401),
        ("/livez%2f.." + RUN_PATH, "x", 401),
        ("/livez%00", "x", 401),
        ("/livez%20", "x", 401),
        ("/livez/", "x", 401),
        ("/livez;" + RUN_PATH, "x", 401),
        ("/LIVEZ", "x", 401),
        ("/%2e" + RUN_PATH, "x", 401),
        ("/api/./task_runs/" + ID, "x", 401),
        ("/%61pi/task_runs/" + ID, "x", 401),
        (RUN_PATH + "?/livez", "x", 401),
        (RUN_PATH + "#/livez", "x", 401),
        (f"http://127.0.0.1{RUN_PATH}", "x", 401),
        (f"http://livez{RUN_PATH}", "livez", 401),
        (f"http://x/livez/..{RUN_PATH}", "x", 401),
        ("http://x/livez", "x", 200),
        ("/livez", "x/?", 200),
        ("/%6civez", "x", 200),
        ("/livez?" + RUN_PATH, "x", 200),
        ("*", "x", 401),
    ],
)
def test_no_spelling_of_a_path_is_a_way_around(guarded: Host, target: str, host: str, status: int) -> None:
    assert status_of(run(talk(guarded, request(target, host=host)))) in (status, 400)


LOCAL = "127.0.0.1:4200"


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        (LOCAL, None, 200),
        (LOCAL, f"http://{LOCAL}", 200),
        ("localhost:4200", "http://localhost:4200", 200),
        ("[::1]:4200", "http://[::1]:4200", 200),
        ("127.0.0.2", None, 200),
        ("127.0.0.1:99999", None, 200),
        (LOCAL, "https://evil.example", 403),
        (LOCAL, "http://127.0.0.1:4201", 403),
        (LOCAL, "http://127.0.0.1", 403),
        (LOCAL, "http://localhost:4200", 403),
        (LOCAL, f"http://evil.example/{LOCAL}", 403),
        (LOCAL, f"http://{LOCAL}.evil.example", 403),
        (LOCAL, f"http://{LOCAL}@evil.example", 403),
        (LOCAL, "null", 403),
        (LOCAL, "", 403),
        (LOCAL, "http://[::1", 403),
        (LOCAL, "http://[", 403),
        (LOCAL, "http://\xbd\xff", 403),
        (LOCAL, LOCAL, 403),
        ("", "null", 403),
        ("evil.example", None, 403),
        ("evil.example:4200", "http://evil.example:4200", 403),
        ("127.0.0.1.evil.example", None, 403),
        ("127.0.0.1@evil.example", None, 403),
        ("evil.example/127.0.0.1", None, 403),
        ("[::1", None, 403),
        ("x/?", None, 403),
        ("", None, 403),
        ("0.0.0.0:4200", None, 403),
        ("2130706433", None, 403),
        ("\xff\xfe", None, 403),
    ],
)
@pytest.mark.parametrize("kind", ["a request", "a public request", "an upgrade"])
def test_foreign_pages_and_foreign_names(
    broker: Host, kind: str, host: str, origin: str | None, status: int
) -> None:
    """Without a token only this machine may come in, and not for a web page from elsewhere."""
    headers = [] if origin is None else [f"Origin: {origin}"]
    if kind == "an upgrade":
        # (No subprotocol: 400 comes only after who it is was looked at.)
        answer = run(talk(broker, upgrade(SUBMISSION, *headers, host=host)))
        assert status_of(answer) in ((400,) if status == 200 else (status, 400))
        assert status == 200 or b"subprotocol" not in answer
    else:
        path = "/livez" if kind == "a public request" else RUN_PATH
        ok = 200 if kind == "a public request" else 404
        answer = run(talk(broker, request(path, *headers, host=host)))
        assert status_of(answer) in ((ok,) if status == 200 else (status, 400))


@pytest.mark.parametrize("origin", ["https://evil.example", "http://[", "null"])
def test_a_foreign_page_is_refused_even_with_the_token(guarded: Host, origin: str) -> None:
    headers = (f"Authorization: Bearer {TOKEN}", f"Origin: {origin}")
    assert status_of(run(talk(guarded, request(RUN_PATH, *headers)))) == 403
    assert status_of(run(talk(guarded, upgrade(WORKER, *headers)))) == 403


def test_any_name_will_do_with_the_token(guarded: Host) -> None:
    answer = run(talk(guarded, request(RUN_PATH, f"Authorization: Bearer {TOKEN}", host="runs.example")))
    assert status_of(answer) == 404


def test_a_redirect_to_the_slash_tells_strangers_nothing(guarded: Host) -> None:
    assert status_of(run(talk(guarded, request("/api/task_runs", method="POST", host="evil.example")))) == 401
