"""The container files, as far as can be seen without building: what is copied is there, what they run runs."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from .harness import PYTHON, Site

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def command(instruction: str) -> list[str]:
    """Return the arguments of an instruction in its JSON form."""
    found = re.search(rf"^{instruction}\b.*?(\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found is not None
    arguments: list[str] = json.loads(found[1])
    return arguments


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignored
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for source in line.split()
    ]
    assert len(copied) >= 4
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored


def test_nothing_runs_as_root() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert not re.search(r"^(?:RUN|COPY) ", last.partition("\nUSER ")[2], re.MULTILINE)


@pytest.mark.process
def test_what_it_runs_runs(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-a-certain-length")
    assert command("ENTRYPOINT") == ["runlane"]
    serve = [
        part.replace("/data", str(tmp_path)).replace("/run/secrets/token", str(token)) for part in command("CMD")
    ]
    healthy = command("HEALTHCHECK")
    assert healthy[0] == "runlane"
    with Site(tmp_path, tmp_path) as site:
        broker = site.run(PYTHON, "-m", "runlane", *serve, "--port", str(site.port))
        broker.says("listening on")
        assert "ready" in site.run(PYTHON, "-m", "runlane", *healthy[1:]).ends()
        broker.signal(signal.SIGTERM)
        broker.ends()
    assert (tmp_path / "runlane.db").exists()
