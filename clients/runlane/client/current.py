"""Which client is used where. `add.delay(2, 3)` names none, so that the process has to know.

(What else is kept per process: `portal`, the thread of sync code; `tasks.all_tasks`; and the addresses of
`transport.memory`.)

Per event loop, the client entered last with `async with` (or `with`, on the portal's loop), or else one made
from the environment when first needed. That one needs no closing: `asyncio.run` cancels its task at the end,
which closes the connection. Futures that came from another loop have a client with their own settings.

The map is keyed weakly by loop; what a closed loop leaves behind is dropped when the next one looks.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from ..settings import Settings
    from .client import Client


@dataclass
class _Here:
    """The clients of one loop."""

    entered: list[Client] = field(default_factory=list["Client"])
    others: dict[Settings, Client] = field(default_factory=dict["Settings", "Client"])


@dataclass(frozen=True, eq=False)
class Override:
    """While it is in force, all loops of the process use clients with these settings, and this time of day.

    Of the whole process, not of a context: what is tested may submit from threads and loops of its own, which
    inherit no context variables.
    """

    settings: Settings
    now: Callable[[], datetime]
    check_wait: Callable[[Iterable[str]], None]  # raises where sync code would wait for these runs for ever


@dataclass
class _State:
    loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Here] = field(
        default_factory=WeakKeyDictionary[asyncio.AbstractEventLoop, _Here]
    )
    lock: threading.Lock = field(default_factory=threading.Lock)  # loops of several threads share the map
    overrides: list[Override] = field(default_factory=list[Override])  # the last one is in force
    inherited: _State | None = None  # never destroyed: see `portal`


_state = _State()


def enter(client: Client) -> None:
    """Make this the running loop's client."""
    _here().entered.append(client)


def leave(client: Client) -> None:
    """Forget the client; the one entered before it is the loop's again."""
    entered = _here().entered
    if client in entered:
        entered.remove(client)


def override(by: Override) -> None:
    """Have all code of the process submit elsewhere, as tests do."""
    _state.overrides.append(by)


def end_override(by: Override) -> None:
    """Undo that; the clients that were made for it are forgotten."""
    _state.overrides.remove(by)
    with _state.lock:
        for here in list(_state.loops.values()):
            here.others.pop(by.settings, None)


def overridden() -> Settings | None:
    """Return the settings that all clients have for now."""
    return _state.overrides[-1].settings if _state.overrides else None


def now() -> datetime:
    """Return the time of day, from which delays count."""
    return _state.overrides[-1].now() if _state.overrides else datetime.now(UTC)


def check_wait(run_ids: Iterable[str]) -> None:
    """Raise `RunlaneError` where sync code of a test would wait for these runs for ever."""
    if _state.overrides:
        _state.overrides[-1].check_wait(run_ids)


def innermost() -> Client | None:
    """Return the running loop's client, if it has one."""
    if (settings := overridden()) is not None:
        return with_settings(settings)
    here = _state.loops.get(asyncio.get_running_loop())
    return here.entered[-1] if here and here.entered else None


def with_settings(settings: Settings) -> Client | None:
    """Return a client of the running loop with these settings, if it has one."""
    here = _here()
    found = next((client for client in reversed(here.entered) if client.settings == settings), None)
    return found or here.others.get(settings)


def keep(client: Client) -> None:
    """Keep a client of the running loop for whoever needs its settings."""
    _here().others[client.settings] = client


def all_here() -> list[Client]:
    """Return all clients of the running loop."""
    here = _here()
    return [*here.entered, *here.others.values()]


def forked(loop: asyncio.AbstractEventLoop | None) -> list[Client]:
    """In a forked child: forget all, no loop of the parent runs here; return what was entered in this one."""
    global _state
    here = _state.loops.get(loop) if loop is not None else None
    _state = _State(inherited=_state)
    return here.entered if here is not None else []


def _here() -> _Here:
    loop = asyncio.get_running_loop()
    here = _state.loops.get(loop)
    if here is None:
        with _state.lock:
            _drop_closed(_state.loops)
            here = _state.loops.setdefault(loop, _Here())
    return here


def _drop_closed(loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Here]) -> None:
    # A client refers to its loop, so that the weak key alone would keep both.
    for loop in [loop for loop in loops if loop.is_closed()]:
        del loops[loop]
