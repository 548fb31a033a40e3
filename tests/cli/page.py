"""The settings as docs/operations.md shows them; `python -m tests.cli.page` prints the tables, to paste there."""

from __future__ import annotations

from pathlib import Path

from runlane.config import Section, Setting, settings_of
from runlane.config.sections import SECTIONS

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def table(section: type[Section]) -> str:
    """A section's table."""
    lines = [f"| `[{section.SECTION}]` | option | environment | default | |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *map(_row, settings_of(section))]) + "\n"


def _row(setting: Setting) -> str:
    name, variable, default = (
        f"`{setting.name}`",
        f"`{setting.variable}`",
        f"`{setting.kind.plain(setting.default)}`",
    )
    if setting.secret:
        name, variable, default = f"`{setting.name}_file`", f"{variable}, `{setting.variable}_FILE`", "none"
    return f"| {name} | {f'`{setting.flag}`' if setting.flag else ''} | {variable} | {default} | {setting.help} |"


if __name__ == "__main__":
    print("\n".join(map(table, SECTIONS)))
