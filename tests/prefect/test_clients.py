"""What Prefect's users do, with Prefect's own packages, and what happens to them meanwhile.

Takes minutes, so only `make test-prefect` runs it. Each `town` fails at its end if any request was answered
otherwise than a Prefect server would have (404, 405, 5xx).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest

from runlane.protocol.ids import uuid7
from tests.faults.harness import run, until

from .clients import PATIENCE, PROGRAMS, VERSIONS, WHOLE, Town, python_of, town
from .cutter import Cutter

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not WHOLE, reason="takes minutes: `make test-prefect`"),
]
both = pytest.mark.parametrize("version", VERSIONS)

#: Seconds in which a worker's session may come back, and what may pass until its runs are elsewhere beyond that.
GRACE = 1.0
QUICK = {"RUNLANE_TIMERS_RESUME": str(GRACE), "RUNLANE_TIMERS_SWEEP": "0.1"}


#: Runs a command as process 1 of a host that is called `box`.
BOX = ("unshare", "--fork", "--pid", "--uts", "--kill-child", "sh", "-c", 'hostname box; exec "$@"', "-")


@both
def test_what_tasks_return_and_raise(tmp_path: Path, version: str) -> None:
    async def main() -> None:
        async with town(tmp_path, version) as here:
            await here.worker()
            outcomes = await here.calls(
                ("add", 1, 2), ("add_async", 3, 4), ("flaky", "f"), ("fail",), ("too_slow",), ("tagged", "w")
            )
            assert outcomes[:3] == [["returned", 3], ["returned", 7], ["returned", "done"]]
            assert [how for how, _ in outcomes[3:]] == ["raised", "raised", "returned"], outcomes
            if version == "3":  # the other one keeps no exceptions
                assert outcomes[3] == ["raised", "ValueError: bad luck"]
            assert here.noted("tried") == ["f"] * 3
            retries = [one for one in await states_of(here, "flaky") if one[0] in ("AwaitingRetry", "Retrying")]
            assert [name for name, _ in retries] == ["AwaitingRetry", "Retrying"] * 2
            for (_, since), (_, again) in zip(retries[::2], retries[1::2], strict=True):
                assert (again - since).total_seconds() > 0.95, "the delay of the retry is one second"
            assert (await states_of(here, "fail"))[-1][0] == "Failed"
            assert (await states_of(here, "too_slow"))[-1][0] == "TimedOut"

    run(main())


async def states_of(here: Town, task: str) -> list[tuple[str, datetime]]:
    """Return the names of the states of the only run of a task, and since when, in order."""
    (found,) = [one for one in await here.post("/api/task_runs/filter", {}) if task in one["task_key"]]
    states = await here.get(f"/api/task_run_states/?task_run_id={found['id']}")
    return [(state["name"], datetime.fromisoformat(state["timestamp"])) for state in states]


def test_many_calls_at_once_and_one_in_a_flow(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path, "3") as here:
            await here.worker()
            assert await here.submit("map", 20) == [["returned", sum(range(1, 21))]]
            assert await here.submit("flow") == [["returned", 3]]

    run(main())


def test_no_more_than_the_limit_at_once(tmp_path: Path) -> None:
    """Of all tasks that the worker serves together. Prefect 2 has no limit."""

    async def main() -> None:
        async with town(tmp_path, "3") as here:
            await here.worker(limit=2)
            calls = [(task, f"{task}{i}", 0.5) for i in range(4) for task in ("nap", "doze")]
            await here.all_completed(await here.detached(*calls))
            executing: set[str] = set()
            for name, what, _ in map(str.split, here.notes.read_text().splitlines()):
                executing ^= {name}
                assert (name in executing) == (what == "began")
                assert len(executing) <= 2, here.notes.read_text()
            assert len(set(here.noted("ended"))) == len(calls)

    run(main())


@both
def test_what_a_prefect_server_answers(tmp_path: Path, version: str) -> None:
    """Status by status, to whatever its clients ask meanwhile."""

    async def main() -> None:
        async with (
            town(tmp_path / "here", version, judged=False) as here,
            town(tmp_path / "there", version, start=False, judged=False) as there,
        ):
            await there.prefect_server()
            for place in (here, there):
                await place.client("worker", PROGRAMS / "worker.py", LIMIT="10")
                said = await place.calls(
                    ("add", 1, 2), ("add_async", 3, 4), ("flaky", "f"), ("fail",), ("tagged", "w")
                )
                assert [how for how, _ in said] == ["returned"] * 3 + ["raised", "returned"]
                if version == "3":
                    assert await place.submit("flow") == [["returned", 3]]
                    assert await place.submit("keep") == [["returned", ["/elsewhere", "another value", None]]]
            theirs = there.answers()
            different = [
                (request, status, theirs.get(request))
                for request, statuses in here.answers().items()
                for status in statuses - theirs.get(request, set())
                if not request[1].startswith(("/api/block_types/", "/api/block_schemas/"))  # there from the start
            ]
            assert different == []

    run(main())


def test_what_waits_for_others(tmp_path: Path) -> None:
    """One slot, so whatever waited inside a worker for something behind it would wait for ever."""

    async def main() -> None:
        async with town(tmp_path, "3") as here:
            await here.worker(limit=1)
            assert await here.submit("chain") == [["returned", 17]]

    run(main())


@both
def test_a_thousand_calls_without_a_refusal(tmp_path: Path, version: str) -> None:
    async def main() -> None:
        async with town(tmp_path, version) as here:
            assert await here.submit("times", 1000, "a") == [["returned", 1000]]
            await here.worker(limit=50)
            await until(lambda: len(set(here.noted("a"))) == 1000, 4 * PATIENCE)
            assert sorted(here.noted("a"), key=int) == [str(i) for i in range(1000)]

    run(main())


@both
def test_the_string_that_lets_one_in(tmp_path: Path, version: str) -> None:
    """Prefect 2 has none to show: whoever has set a token keeps it out."""

    async def main() -> None:
        async with town(tmp_path, version, auth="admin:a-long-password") as here:
            if version == "2":
                code = await (await here.client("worker", PROGRAMS / "worker.py")).wait(PATIENCE)
                assert code != 0
                return
            await here.worker()
            assert await here.calls(("add", 1, 2)) == [["returned", 3]]
            wrong = {"PREFECT_API_AUTH_STRING": "admin:another-password"}
            refused = await here.client("wrong", PROGRAMS / "worker.py", **wrong)
            assert await refused.wait(PATIENCE) != 0
            assert "the token is not valid" in refused.log
            submitter = await here.client("wrong-submit", PROGRAMS / "submit.py", "times", "1", "a", **wrong)
            assert await submitter.wait(PATIENCE) != 0
            assert "401" in submitter.log

    run(main())


@both
def test_a_worker_that_is_told_to_stop(tmp_path: Path, version: str) -> None:
    async def main() -> None:
        async with town(tmp_path, version, **QUICK) as here:
            first = await here.worker("first", limit=1)
            runs = await here.detached(*(("nap", f"n{i}", 0.2) for i in range(6)))
            await until(lambda: here.noted("began"), PATIENCE)
            first.terminate()
            await first.wait(PATIENCE)
            await here.worker("second", limit=4)
            await here.all_completed(runs)

    run(main())


@both
def test_a_worker_that_is_killed(tmp_path: Path, version: str) -> None:
    """It has acknowledged a run and begun it: another worker has it within the grace and two seconds."""

    async def main() -> None:
        async with town(tmp_path, version, **QUICK) as here:
            workers = [await here.worker("first"), await here.worker("second")]
            runs = await here.detached(("stay", "s"))
            await until(lambda: here.noted("began"), PATIENCE)
            (holder,) = [worker for worker in workers if str(worker.pid) in here.notes.read_text()]
            killed, killed_at = time.monotonic(), time.time()
            await holder.kill()
            await until(lambda: len(here.noted("began")) == 2, PATIENCE)
            print(f"begun again after {time.monotonic() - killed:.2f} s; the grace is {GRACE:g} s")
            names, since = zip(*await states_of(here, "stay"), strict=True)
            again = since[names.index("Pending", names.index("Requeued"))].timestamp()
            assert again - killed_at < GRACE + 2
            await here.all_completed(runs)

    run(main())


@both
def test_a_broker_that_is_killed_with_a_backlog(tmp_path: Path, version: str) -> None:
    async def main() -> None:
        async with town(tmp_path, version) as here:
            await here.post("/api/task_runs/bulk", {"task_runs": [await template(here, i) for i in range(1000)]})
            await here.kill_broker()
            await here.broker()
            await here.worker(limit=50)
            await until(lambda: len(here.noted("a")) == 1000, 4 * PATIENCE)

    run(main())


async def template(here: Town, number: int) -> dict[str, object]:
    """Return another run of a task that was submitted once, with the parameters of that."""
    if not here.template:
        (run_id,) = await here.detached(("a", "x"))
        known = await here.get(f"/api/task_runs/{run_id}")
        here.template = {
            "task_key": known["task_key"],
            "state": {"type": "SCHEDULED", "state_details": details(known["state"]["state_details"])},
        }
        await here.delete(f"/api/task_runs/{run_id}")
    return {**here.template, "dynamic_key": f"{number}-{uuid7()}"}


def details(of: dict[str, object]) -> dict[str, object]:
    return {name: of[name] for name in ("deferred", "task_parameters_id")}


def test_five_thousand_calls_that_nobody_serves(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path, "3") as here:
            for _ in range(5):
                created = await here.post(
                    "/api/task_runs/bulk", {"task_runs": [await template(here, i) for i in range(1000)]}
                )
                assert all(one["created"] for one in created)
            assert await here.submit("times", 20, "b") == [["returned", 20]]

    run(main())


def test_a_broker_that_is_killed_between_an_event_and_its_commit(tmp_path: Path) -> None:
    """The client keeps what no pong has confirmed, and sends it to the next broker."""

    async def main() -> None:
        async with town(tmp_path, "3") as here:
            await here.worker()
            here.hold.touch()
            runs = await here.detached(("nap", "n", 3.0))
            await until(lambda: here.hold.read_text() == "held", PATIENCE)
            await here.kill_broker()
            here.hold.unlink()
            await here.broker()
            assert await here.states(runs) != ["COMPLETED"], "it was not committed"
            await here.all_completed(runs, 2 * PATIENCE)
            assert here.noted("began") == ["n"]

    run(main())


def test_a_full_worker_outlives_its_broker(tmp_path: Path) -> None:
    """It looks at its connection only when it has a slot: a longer grace lets it keep what it has."""

    async def main() -> None:
        async with town(tmp_path, "3", RUNLANE_TIMERS_RESUME="60") as here:
            await here.worker(limit=1)
            runs = await here.detached(*(("nap", f"n{i}", 4.0) for i in range(3)))
            await until(lambda: here.noted("began"), PATIENCE)
            await here.kill_broker()
            await here.broker()
            await here.all_completed(runs, 2 * PATIENCE)
            assert sorted(here.noted("began")) == ["n0", "n1", "n2"]

    run(main())


def test_a_broker_that_is_away_while_runs_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path, "3") as here:
            await here.worker()
            runs = await here.detached(*(("nap", f"n{i}", 2.0) for i in range(4)))
            await until(lambda: len(here.noted("began")) == 4, PATIENCE)
            await here.kill_broker()
            await until(lambda: len(here.noted("ended")) == 4, PATIENCE)
            await here.broker()
            await here.all_completed(runs, 2 * PATIENCE)
            assert sorted(here.noted("ended")) == ["n0", "n1", "n2", "n3"]

    run(main())


def test_a_worker_whose_subscription_is_cut(tmp_path: Path) -> None:
    """For ten seconds, while it executes four runs; its events go another way all the time.

    Two of them end meanwhile. Of the others it is sent a second copy, which it drops: it reports each end once.
    """

    async def main() -> None:
        async with town(tmp_path, "3", **QUICK) as here, Cutter.open(here.port) as proxy:
            worker = await here.worker(port=proxy.port)
            runs = await here.detached(*(("nap", f"n{i}", 6.0 + 10.0 * (i % 2)) for i in range(4)))
            await until(lambda: len(here.noted("began")) == 4, PATIENCE)
            proxy.cut("/api/task_runs/subscriptions/scheduled")
            await asyncio.sleep(10)
            proxy.mend()
            await here.all_completed(runs, 2 * PATIENCE)
            assert sorted(here.noted("began")) == ["n0", "n1", "n2", "n3"]
            attempts = [(await here.get(f"/api/task_runs/{run_id}"))["attempt"] for run_id in runs]
            assert attempts == [1, 2, 1, 2]
            assert worker.is_running, worker.log

    run(main())


@both
def test_no_key_starves(tmp_path: Path, version: str) -> None:
    async def main() -> None:
        async with town(tmp_path, version) as here:
            runs = await here.detached(*((key, str(i)) for key in "abc" for i in range(8)))
            await here.worker("worker", "a", "b", "c", limit=1)
            await here.all_completed(runs)
            order = [line.split()[1] for line in here.notes.read_text().splitlines()]
            assert {*order[:6]} == {"a", "b", "c"}, order

    run(main())


@both
def test_a_process_of_the_same_name_and_number(tmp_path: Path, version: str) -> None:
    """As a container that is started again has them: host name `box`, process 1. All its runs finish."""
    refusal = refused((*BOX, "true"))
    if refusal:
        pytest.skip(f"no process can be given a number and a host name of its own: {refusal}")

    async def main() -> None:
        async with town(tmp_path, version, **QUICK) as here:
            first = await here.boxed("first", BOX, python_of(version))
            runs = await here.detached(*(("nap", f"n{i}", 3.0) for i in range(4)))
            await until(lambda: here.noted("began"), PATIENCE)
            await first.kill()
            await here.boxed("second", BOX, python_of(version))
            await here.all_completed(runs, 2 * PATIENCE)

    run(main())


def refused(command: tuple[str, ...]) -> str:
    """Return what is said where a command cannot be run; nothing where it can."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as exc:
        return str(exc)
    return done.stderr or f"exit code {done.returncode}" if done.returncode else ""


def test_the_log_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path, "3") as here:
            await here.worker()
            (run_id,) = await here.detached(("tagged", "w"))
            await here.all_completed([run_id])
            wanted = {"logs": {"task_run_id": {"any_": [run_id]}}}
            for _ in range(100):
                if lines := await here.post("/api/logs/filter", wanted):
                    break
                await asyncio.sleep(0.1)
            assert "a line of the log" in json.dumps(lines)

    run(main())
