"""Wheels, built and installed: each once in a test session, by whichever process comes first."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from email.message import Message
from email.parser import Parser
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]
#: What a wheel is installed with, fetched by `make test`.
WHEELS = Path(sys.prefix) / "wheels"
#: Seconds after which a command will not end.
PATIENCE = 150.0


def call(*command: str, folder: Path = ROOT) -> None:
    """Run a command to its good end."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def once(target: Path, make: Callable[[Path], None]) -> Path:
    """Return a folder, made if nobody has done so; the tests' other processes wait meanwhile."""
    done = target.with_name(f"{target.name}.done")
    with FileLock(target.with_name(f"{target.name}.lock"), timeout=PATIENCE):
        if not done.exists():
            make(target)
            done.touch()
    return target


class Built:
    """The source distribution and the wheel of what is checked out, and a wheel made of the former."""

    def __init__(self, folder: Path) -> None:
        self.sdist = _only(folder, "*.tar.gz")
        self.wheel = _only(folder, "*.whl")
        self.wheel_of_sdist = _only(folder / "of_sdist", "*.whl")

    @staticmethod
    def build(folder: Path) -> None:
        """Build all three in a new folder."""
        build = (sys.executable, "-m", "hatchling", "build", "--directory")
        call(*build, str(folder))
        with tarfile.open(_only(folder, "*.tar.gz")) as archive:
            archive.extractall(folder / "unpacked", filter="data")
        call(*build, str(folder / "of_sdist"), "--target", "wheel", folder=_only(folder / "unpacked", "*"))


def _only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def files_of(wheel: Path) -> dict[str, bytes]:
    """Return what is in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata_of(wheel: Path) -> Message:
    """Return what a wheel says about itself."""
    (text,) = [data for name, data in files_of(wheel).items() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(text.decode())


class Environment:
    """A virtual environment with nothing in it but a wheel and what that asks for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        scripts = folder / ("Scripts" if sys.platform == "win32" else "bin")
        self.python = str(scripts / "python")
        self.runlane = str(scripts / "runlane")

    @staticmethod
    def build(folder: Path, requirement: str) -> None:
        """Make a new one, without asking an index."""
        assert WHEELS.is_dir(), f"no {WHEELS}: `make test` fetches what the wheel is installed with"
        call(sys.executable, "-m", "venv", "--without-pip", str(folder))
        pip: Sequence[str] = (sys.executable, "-m", "pip", "--isolated", "--python", Environment(folder).python)
        call(*pip, "install", "--no-index", "--find-links", str(WHEELS), "--no-compile", requirement)
