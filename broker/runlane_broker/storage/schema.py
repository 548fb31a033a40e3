"""Bringing a SQLite file to this version's schema: check whose it is, back it up, run the migrations."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from ..errors import StartupError
from .sqlite import APPLICATION_ID

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(path: Path) -> None:
    """Create the database, or bring it up to date; an older one is copied to `<name>.backup-<revision>` first.

    Raises `StartupError` in one line if the file is not ours, is newer than this version, is damaged, or cannot
    be written.
    """
    try:
        _upgrade(path)
    except sqlite3.Error as exc:
        raise StartupError(f"cannot use the database {path}: {exc}") from exc
    except DBAPIError as exc:
        raise StartupError(f"cannot use the database {path}: {exc.orig}") from exc
    except OSError as exc:
        raise StartupError(f"cannot use the database {path}: {exc.strerror}") from exc


def head_revision() -> str:
    """Return the revision that this version's schema has."""
    return max(_revisions())


def _upgrade(path: Path) -> None:
    current = _check(path)
    head = head_revision()
    if current == head:
        return
    if current is not None:
        _back_up(path, path.with_name(f"{path.name}.backup-{current}"))
    engine = create_engine(URL.create("sqlite", database=str(path)))
    _make_atomic(engine)
    try:
        with engine.begin() as connection:
            _migrate(connection)
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    finally:
        engine.dispose()


def _check(path: Path) -> str | None:
    """Return the revision of the file, None for a new one. Raises `StartupError` if it is not for us."""
    if path.is_dir():
        raise StartupError(f"the database {path} is a directory")
    if not path.parent.is_dir():
        raise StartupError(f"the folder of the database {path} does not exist: create it")
    with closing(sqlite3.connect(path, timeout=2.0)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # shows whether it can be written
        connection.execute("ROLLBACK")
        objects = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if objects == 0 and application == 0:
            return None
        if application != APPLICATION_ID:
            raise StartupError(f"{path} is not a Runlane database")
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if row is None:
        raise StartupError(f"the database {path} does not say which version of Runlane has written it")
    (current,) = row
    if current not in _revisions():
        raise StartupError(f"the database {path} was written by a newer version of Runlane ({current})")
    return current


def _back_up(path: Path, copy: Path) -> None:
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def _make_atomic(engine: Engine) -> None:
    """Let transactions hold CREATE TABLE too: the driver would begin them at the first INSERT only."""

    def by_hand(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", by_hand)
    event.listen(engine, "begin", begin)


def _revisions() -> set[str]:
    """Return every revision there is: the files' names begin with them, and rise."""
    return {path.stem.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")}


def _migrate(connection: Connection) -> None:
    # Most starts find the schema as it is to be, and Alembic is a tenth of all that a start imports.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
