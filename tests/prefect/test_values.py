"""Variables and artifacts, as Prefect's clients ask for them."""

from __future__ import annotations

from pathlib import Path

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
