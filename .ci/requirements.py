"""Print the requirements of a dependency group of pyproject.toml, a line each: `requirements.py test`."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def requirements(groups: dict[str, list[str | dict[str, str]]], name: str) -> Iterator[str]:
    """Yield a group's requirements, with those of the groups that it includes (PEP 735)."""
    for item in groups[name]:
        if isinstance(item, str):
            yield item
        else:
            yield from requirements(groups, item["include-group"])


if __name__ == "__main__":
    groups = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["dependency-groups"]
    sys.stdout.writelines(f"{line}\n" for line in requirements(groups, sys.argv[1]))
