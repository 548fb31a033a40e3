"""The code in the docs: all of it compiles, and what is marked runs and prints what it says.

A block's mark is the comment in front of it: `<!-- tasks -->` is a part of `tasks.py`; `<!-- file -->` is a
program that runs meanwhile; `<!-- run -->` is executed, in the order of the page; `<!-- theirs -->` is another
library's. A comment behind a `print` is what it prints.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from .harness import PYTHON, Site

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = DOCS / "guide.md"
PAGES = [GUIDE, DOCS / "migrating.md", DOCS / "testing.md"]


@dataclass(frozen=True)
class Block:
    """A block of Python on a page."""

    page: Path
    line: int
    mark: str
    code: str

    @property
    def prints(self) -> list[str]:
        """What it prints, as the comments say."""
        lines = (re.search(r"\bprint\(.*\)\s*# (.*)$", line) for line in self.code.splitlines())
        return [line[1] for line in lines if line]


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found = re.finditer(r"(?:^<!-- (\w+) -->\n)?^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(page, text.count("\n", 0, m.start(2)) + 1, m[1] or "", m[2]) for m in found]


BLOCKS = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page.name}:{block.line}")
def test_blocks_compile_and_import_what_there_is(block: Block) -> None:
    assert block.mark in ("", "tasks", "file", "run", "theirs")
    tree = compile(block.code, block.page.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.partition(".")[0] == "runlane":
                for name in names:
                    assert hasattr(importlib.import_module(module), name.name), f"{module}.{name.name}"
            case _:
                pass
    if block.mark == "run":
        assert block.prints


def test_every_print_says_what_it_prints() -> None:
    for block in BLOCKS:
        if block.mark == "run":
            assert len(block.prints) == len(re.findall(r"\bprint\(", block.code)), f"line {block.line}"


@pytest.mark.process
def test_the_guide_does_what_it_says(tmp_path: Path) -> None:
    page = blocks(GUIDE)
    parts = [block.code for block in page if block.mark == "tasks"]
    assert all(part.startswith("# tasks.py\n") for part in parts)
    (tmp_path / "tasks.py").write_text("\n\n".join(parts), "utf-8")
    programs = {
        block.code.split("\n", 1)[0].removeprefix("# "): block.code for block in page if block.mark == "file"
    }
    for name, code in programs.items():
        (tmp_path / name).write_text(code, "utf-8")
    runs = [block for block in page if block.mark == "run"]
    (tmp_path / "blocks.json").write_text(json.dumps([vars(block) | {"page": ""} for block in runs]), "utf-8")
    with Site(tmp_path, tmp_path) as site:
        site.broker()
        site.worker()
        for name in programs:
            site.run(PYTHON, name).says("subscribed as session")
        with (tmp_path / "blocks.json").open() as program:
            said = site.run(PYTHON, str(Path(__file__).with_name("notebook.py")), stdin=program).ends()
    printed = [json.loads(line).splitlines() for line in said.splitlines() if line.startswith('"')]
    for block, lines in zip(runs, printed, strict=True):
        assert lines == block.prints, f"line {block.line}"
