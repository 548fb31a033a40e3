"""Each example does what its README says, against a real broker."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from runlane.config import ClientSection
from runlane.rest import ask

from .harness import EXAMPLES, PYTHON, Site, example, free_port, until

pytestmark = pytest.mark.process

ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
NAMES = sorted(folder.name for folder in EXAMPLES.iterdir() if folder.is_dir() and folder.name != "__pycache__")


def test_hello(tmp_path: Path) -> None:
    """The worker comes last, as the README says one can try."""
    with example("hello", tmp_path) as site:
        main = site.run(PYTHON, "main.py")
        main.says("submitted")
        worker = site.worker()
        said = main.ends()
    here = re.search(r"^This is process (\d+)\.$", said, re.MULTILINE)
    assert here is not None
    assert f"called:    Hello, Ada! This is process {here[1]}.\n" in said
    assert re.search(rf"^submitted: {ID}$", said, re.MULTILINE)
    assert f"result:    Hello, Ada! This is process {worker.pid}.\n" in said


def test_retries(tmp_path: Path) -> None:
    with example("retries", tmp_path) as site:
        worker = site.worker()
        assert site.main() == (
            "index: index, got at attempt 3\n"
            "missing: failed for good with tasks.NoSuchPage: missing\n"
            "down: failed for good with ConnectionError: no answer to attempt 2\n"
        )
    assert worker.output.count("\ntasks.NoSuchPage: missing") == 1
    assert worker.output.count("\nConnectionError: no answer to attempt") == 4


def test_scheduled(tmp_path: Path) -> None:
    with example("scheduled", tmp_path) as site:
        site.worker()
        said = site.main()
        tomorrow = re.search(rf"^for tomorrow: ({ID}), submitted twice: True$", said, re.MULTILINE)
        assert tomorrow is not None
        [(key,)] = rows(site, "SELECT idempotency_key FROM task_run WHERE idempotency_key IS NOT NULL")
        submit = ("submit", "tasks.remind", "--args", '{"of":"water the plants"}', "--idempotency-key", key)
        assert site.run(PYTHON, "-m", "runlane", *submit).ends().strip().endswith(tomorrow[1])
    times = {text: seconds_of(time) for time, text in re.findall(r"^([\d:]{8})  (.*)$", said, re.MULTILINE)}
    submitted = times.pop("submitted")
    assert list(times) == ["nothing to wait for", "the bus leaves", "the tea is ready"]
    waits = [(time - submitted) % 86_400 for time in times.values()]
    assert all(wait in (least, least + 1) for least, wait in enumerate(waits)), said


def seconds_of(time: str) -> int:
    hours, minutes, seconds = map(int, time.split(":"))
    return (hours * 60 + minutes) * 60 + seconds


def test_progress(tmp_path: Path) -> None:
    with example("progress", tmp_path) as site:
        site.worker()
        *progress, end = site.main().splitlines()
    assert end == "done: 20 pages"
    pages = [re.fullmatch(r"(\d+) of 20: page \1", line) for line in progress]
    numbers = [int(page[1]) for page in pages if page]
    assert len(numbers) == len(progress) > 5
    assert numbers == sorted(set(numbers))


def test_cpu_bound(tmp_path: Path) -> None:
    with example("cpu_bound", tmp_path) as site:
        worker = site.worker("--limit", "2")
        said = site.main()
        worker.signal(signal.SIGTERM)
        worker.ends()
    assert re.search(r"^17984 primes below 200000, in [\d.]+ s\ncounted by 2 processes$", said, re.MULTILINE)


def test_work_queue_worker(tmp_path: Path) -> None:
    with example("work_queue_worker", tmp_path) as site:
        assert site.main("prepare") == ""
        pushed = site.run(PYTHON, "pushed.py")
        pushed.says("subscribed")
        polling = site.run(PYTHON, "polling.py")
        assert site.main() == "20 flow runs have completed\n"
        pushed.says(r"pushed: \{'day': \d+\} of example/(urgent|default)")
        days = re.findall(r"(?:pushed|polled): \{'day': (\d+)\}", pushed.output + polling.output)
        states = rows(site, "SELECT flow_run_id, count(*) FROM flow_run_state WHERE type = 'PENDING' GROUP BY 1")
    assert sorted(map(int, days)) == list(range(20))
    assert [count for _, count in states] == [1] * 20


def test_work_queue_worker_before_its_pool(tmp_path: Path) -> None:
    with example("work_queue_worker", tmp_path) as site:
        assert site.run(PYTHON, "polling.py").ends(1) == 'refused: Work pool "example" not found.\n'


def test_work_queue_worker_stops_what_it_is_told_to(tmp_path: Path) -> None:
    with example("work_queue_worker", tmp_path) as site:
        site.main("prepare")
        pushed = site.run(PYTHON, "pushed.py")
        pushed.says("subscribed")
        client = ClientSection(url=site.url)
        flow = ask(client, "POST", "/flows/", {"name": "report"})["id"]

        def begun(**parameters: float) -> str:
            where = {"work_pool_name": "example", "work_queue_name": "urgent"}
            wanted = {"flow_id": flow, "parameters": parameters, "state": {"type": "SCHEDULED"}, **where}
            run = ask(client, "POST", "/flow_runs/", wanted)["id"]
            until(lambda: state(run) == "RUNNING")
            return f"/flow_runs/{run}"

        def state(run: str) -> str:
            return ask(client, "GET", f"/flow_runs/{run.rpartition('/')[2]}")["state"]["type"]

        cancelled = begun(day=1, seconds=600)
        ask(client, "POST", f"{cancelled}/set_state", {"state": {"type": "CANCELLING"}})
        pushed.says("it was cancelled")
        until(lambda: state(cancelled) == "CANCELLED")
        lost = begun(day=2, seconds=600)  # its one slot is free again
        ask(client, "POST", f"{lost}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
        pushed.says("somebody else's")
        begun(day=3, seconds=600)


def test_many_workers(tmp_path: Path) -> None:
    with example("many_workers", tmp_path) as site:
        workers = [site.worker("--limit", "4"), site.worker("--limit", "2")]
        counts = counted(site.main("120"))
    assert counts.keys() == {worker.pid for worker in workers}
    quick, slow = (counts[worker.pid] for worker in workers)
    assert quick > slow
    assert quick + slow == 120


def test_workers_come_and_go(tmp_path: Path) -> None:
    with example("many_workers", tmp_path) as site:
        leaving, dying = site.worker("--limit", "2"), site.worker("--limit", "2")
        main = site.run(PYTHON, "main.py", "200")
        leaving.says("COMPLETED")
        leaving.signal(signal.SIGTERM)
        dying.says("COMPLETED")
        dying.signal(signal.SIGKILL)
        coming = site.worker()
        leaving.ends()
        counts = counted(main.ends())
    assert sum(counts.values()) == 200
    assert {leaving.pid, coming.pid} <= counts.keys() <= {leaving.pid, dying.pid, coming.pid}


def counted(said: str) -> dict[int, int]:
    """Return the pictures by process; their sum must be what the program says."""
    counts = {int(pid): int(count) for pid, count in re.findall(r"process (\d+): (\d+) pictures", said)}
    assert said.endswith(f"together: {sum(counts.values())} pictures\n")
    return counts


# --- The web app --------------------------------------------------------------------------------------------


def test_web_app(tmp_path: Path) -> None:
    with example("web_app", tmp_path) as site:
        ports = [free_port(), free_port()]
        for port in ports:
            site.run(PYTHON, "-m", "uvicorn", "app:app", "--port", str(port)).says("running on")
        with closing(HTTPConnection("127.0.0.1", ports[0], timeout=30)) as web:
            page = request(web, "GET", "/")
            assert "<title>Reports</title>" in page
            assert not re.search(r"(?:src|href)=|https?://", page)  # nothing from elsewhere
            unknown = "019aa5a2-93a1-7c44-b0c9-3b0f4e4b9f0e"
            assert events(web, unknown) == [("failure", {"message": f"no run has the id {unknown}"})]
            assert "'pages' must be a number" in request(web, "POST", "/reports", '{"pages": "many"}', status=422)
            assert "no id of a run" in request(web, "GET", "/reports/nonsense/events", status=404)
            report, impossible = submitted(web, 12), submitted(web, 0)
        site.worker()
        with closing(HTTPConnection("127.0.0.1", ports[1], timeout=30)) as other:  # any server can follow any run
            *progress, end = events(other, report)
            assert events(other, impossible) == [("failure", {"message": "between 1 and 1000 pages, please"})]
    assert end == ("result", {"value": "a report of 12 pages"})
    assert {name for name, _ in progress} == {"progress"}
    pages = [data["current"] for _, data in progress]
    assert len(pages) > 3
    assert pages == sorted(pages)
    assert progress[0][1] == {"current": pages[0], "total": 12, "message": f"page {pages[0]:.0f}"}


def test_web_app_without_a_broker(tmp_path: Path) -> None:
    with example("web_app", tmp_path) as site:
        port = free_port()
        nobody = {"RUNLANE_URL": f"http://127.0.0.1:{free_port()}"}
        site.run(PYTHON, "-m", "uvicorn", "app:app", "--port", str(port), **nobody).says("running on")
        with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as web:
            assert "cannot be reached" in request(web, "POST", "/reports", '{"pages": 3}', status=503)


def request(web: HTTPConnection, method: str, path: str, body: str | None = None, *, status: int = 200) -> str:
    web.request(method, path, body)
    response = web.getresponse()
    text = response.read().decode()
    assert response.status == status, text
    return text


def submitted(web: HTTPConnection, pages: int) -> str:
    answer = request(web, "POST", "/reports", json.dumps({"pages": pages}), status=202)
    run_id: str = json.loads(answer)["id"]
    return run_id


def events(web: HTTPConnection, run_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Read a run's events to their end, as a browser does."""
    text = request(web, "GET", f"/reports/{run_id}/events")
    return [(name, json.loads(data)) for name, data in re.findall(r"event: (.*)\ndata: (.*)\n\n", text)]


# --- The worker without the SDK -----------------------------------------------------------------------------


TOKEN = "a-token-of-a-certain-length"


@pytest.mark.parametrize(
    ("name", "says"), [("worker.py", "closed: received 1008"), ("resuming.py", "the broker will not have us")]
)
def test_worker_script(tmp_path: Path, name: str, says: str) -> None:
    with Site(EXAMPLES / "worker_script", tmp_path, RUNLANE_TOKEN=TOKEN) as site:
        site.broker()
        refused = site.run(PYTHON, name, RUNLANE_TOKEN=TOKEN[::-1])
        assert says in refused.ends(1)
        worker = site.run(PYTHON, name)
        worker.says("subscribed")
        assert site.main("hello") == "olleh\n"
        wrong = site.run(PYTHON, "-m", "runlane", "submit", "text.reverse", "--args", '{"text": 5}', "--wait")
        assert "TypeError: 'int' object is not subscriptable" in wrong.ends(1)
        worker.signal(signal.SIGINT)
        assert "Traceback" not in worker.ends()


def test_worker_script_resumes_its_session(tmp_path: Path) -> None:
    """The broker is killed and comes back: what was under way is executed once, and reported."""
    with Site(EXAMPLES / "worker_script", tmp_path) as site:
        broker = site.broker()
        worker = site.run(PYTHON, "resuming.py")
        worker.says("subscribed")
        main = site.run(PYTHON, "-m", "runlane", "submit", "text.reverse", "--args", SLOW, "--wait", "--json")
        until(lambda: "RUNNING" in history(site))
        broker.signal(signal.SIGKILL)
        broker.ends(-signal.SIGKILL)
        site.broker()
        worker.says("subscribed, 1 runs in hand")
        assert '"olleh"' in main.ends()
        assert history(site) == ["SCHEDULED", "PENDING", "RUNNING", "COMPLETED"]


SLOW = '{"text": "hello", "seconds": 2.5}'


def history(site: Site) -> list[str]:
    """Return the states that the one run has had."""
    return [state for (state,) in rows(site, "SELECT type FROM task_run_state ORDER BY timestamp")]


def rows(site: Site, query: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(site.database)) as database:
        return database.execute(query).fetchall()


# --- The pages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_example_is_described(name: str) -> None:
    page = (EXAMPLES / name / "README.md").read_text("utf-8")
    assert page.startswith("# ")
    assert "```console\n$ runlane serve " in page
    assert f"[{name}]({name}/)" in (EXAMPLES / "README.md").read_text("utf-8")
    assert f"def test_{name}(" in Path(__file__).read_text("utf-8")


@pytest.mark.parametrize("page", sorted(EXAMPLES.rglob("*.md")), ids=lambda page: page.parent.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        assert "://" in link or (page.parent / link).exists(), link
