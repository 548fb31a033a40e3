"""Every setting of Runlane, declared once: a field of its section, with its default, kind and help.

A section is a table of runlane.toml and a dataclass that programs read their values from. A setting is called
`section.name` in a file, and in the environment RUNLANE_, the section's PREFIX, and the name. Variables may be
shared: RUNLANE_LOG_LEVEL is that of whichever program has it in its environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, cast

from .kinds import Choice, Database, Durations, Kind, OnOff, Seconds, Sizes, Text, Token, Url, Whole

#: The key of a declaration in a field's metadata.
DECLARED: Final = "runlane"

#: A timer that is longer is a mistake, and one that is infinite can be neither announced nor waited for.
DAY: Final = 86_400.0

_TIMER: Final = Seconds(longest=DAY)
_LEVELS: Final = Choice(("debug", "info", "warning", "error"))
_FORMATS: Final = Choice(("console", "json"))


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a field says of its setting, beside its name and default.

    `variable`: the part of the environment variable after RUNLANE_, where it is not PREFIX and name. `flag`:
    whether commands take it as an option. `secret`: never shown, and read from a file that `NAME_file` names.
    """

    kind: Kind
    help: str
    variable: str | None = None
    flag: bool = False
    secret: bool = False


def setting(
    default: Any, kind: Kind, help: str, *, variable: str | None = None, flag: bool = False, secret: bool = False
) -> Any:
    """Declare a field of a section as a setting."""
    metadata = {DECLARED: Declaration(kind, help, variable, flag, secret)}
    if isinstance(default, dict):
        return field(default_factory=cast("dict[str, Any]", default).copy, metadata=metadata)
    return field(default=default, repr=not secret, metadata=metadata)


class Section:
    """Base of all sections."""

    __slots__ = ()

    #: The table's name in a file.
    SECTION: ClassVar[str]
    #: Stands before the names in the environment.
    PREFIX: ClassVar[str] = ""


@dataclass(frozen=True)
class ClientSection(Section):
    """Where the broker is."""

    SECTION: ClassVar[str] = "client"

    url: str = setting("http://127.0.0.1:4200", Url(), "the broker's address", flag=True)
    token: str | None = setting(None, Text(), "the token that the broker asks for", flag=True, secret=True)


@dataclass(frozen=True)
class WorkerSection(Section):
    """How a worker works."""

    SECTION: ClassVar[str] = "worker"
    PREFIX: ClassVar[str] = "WORKER_"

    limit: int = setting(10, Whole(1, 1000), "runs at once", flag=True)
    drain_timeout: float = setting(
        25.0, Seconds(may_be_zero=True), "what running tasks get to finish when the worker is to stop", flag=True
    )
    log_level: str = setting("info", _LEVELS, "what is logged", variable="LOG_LEVEL", flag=True)
    log_format: str = setting(
        "console", _FORMATS, "for people, or one JSON object a line", variable="LOG_FORMAT", flag=True
    )


@dataclass(frozen=True)
class BrokerSection(Section):
    """What a broker does. A `token` of None: nobody needs one, which only a loopback address allows."""

    SECTION: ClassVar[str] = "broker"

    host: str = setting(
        "127.0.0.1", Text(), "address to listen on; anything but loopback needs a token", flag=True
    )
    port: int = setting(
        4200, Whole(0, 65535), "port to listen on; 0 takes a free one, which the start line names", flag=True
    )
    db: str = setting(
        "sqlite:///runlane.db",
        Database(),
        "sqlite:///relative or sqlite:////absolute path of the database",
        flag=True,
    )
    token: str | None = setting(None, Token(), "the token that clients must show", flag=True, secret=True)
    log_level: str = setting("info", _LEVELS, "what is logged", variable="LOG_LEVEL", flag=True)
    log_format: str = setting(
        "console", _FORMATS, "for people, or one JSON object a line", variable="LOG_FORMAT", flag=True
    )
    window_size: int = setting(256, Whole(1, 100_000), "runs of a task key that are kept in memory")
    window_sizes: Mapping[str, int] = setting({}, Sizes(Whole(1, 100_000)), "the same for single task keys")
    max_losses: int = setting(
        5, Whole(1, 1_000_000), "a run that has lost its worker so often is parked (CRASHED)"
    )


@dataclass(frozen=True)
class TimersSection(Section):
    """Durations. Workers are told the first three; the broker checks how they depend on each other."""

    SECTION: ClassVar[str] = "broker.timers"
    PREFIX: ClassVar[str] = "TIMERS_"

    beat: float = setting(2.0, _TIMER, "a worker that holds runs says so this often")
    idle_beat: float = setting(20.0, _TIMER, "and one that holds none")
    resume: float = setting(5.0, _TIMER, "how long a broken session may come back")
    silent: float = setting(6.0, _TIMER, "a worker that holds runs and says nothing for so long is closed")
    idle_silent: float = setting(45.0, _TIMER, "and one that holds none")
    start: float = setting(10.0, _TIMER, "a run that was pushed and not started by then goes to somebody else")
    heartbeat: float = setting(2.0, _TIMER, "how often the broker writes that it lives")
    sweep: float = setting(0.5, _TIMER, "how often deadlines are looked at")
    drain: float = setting(0.5, Seconds(may_be_zero=True, longest=DAY), "how long a stopping broker takes reports")


@dataclass(frozen=True)
class ServicesSection(Section):
    """What the broker does on its own, by the clock."""

    SECTION: ClassVar[str] = "broker.services"
    PREFIX: ClassVar[str] = "SERVICES_"

    due: bool = setting(True, OnOff(), "whether runs start when their time comes, or a claim on them ends")
    lost: bool = setting(True, OnOff(), "whether workers that are silent, deaf or gone lose their runs")
    late: bool = setting(True, OnOff(), "whether runs that have not started in time are marked Late")
    late_interval: float = setting(5.0, _TIMER, "how often such runs are looked for")
    late_after: float = setting(
        15.0, Seconds(may_be_zero=True), "a run is late that is due for so long; a work queue may have its own"
    )
    late_after_of: Mapping[str, float] = setting(
        {}, Durations(Seconds(may_be_zero=True)), "the same for single task keys"
    )
    expiry: bool = setting(True, OnOff(), "whether runs that wait are cancelled once they have expired")
    expiry_interval: float = setting(5.0, _TIMER, "how often such runs are looked for")
    keep_successes: float = setting(
        0.0, Seconds(may_be_zero=True), "how long runs are kept that have COMPLETED; 0: for ever"
    )
    keep_failures: float = setting(
        0.0, Seconds(may_be_zero=True), "and those that have FAILED, CRASHED or were CANCELLED; 0: for ever"
    )
    retention_interval: float = setting(60.0, _TIMER, "how often older runs are looked for and deleted")
    audit: bool = setting(True, OnOff(), "whether the broker looks for differences of memory and database")
    audit_interval: float = setting(60.0, _TIMER, "how often it looks")


#: All sections, in the order in which they are shown.
SECTIONS: Final[tuple[type[Section], ...]] = (
    ClientSection,
    WorkerSection,
    BrokerSection,
    TimersSection,
    ServicesSection,
)
