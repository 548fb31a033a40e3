"""Settings: declared once, read from flags, the environment and files, each with its source.

    sections    every setting of Runlane: name, type, default, help. The one place to add another
    kinds       what values look like, and how they are read
    declared    the declarations as data, for whoever lists, searches or prints them
    sources     where values come from: flags, `RUNLANE_…`, runlane.toml, `[tool.runlane]` of pyproject.toml
    loading     the sources put together: what holds, and who said so
    flags       declarations as options of a command line (for commands alone: imports argparse)

Nothing of Runlane is imported here, and nothing but the standard library: the broker and the client both
stand on it.
"""

from .declared import Setting, settings_of
from .kinds import ConfigError
from .loading import Config, Resolved, load_config
from .sections import BrokerSection, ClientSection, Section, ServicesSection, TimersSection, WorkerSection

__all__ = [
    "BrokerSection",
    "ClientSection",
    "Config",
    "ConfigError",
    "Resolved",
    "Section",
    "ServicesSection",
    "Setting",
    "TimersSection",
    "WorkerSection",
    "load_config",
    "settings_of",
]
