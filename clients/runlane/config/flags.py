"""Settings as options of a command: added to its parser, and taken out of what that has parsed, as given."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .declared import FILE, SETTINGS, Setting, settings_of
from .kinds import Choice
from .sections import Section


def add_flags(parser: ArgumentParser, *sections: type[Section]) -> None:
    """Add the options that are settings, a group for each section."""
    for section in sections:
        group = parser.add_argument_group(f"settings (also RUNLANE_…, and [{section.SECTION}] in runlane.toml)")
        for setting in settings_of(section):
            if setting.flag:
                group.add_argument(setting.flag, dest=_key(setting), metavar=_noun(setting), help=_help(setting))


def flags_of(options: Namespace) -> dict[str, object]:
    """Return what was given of the settings, for `load_config`, which checks it."""
    return {key: value for key, value in vars(options).items() if key.removesuffix(FILE) in SETTINGS}


def _key(setting: Setting) -> str:
    return setting.key + FILE if setting.secret else setting.key


def _noun(setting: Setting) -> str:
    if isinstance(setting.kind, Choice):
        return setting.name.rpartition("_")[2].upper()  # --log-level LEVEL
    return "FILE" if setting.secret else setting.kind.noun


def _help(setting: Setting) -> str:
    kind = setting.kind
    words = f": {', '.join(kind.words)}" if isinstance(kind, Choice) else ""
    if setting.secret:
        return f"file with {setting.help} ({setting.variable}, {setting.variable}{FILE.upper()})"
    return f"{setting.help}{words} ({setting.variable}, default: {setting.kind.plain(setting.default)})"
