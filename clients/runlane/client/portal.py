"""Sync code's way in: a thread with an event loop of its own, one per process, started when first needed.

It ends with the interpreter. A forked child has none of its parent's threads: it forgets the inherited portal,
lets go of its sockets without a word to the broker, and starts its own when it needs one.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from ..errors import ClientClosed, RunlaneError, WouldBlock
from . import current

if TYPE_CHECKING:
    from .client import Client

T = TypeVar("T")
#: Waits for a future, or raises, or gives up.
Pause: TypeAlias = Callable[[Future[Any]], None]

#: Seconds that the interpreter's end waits for the connections to be closed.
CLOSE_SECONDS: Final = 3.0


class _Loop(asyncio.SelectorEventLoop):
    """The portal's loop, of one kind whatever the program's policy is: what a fork does to it must be known."""

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        """Look up a name; without a thread, where the interpreter exits and starts no more of them."""
        try:
            return await super().getaddrinfo(*args, **kwargs)
        except RuntimeError:
            return socket.getaddrinfo(*args, **kwargs)


class Portal:
    """A thread that runs coroutines for other threads."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.loop: Final = _Loop(self._selector)
        self._lock = threading.RLock()  # re-entrant: a signal handler may submit, too
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="runlane", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as exc:  # at the interpreter's end
            self.loop.close()
            raise ClientClosed(str(exc)) from exc

    def __repr__(self) -> str:
        return f"<Portal {'closed' if self._closed else 'open'}>"

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin to run a coroutine; cancelling the future cancels it. Raises `ClientClosed`."""
        with self._lock:
            if self._closed:
                coroutine.close()
                raise ClientClosed("the client is closed")
            return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, T], pause: Pause | None = None) -> T:
        """Run a coroutine and wait for what it returns. Raises what it and `pause` raise, and `ClientClosed`."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RunlaneError("called on the client's own thread, which cannot wait for itself")
        return wait_for(self.start(coroutine), pause)

    def close(self) -> None:
        """Close the connections and end the thread; whoever waits gets `ClientClosed`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CLOSE_SECONDS)

    def abandon(self) -> None:
        """In a forked child: let go of what belongs to the parent.

        The descriptors are pointed elsewhere and not closed: their owners are objects that will close them,
        some day, by number.
        """
        self._closed = True
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in _descriptors(self._selector):
            os.dup2(nowhere, number, inheritable=False)
        os.close(nowhere)

    def _work(self) -> None:
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(_finish())
        finally:
            self.loop.close()


class Portals:
    """This process's portal."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._portal: Portal | None = None
        self._inherited: list[object] = []  # never destroyed: destructors would tell of what the parent holds
        self._entered: list[Client] = []  # the clients that a forked child goes on with
        self._exiting = False

    def get(self) -> Portal:
        """Return the portal, started where there is none. Raises `ClientClosed` while the interpreter exits."""
        portal = self._portal
        if portal is not None:
            return portal
        with self._lock:
            if self._exiting:
                raise ClientClosed("the interpreter is exiting")
            if self._portal is None:
                self._portal = Portal()
                entered, self._entered = self._entered, []
                for client in entered:
                    self._portal.run(client.__aenter__())
            return self._portal

    def close(self) -> None:
        """End the portal, where there is one; the next call starts another."""
        with self._lock:
            portal, self._portal = self._portal, None
        if portal is not None:
            portal.close()

    def exit(self) -> None:
        """End the portal for good."""
        self._exiting = True
        self.close()

    def forked(self) -> None:
        """Begin anew in a child process."""
        self._lock = threading.RLock()  # its holder may have been another thread, of which there is no more
        portal, self._portal = self._portal, None
        self._entered += current.forked(portal.loop if portal is not None else None)
        self._inherited += [portal, *(client.forked() for client in self._entered)]
        if portal is not None:
            portal.abandon()


portals: Final = Portals()
atexit.register(portals.exit)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=portals.forked)


def run_sync(coroutine: Coroutine[Any, Any, T], pause: Pause | None = None) -> T:
    """Run a coroutine on the portal and wait for it; first by `pause`, which may raise."""
    try:
        portal = portals.get()
    except ClientClosed:
        coroutine.close()
        raise
    return portal.run(coroutine, pause)


def start_sync(make: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
    """Begin to run a coroutine on the portal."""
    return portals.get().start(make())


def wait_for(future: Future[T], pause: Pause | None = None) -> T:
    """Wait for what runs on the portal; who is interrupted, cancels it."""
    try:
        if pause is not None:
            pause(future)
        return future.result()
    except CancelledError:
        raise ClientClosed("the client was closed meanwhile") from None
    except BaseException:
        future.cancel()
        raise


def in_loop() -> bool:
    """Say whether the calling thread runs an event loop, which waiting would stop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def may_block(what: str, instead: str) -> None:
    """Raise `WouldBlock` where waiting would stop an event loop."""
    if in_loop():
        raise WouldBlock(f"{what} would stop the event loop that runs here: use `{instead}`")


async def _finish() -> None:
    """Close the clients of this loop, then cancel whatever still runs."""
    for client in current.all_here():
        await client.aclose()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _descriptors(selector: selectors.BaseSelector) -> Iterable[int]:
    """Return the numbers of all that a loop listens to, and of what it listens with (epoll, kqueue)."""
    yield from [key.fd for key in selector.get_map().values()]
    fileno = getattr(selector, "fileno", None)
    if fileno is not None:
        yield fileno()
