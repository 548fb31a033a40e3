"""The rules of the house that no other tool holds. (The layers of imports are checked by `make imports`.)"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import runlane

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("clients/runlane/**/*.md")])
PRODUCT = sorted([*ROOT.glob("clients/**/*.py"), *ROOT.glob("broker/**/*.py")])
BROKER = sorted(ROOT.glob("broker/**/*.py"))

_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made on the web."""
    headings = _HEADING.findall(re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- What a client brings in ------------------------------------------------------------------------------


def test_a_client_imports_nothing_of_the_broker() -> None:
    program = """if True:
        import sys, time
        start = time.perf_counter()
        from runlane import *
        seconds = time.perf_counter() - start
        print(f"import runlane: {seconds:.3f} s, {len(sys.modules)} modules", file=sys.stderr)
        print(*{name.partition(".")[0] for name in sys.modules})
    """
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    print(run.stderr)
    heavy = {"runlane_broker", "starlette", "sqlalchemy", "uvicorn", "aiosqlite", "alembic", "rich"}
    assert not heavy & set(run.stdout.split())


# --- Versions and pages -----------------------------------------------------------------------------------


def test_the_changelog_begins_with_this_version() -> None:
    """While it is being made, a version's heading says `Unreleased` where its date will stand."""
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    newest = re.fullmatch(r"\[(\S+)\] - (?:Unreleased|\d{4}-\d\d-\d\d)", headings[0])
    assert newest is not None
    assert newest[1] == runlane.__version__
    assert all(re.fullmatch(r"\[\S+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)} links to {link}"
        assert not anchor or anchor in anchors(target), f"{name(page)} links to {link}"


def tree(page: Path) -> Iterator[Path]:
    """Yield the paths in the trees that a page draws: blocks of names, indented by two spaces a level."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for block in (text for language, text in blocks if not language):
        parents: list[Path] = [ROOT]
        for line in block.splitlines():
            entries = re.match(r"( *)((?:[\w.]+/?)+(?: [\w]+\.\w+)*)(?:  |$)", line)
            if entries is None or not re.search(r"[/.]", entries[2]):
                continue
            depth = len(entries[1]) // 2
            for entry in entries[2].split():
                path = parents[min(depth, len(parents) - 1)] / entry
                yield path
                if entry.endswith("/"):
                    parents = [*parents[: depth + 1], path]


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_maps_show_what_is_there(page: str) -> None:
    paths = list(tree(ROOT / page))
    assert len(paths) > 10
    assert [name(path) for path in paths if not path.exists()] == []


# --- What must not stand in the product -------------------------------------------------------------------


UNSAFE = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}


def forbidden(source: str, *, may_sleep: bool) -> Iterator[tuple[int, str]]:
    """Yield where code unpickles, evaluates text, or stops the thread that it runs on."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                modules = [module, *(f"{module}.{alias.name}" for alias in names)]
            case ast.Call(func=ast.Name(id="eval" | "exec" as called)):
                yield node.lineno, f"{called}()"
                continue
            case ast.Call(func=ast.Attribute(value=ast.Name(id="time"), attr="sleep")) if not may_sleep:
                yield node.lineno, "time.sleep()"
                continue
            case _:
                continue
        for module in modules:
            if module.partition(".")[0] in UNSAFE or (module == "time.sleep" and not may_sleep):
                yield node.lineno, module


@pytest.mark.parametrize("file", PRODUCT, ids=name)
def test_nothing_is_unpickled_or_evaluated_and_the_broker_never_sleeps(file: Path) -> None:
    assert list(forbidden(file.read_text(encoding="utf-8"), may_sleep=file not in BROKER)) == []


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import pickle", "pickle"),
        ("from pickle import loads", "pickle"),
        ("def f():\n    import marshal as m", "marshal"),
        ("eval('1')", "eval()"),
        ("exec('1')", "exec()"),
        ("import time\ntime.sleep(1)", "time.sleep()"),
        ("from time import monotonic, sleep", "time.sleep"),
    ],
)
def test_that_would_be_found(source: str, what: str) -> None:
    assert what in [found for _, found in forbidden(source, may_sleep=False)]


def test_what_only_looks_like_it_is_not_found() -> None:
    source = "from asyncio import sleep\nimport time\nsleep(time.monotonic()); model.eval('x')"
    assert list(forbidden(source, may_sleep=False)) == []
