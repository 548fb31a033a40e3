"""Submits calls and prints what became of each, a line of JSON each: ["returned", value] or ["raised", text].

submit.py calls '[["add", [1, 2]], ...]'    waits for all
submit.py detached '[["nap", ["x", 1]]]'    prints the ids, and waits for nothing
submit.py times COUNT NAME                  NAME(i) for each i, as many at once as it takes, and waits for nothing
submit.py chain                             calls that wait for others
submit.py map COUNT                         as many calls at once, and waits for all
submit.py flow                              a call in a flow
submit.py keep                              a block, a variable and an artifact, kept and read again
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import work

import prefect

OLD = prefect.__version__.startswith("2.")
SECONDS = 60.0


def submit(name, arguments):
    task = getattr(work, name)
    return settled(task.submit(*arguments)) if OLD else task.delay(*arguments)


def id_of(run):
    return str(run.id if OLD else run.task_run_id)


def result_of(run):
    """Return what a run has come to; raise what it has raised."""
    if not OLD:
        return run.result(timeout=SECONDS)
    client = prefect.get_client(sync_client=True)
    deadline = time.monotonic() + SECONDS
    while not (state := client.read_task_run(run.id).state).is_final():
        if time.monotonic() > deadline:
            raise TimeoutError(state.name)
        time.sleep(0.1)
    return settled(state.result(raise_on_failure=True))


def settled(found):
    """Return what an asynchronous task's call comes to."""
    return asyncio.run(wait(found)) if hasattr(found, "__await__") else found


async def wait(found):
    return await found


def say(*line):
    print(json.dumps(line), flush=True)


def outcome(call):
    try:
        say("returned", call())
    except Exception as exc:
        say("raised", f"{type(exc).__name__}: {exc}")


def chain():
    first = work.add.delay(1, 1)
    second = work.add.apply_async((first, 5), wait_for=[first])
    third = work.add_async.apply_async((second, 10), wait_for=[first, second])
    return third.result(timeout=SECONDS)


def many(count):
    return sum(future.result(timeout=SECONDS) for future in work.add.map(list(range(count)), 1, deferred=True))


def in_flow():
    @prefect.flow
    def outer():
        return work.add.delay(1, 2).result(timeout=SECONDS)

    return outer()


def keep():
    from prefect.artifacts import create_markdown_artifact
    from prefect.filesystems import LocalFileSystem
    from prefect.variables import Variable

    LocalFileSystem(basepath="/somewhere").save("place", overwrite=True)
    LocalFileSystem(basepath="/elsewhere").save("place", overwrite=True)
    Variable.set("word", "value", overwrite=True)
    Variable.set("word", "another value", overwrite=True)
    create_markdown_artifact("text", key="page")
    return [LocalFileSystem.load("place").basepath, Variable.get("word"), Variable.get("unknown")]


def main():
    what, *rest = sys.argv[1:]
    if what == "chain":
        outcome(chain)
    elif what == "map":
        outcome(lambda: many(int(rest[0])))
    elif what == "flow":
        outcome(in_flow)
    elif what == "keep":
        outcome(keep)
    elif what == "times":
        count, name = int(rest[0]), rest[1]
        for i in range(count):
            submit(name, [str(i)])
        say("returned", count)
    else:
        runs = [submit(name, arguments) for name, arguments in json.loads(rest[0])]
        for run in runs:
            if what == "detached":
                say("submitted", id_of(run))
            else:
                outcome(lambda run=run: result_of(run))


main()
