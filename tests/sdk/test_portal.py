"""Sync code's thread: started when needed, ended with the interpreter, never shared with a forked child."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from runlane import Client, ClientClosed, RunFuture, RunlaneError, Settings, task
from runlane.client import run_sync, wait_for
from runlane.client.portal import Portals, portals
from runlane.protocol.ids import uuid7

from .auto_broker import AutoBroker, accept, auto_broker, finish


@task(key="add")
def add(a: int, b: int) -> int:
    return a + b


async def name_of_thread() -> str:
    return threading.current_thread().name


def test_one_thread_serves_all() -> None:
    assert run_sync(name_of_thread()) == "runlane"
    first = portals.get()
    assert repr(first) == "<Portal open>"
    assert run_sync(name_of_thread()) == "runlane"
    assert portals.get() is first
    assert [thread.name for thread in threading.enumerate()].count("runlane") == 1
    portals.close()
    assert repr(first) == "<Portal closed>"
    assert "runlane" not in [thread.name for thread in threading.enumerate()]
    assert run_sync(name_of_thread()) == "runlane"
    with pytest.raises(ClientClosed):
        first.run(name_of_thread())


def test_threads_that_come_first_together_share_it() -> None:
    own = Portals()
    barrier = threading.Barrier(8)
    found: list[Any] = []

    def work() -> None:
        barrier.wait()
        found.append(own.get())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own.close()
    assert len(set(map(id, found))) == 1


def test_after_the_end_nothing_begins() -> None:
    own = Portals()
    own.exit()
    with pytest.raises(ClientClosed, match="the interpreter is exiting"):
        own.get()


def test_without_a_thread_there_is_no_portal(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(ClientClosed, match="at interpreter shutdown"):
        add.delay(1, 2)


def test_its_own_thread_cannot_wait_for_itself() -> None:
    async def nested() -> None:
        run_sync(name_of_thread())

    async def deep() -> None:
        add.delay(1, 2)

    for coroutine in (nested(), deep()):
        with pytest.raises(RunlaneError, match="cannot wait for itself"):
            run_sync(coroutine)


def test_who_waits_when_it_ends_is_told() -> None:
    with auto_broker(accept) as broker, Client(broker.settings):
        future = add.delay(1, 2)
        errors: list[BaseException] = []

        def wait(call: Any) -> None:
            try:
                call()
            except BaseException as exc:
                errors.append(exc)

        calls = (future.result, lambda: run_sync(asyncio.sleep(60)))
        threads = [threading.Thread(target=wait, args=[call]) for call in calls]
        for thread in threads:
            thread.start()
        while not broker.watched:
            pass
        portals.close()
        for thread in threads:
            thread.join()
        assert [type(error) for error in errors] == [ClientClosed, ClientClosed]


def test_an_interrupted_wait_is_given_up() -> None:
    class Interrupted(Future[None]):
        def result(self, timeout: float | None = None) -> None:
            raise KeyboardInterrupt

    future = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        wait_for(future)
    assert future.cancelled()


def test_no_context_of_a_caller_is_kept() -> None:
    """A web server's request would otherwise live as long as the connection that it happened to open."""

    class Request:
        pass

    current: ContextVar[Request] = ContextVar("current")

    def handle() -> weakref.ref[Request]:
        request = Request()
        current.set(request)
        add.delay(1, 2).result()
        return weakref.ref(request)

    with (
        auto_broker() as broker,
        Client(broker.settings, submit_timeout=None),
    ):  # a timer would keep it for a while
        reference = copy_context().run(handle)
        run_sync(asyncio.sleep(0))
        gc.collect()
        assert reference() is None


def test_clients_nest() -> None:
    with auto_broker() as outer, auto_broker() as inner, Client(outer.settings):
        with Client(inner.settings):
            add.delay(1, 2)
        future = add.delay(1, 2)
        assert (len(outer.runs), len(inner.runs)) == (1, 1)
    with pytest.raises(ClientClosed):
        future.result()


# --- Processes ------------------------------------------------------------------------------------------------


def script(broker: AutoBroker, text: str) -> subprocess.CompletedProcess[str]:
    """Run a program that knows the broker and the task, with every warning an error."""
    program = f"""
import logging
from runlane import task
# What asyncio says of slow callbacks is about the machine.
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing "))
@task(key="add")
def add(a, b): return a + b
{text}
"""
    return subprocess.run(
        (sys.executable, "-X", "dev", "-W", "error", "-c", program),
        env={**os.environ, "RUNLANE_URL": broker.settings.url},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.process
def test_the_interpreter_ends_with_futures_pending() -> None:
    with auto_broker(accept) as broker:
        done = script(
            broker,
            """
import asyncio, threading, time
future = add.delay(1, 2)
future.state
others = add.map(range(50), range(50))
thread = threading.Thread(target=others[0].result, daemon=True)
threading.excepthook = lambda args: print(args.exc_type.__name__)
thread.start()
async def main():
    future = await add.adelay(1, 2)
    future.state
    asyncio.ensure_future(future.aresult())
    await asyncio.sleep(0.05)
asyncio.run(main())
time.sleep(0.05)
print("end")
""",
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[0] == "end"


@pytest.mark.process
def test_the_interpreter_ends_while_nobody_answers() -> None:
    with auto_broker() as broker:
        url = broker.settings.url
    gone = AutoBroker(accept)
    gone.settings = Settings(url=url)
    done = script(
        gone,
        """
import threading, time
threading.excepthook = lambda args: None
threading.Thread(target=add.delay, args=(1, 2), daemon=True).start()
time.sleep(0.3)
print("end")
""",
    )
    gone._loop.close()
    assert (done.returncode, done.stdout) == (0, "end\n")
    assert "Traceback" not in done.stderr


@pytest.mark.process
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_at_exit_one_can_still_submit(host: str) -> None:
    """Also where the name has to be looked up, for which asyncio wants a thread that it does not get any more."""
    with auto_broker() as broker:
        broker.settings = Settings(url=broker.settings.url.replace("127.0.0.1", host))
        done = script(
            broker,
            """
import atexit, sys
if sys.version_info >= (3, 12):  # no thread can be started any more: so it has to be there
    add.delay(0, 0)
atexit.register(lambda: print(add.delay(1, 2).result(10)))
""",
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", "")


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_begins_anew() -> None:
    with auto_broker(accept) as broker:
        done = script(
            broker,
            """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12 of every fork beside a thread
from runlane.client.portal import portals
before = add.delay(1, 2)
before.state
inherited = portals.get()
child = os.fork()
if child == 0:
    assert threading.active_count() == 1
    future = add.delay(3, 4)
    assert portals.get() is not inherited
    try:
        before.result(0.05)
    except TimeoutError:
        print("child waits", flush=True)
    assert before.state == "SCHEDULED"
    assert before._is_listening() and before._listener.done() is False
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
child = os.fork()
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
add.delay(5, 6)
assert portals.get() is inherited
print("parent goes on", flush=True)
""",
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["child waits", "parent goes on"]
        assert broker.connections == 2
        assert len(broker.runs) == 3


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_goes_on_with_the_client_that_was_entered() -> None:
    """And leaves it as its parent does; else it would submit to whatever the environment names."""
    with auto_broker(finish) as broker, auto_broker(finish) as other:
        done = script(
            other,
            f"""
import os, sys, warnings
from runlane import Client, Settings
warnings.simplefilter("ignore", DeprecationWarning)
with Client(Settings(url="{broker.settings.url}")):
    before = add.delay(1, 2)
    child = os.fork()
    print(add.delay(3, 4).result(10), before.result(10), flush=True)
if child == 0:
    add.delay(5, 6)
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
""",
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "5 5\n5 5\n", "")
        assert (len(broker.runs), len(other.runs)) == (3, 1)


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_holds_no_socket_of_its_parent() -> None:
    """Else the broker would not hear of the parent's end while the child lives."""
    with auto_broker(accept) as broker:
        done = script(
            broker,
            """
import os, socket, warnings
warnings.simplefilter("ignore", DeprecationWarning)
def sockets():  # of the network
    count = 0
    for number in range(3, 64):
        try:
            with socket.socket(fileno=os.dup(number)) as one:
                count += one.family in (socket.AF_INET, socket.AF_INET6)
        except OSError:
            pass
    return count
nothing = sockets()
add.delay(1, 2)
assert sockets() > nothing
child = os.fork()
if child == 0:
    os._exit(sockets() - nothing)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""",
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_a_future_of_nobody_can_be_dropped() -> None:
    with auto_broker(accept) as broker, Client(broker.settings):
        RunFuture.from_id(uuid7())
        assert broker.heard == []
