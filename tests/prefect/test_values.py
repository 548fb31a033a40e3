"""Variables and artifacts, as Prefect's clients ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.faults.harness import run

from .sockets import world


def test_a_variable(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w:
            absent = "/api/variables/name/v"
            assert (await w.http.get(absent)).status_code == 404
            made = await w.http.post(
                "/api/variables/", json={"name": "v", "value": {"n": [1, None]}, "tags": ["t"]}
            )
            assert made.status_code == 201
            again = await w.http.post("/api/variables/", json={"name": "v", "value": 2})
            assert again.status_code == 409
            by_name, by_id = "/api/variables/name/v", f"/api/variables/{made.json()['id']}"
            assert (await w.http.get(by_name)).json() == (await w.http.get(by_id)).json() == made.json()
            changed = await w.http.patch(by_name, json={"name": "v", "value": None})
            assert (changed.status_code, changed.content) == (204, b"")
            renamed = await w.http.patch(by_id, json={"name": "w"})
            assert renamed.status_code == 409
            filters = ({}, {"variables": {"name": {"any_": ["v", "x"]}}}, {"variables": {"name": {"any_": ["x"]}}})
            listed = [(await w.http.post("/api/variables/filter", json=body)).json() for body in filters]
            assert [[(one["name"], one["value"], one["tags"]) for one in found] for found in listed] == [
                [("v", None, ["t"])],
                [("v", None, ["t"])],
                [],
            ]
            assert (
                await w.http.post("/api/variables/filter", json={"variables": {"tags": {}}})
            ).status_code == 422
            assert (await w.http.delete(by_name)).status_code == 204
            assert [(await w.http.delete(path)).status_code for path in (by_name, by_id)] == [404, 404]

    run(main())


def test_artifacts_of_one_key(tmp_path: Path) -> None:
    """The newest counts; each stays."""

    async def main() -> None:
        async with world(tmp_path / "db") as w:
            latest = "/api/artifacts/k/latest"
            assert (await w.http.get(latest)).status_code == 404
            made = [
                (await w.http.post("/api/artifacts/", json={"key": "k", "type": "markdown", "data": text})).json()
                for text in ("first", "second")
            ]
            assert (await w.http.get(latest)).json() == made[1]
            first = f"/api/artifacts/{made[0]['id']}"
            assert (await w.http.get(first)).json()["data"] == "first"
            assert (await w.http.patch(first, json={"data": 1})).status_code == 204
            shown = (await w.http.get(first)).json()
            assert (shown["key"], shown["type"], shown["data"], shown["description"]) == ("k", "markdown", 1, None)
            assert (await w.http.delete(first)).status_code == 204
            assert (await w.http.get(first)).status_code == 404
            assert (await w.http.post("/api/artifacts/", json={"data": 1})).status_code == 201

    run(main())


def test_lists_of_artifacts(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w:

            async def listed(path: str, **filters: object) -> list[object]:
                found = await w.http.post(f"/api/artifacts/{path}", json=filters)
                assert found.status_code == 200, found.text
                return [
                    (one["key"], one["data"], one.get("latest_id", one["id"]) == one["id"]) for one in found.json()
                ]

            assert await listed("filter") == await listed("latest/filter") == []
            for key, data in (("b", 1), ("a", 2), ("b", 3), (None, 4)):
                await w.http.post("/api/artifacts/", json={"key": key, "data": data})
            assert await listed("filter") == [(None, 4, True), ("a", 2, True), ("b", 1, True), ("b", 3, True)]
            assert await listed("latest/filter") == [("a", 2, True), ("b", 3, True)]
            assert await listed("latest/filter", limit=1, offset=1) == [("b", 3, True)]
            for_one = {"key": {"any_": ["b"]}}
            assert await listed("filter", artifacts=for_one) == [("b", 1, True), ("b", 3, True)]
            assert await listed("latest/filter", artifacts=for_one) == [("b", 3, True)]
            assert await listed("filter", artifacts={"key": {"exists_": False}}) == [(None, 4, True)]
            assert await listed("latest/filter", artifacts={"key": {"exists_": False}}) == []
            assert len(await listed("filter", artifacts={"key": {"exists_": True}})) == 3
            for unknown in ({"artifacts": {"type": {"any_": ["x"]}}}, {"flow_runs": {}}):
                assert (await w.http.post("/api/artifacts/filter", json=unknown)).status_code == 422

    run(main())


def test_lists_of_blocks(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w:

            async def made(path: str, **body: object) -> str:
                return (await w.http.post(f"/api/{path}/", json=body)).json()["id"]

            async def listed(path: str, **body: object) -> list[dict[str, Any]]:
                return (await w.http.post(f"/api/{path}/filter", json=body)).json()

            assert await listed("block_types") == await listed("block_documents") == []
            type_id = await made("block_types", name="Secret", slug="secret")
            schema_id = await made("block_schemas", block_type_id=type_id, fields={"secret_fields": ["value"]})
            of_schema = {"block_type_id": type_id, "block_schema_id": schema_id, "data": {"value": "x"}}
            await made("block_documents", is_anonymous=True, **of_schema)
            for name in ("two", "one"):
                await made("block_documents", name=name, **of_schema)
            assert [(one["slug"], one["is_protected"]) for one in await listed("block_types")] == [
                ("secret", False)
            ]
            found = await listed("block_documents")
            assert [(one["name"], one["data"]["value"]) for one in found] == [("one", "*" * 8), ("two", "*" * 8)]
            (second,) = await listed("block_documents", limit=5, offset=1, include_secrets=True)
            assert (second["name"], second["data"]["value"]) == ("two", "x")

    run(main())


def test_what_there_is_none_of(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path / "db") as w:
            for path in ("/api/v2/concurrency_limits/filter", "/api/automations/filter"):
                answer = await w.http.post(path, json={"limit": 10, "offset": 0})
                assert (answer.status_code, answer.json()) == (200, [])

    run(main())
