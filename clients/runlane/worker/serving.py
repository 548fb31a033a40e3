"""A worker as a program: `serve` for users' scripts, and what the command shares with it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from typing import Any, Final, NoReturn

from ..client import may_block
from ..errors import RunlaneError
from ..settings import Settings
from ..tasks import Task
from .discovery import Lifespan
from .signals import stop_on_signals
from .worker import DRAIN_SECONDS, Worker

log: Final = logging.getLogger("runlane.worker")

#: Seconds that the tasks' event loop has to answer, once the worker has said goodbye; and when it is in a hurry.
ANSWER_SECONDS: Final = 2.0
HURRIED_ANSWER_SECONDS: Final = 0.5
DONE: Final = 0
INTERRUPTED: Final = 130

#: The program of the processes of `pool="process"`, which import users' modules, too.
_CHILD: Final = "runlane.worker.pools.child"


def serve(
    *tasks: Task[..., Any],
    limit: int = 10,
    settings: Settings | None = None,
    client_id: str | None = None,
    drain_timeout: float = DRAIN_SECONDS,
    fence: bool = False,
    lifespan: Lifespan | None = None,
) -> None:
    """Execute runs of these tasks until told to stop: the main program of a worker.

    SIGTERM or Ctrl-C: take nothing more, finish what runs within `drain_timeout` seconds, give back the rest,
    and return; once more: give everything back and exit with 130. What else there is to say says `Worker`, whose
    `run` is for programs with an event loop of their own: where one runs, `WouldBlock` is raised. Logging is set
    up, if nobody has done so.
    """
    if _is_child():
        raise RunlaneError(
            'serve() was called while a process for tasks of pool="process" imports this module: '
            'put it under `if __name__ == "__main__":`'
        )
    may_block("serve()", "await Worker(…).run()")
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    worker = Worker(
        tasks,
        limit=limit,
        settings=settings,
        client_id=client_id,
        drain_seconds=drain_timeout,
        fence=fence,
        lifespan=lifespan,
    )
    log.info("serving %s; limit %d, broker %s", ", ".join(worker.tasks), worker.limit, worker.settings.url)
    code = work(worker)
    if code != DONE:
        sys.exit(code)


def work(worker: Worker) -> int:
    """Run a worker to its end, in the main thread; return the exit code. Raises what `Worker.run` raises.

    The program ends here, and at once, where that is the only way: threads go on that nothing can stop, for which
    the interpreter would wait, or a task blocks the event loop and will not let it end.
    """
    with asyncio.Runner() as runner, stop_on_signals(worker):
        loop = runner.get_loop()
        worker.on_end = lambda: _leave_if_blocked(worker, loop)
        runner.run(worker.run())
        if worker.stuck:
            log.warning("leaving behind what does not stop: %d slots", worker.stuck)
            _leave(_code(worker))
    return _code(worker)


def _code(worker: Worker) -> int:
    return INTERRUPTED if worker.interrupted else DONE


def _leave_if_blocked(worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
    answered = threading.Event()
    loop.call_soon_threadsafe(answered.set)
    if not answered.wait(HURRIED_ANSWER_SECONDS if worker.interrupted else ANSWER_SECONDS):
        log.error("a task blocks the event loop; leaving without it")
        _leave(_code(worker))


def _leave(code: int) -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _is_child() -> bool:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == _CHILD
