from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event

from runlane_broker.errors import ConfigurationError, StartupError
from runlane_broker.storage import schema
from runlane_broker.storage.location import sqlite_path
from runlane_broker.storage.lock import FileLock
from runlane_broker.storage.schema import head_revision, upgrade
from runlane_broker.storage.sqlite import APPLICATION_ID
from runlane_broker.storage.tables import metadata

from ..support import FakeClock, new_database
from .test_sqlite import open_database

#: Tables that there have been from the first, and whose checks have been reworded since.
COPIED = ("task_run", "task_run_state")

#: A migration after the newest one, as a later version might bring it. It fails half-way if it is told to.
NEXT = """
from alembic import context, op
import sqlalchemy as sa

revision = "9999"
down_revision = "{head}"

def upgrade():
    op.create_table("later", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("broker", sa.Column("later", sa.Integer(), nullable=True))
    {rest}
"""


def ask(path: Path, text: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(text).fetchall()


def write(path: Path, text: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(text)


def tables(path: Path) -> set[str]:
    return {name for (name,) in ask(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runlane.db"


@pytest.fixture
def later_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this version be a later one, with one migration more; returns its file. There is an older database."""
    new_database(tmp_path)
    migrations = tmp_path / "migrations"
    (migrations / "versions").mkdir(parents=True)
    head = head_revision()
    for file in schema._MIGRATIONS.rglob("*.py"):
        (migrations / file.relative_to(schema._MIGRATIONS)).write_bytes(file.read_bytes())
    added = migrations / "versions" / "9999_later.py"
    added.write_text(NEXT.format(head=head, rest="pass"), encoding="utf-8")
    monkeypatch.setattr(schema, "_MIGRATIONS", migrations)
    return added


def refusal(path: Path) -> str:
    """Return why a database is refused: one line."""
    with pytest.raises(StartupError) as refused:
        upgrade(path)
    message = str(refused.value)
    assert message
    assert "\n" not in message
    return message


# --- Files that are brought up to date ----------------------------------------------------------------------


def test_a_new_file_gets_the_whole_schema(path: Path) -> None:
    upgrade(path)
    assert tables(path) == {*metadata.tables, "alembic_version"}
    assert ask(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert ask(path, "SELECT version_num FROM alembic_version") == [(head_revision(),)]
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]
    assert [file.name for file in path.parent.iterdir()] == [path.name], "a new file needs no backup"


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    path.touch()
    upgrade(path)
    assert "task_run" in tables(path)


def test_a_file_that_is_up_to_date_is_left_alone(path: Path) -> None:
    upgrade(path)
    before = path.read_bytes()
    upgrade(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["a b%20c.db", "ü#1.db", "x&y='z'.db", "per%cent.db"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "100% f ü"
    folder.mkdir()
    upgrade(folder / name)
    assert [file.name for file in folder.iterdir()] == [name]
    for db in open_database(folder / name):
        db.queued()
        assert len(db.refilled()) == 1


def test_an_older_file_is_copied_and_then_migrated(path: Path, later_version: Path) -> None:
    for db in open_database(path):
        run_id = db.queued()
    head = ask(path, "SELECT version_num FROM alembic_version")
    upgrade(path)
    assert ask(path, "SELECT version_num FROM alembic_version") == [("9999",)]
    assert "later" in tables(path)
    assert ask(path, "SELECT id FROM task_run") == [(run_id,)]
    backup = path.with_name(f"runlane.db.backup-{head[0][0]}")
    assert ask(backup, "SELECT version_num FROM alembic_version") == head
    assert ask(backup, "SELECT id FROM task_run") == [(run_id,)]
    assert "later" not in tables(backup)


def test_a_file_of_the_first_schema_is_brought_up_to_date_with_all_that_is_in_it(path: Path) -> None:
    """As a broker of that time has left it: `databases/0001.sql`."""
    text = Path(__file__).with_name("databases").joinpath("0001.sql").read_text(encoding="utf-8")
    write(path, f"PRAGMA application_id = {APPLICATION_ID}; {text}")
    columns = "id, task_key, state_name, attempt, due, session_id, idempotency_key"
    before = ask(path, f"SELECT {columns} FROM task_run")
    payloads = ask(path, "SELECT * FROM task_run_payload")
    states = ask(path, "SELECT id, type, name, timestamp FROM task_run_state")
    upgrade(path)
    assert len(before) == 6
    assert ask(path, f"SELECT {columns} FROM task_run") == before
    assert ask(path, "SELECT * FROM task_run_payload") == payloads
    assert ask(path, "SELECT id, type, name, timestamp FROM task_run_state") == states
    assert ask(path.with_name("runlane.db.backup-0001"), f"SELECT {columns} FROM task_run") == before
    first, second = ask(path, "SELECT id, dynamic_key FROM task_run WHERE task_key = 'nobody' ORDER BY id")
    assert (first[1], second[1]) == ("mine", second[0])
    for db in open_database(path, clock=FakeClock(states[-1][-1])):
        db.audit()
        assert db.refilled("nobody") == [first[0], second[0]]


def test_a_backup_has_what_is_still_in_the_log_of_an_older_file(path: Path, later_version: Path) -> None:
    for db in open_database(path):
        run_id = db.queued()
        copy = path.parent / "after a kill"
        copy.mkdir()
        for file in path.parent.glob("runlane.db*"):
            (copy / file.name).write_bytes(file.read_bytes())
    upgrade(copy / "runlane.db")
    (backup,) = copy.glob("*.backup-*")
    assert ask(backup, "SELECT id FROM task_run") == [(run_id,)]


def test_a_migration_that_fails_leaves_the_file_as_it_was_and_says_so(path: Path, later_version: Path) -> None:
    head = ask(path, "SELECT version_num FROM alembic_version")
    text = NEXT.format(head=head[0][0], rest='op.execute("INSERT INTO nowhere VALUES (1)")')
    later_version.write_text(text, encoding="utf-8")
    before = ask(path, "SELECT sql FROM sqlite_master ORDER BY name")
    assert "nowhere" in refusal(path)
    assert ask(path, "SELECT sql FROM sqlite_master ORDER BY name") == before
    assert ask(path, "SELECT version_num FROM alembic_version") == head
    later_version.write_text(NEXT.format(head=head[0][0], rest="pass"), encoding="utf-8")
    upgrade(path)
    assert "later" in tables(path)


def test_a_first_start_that_was_interrupted_is_begun_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(connection: Any) -> None:
        migrate(connection)
        raise KeyboardInterrupt

    migrate = schema._migrate
    monkeypatch.setattr(schema, "_migrate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        upgrade(path)
    assert tables(path) == set()
    monkeypatch.setattr(schema, "_migrate", migrate)
    upgrade(path)
    assert "task_run" in tables(path)


def test_the_migrations_build_what_the_metadata_says(path: Path) -> None:
    upgrade(path)
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_the_migrations_build_the_very_tables_of_the_metadata(tmp_path: Path) -> None:
    """With their checks and their options, which a comparison of metadata leaves out."""
    migrated, created = tmp_path / "migrated.db", tmp_path / "created.db"
    upgrade(migrated)
    engine = create_engine(f"sqlite:///{created}")
    metadata.create_all(engine)
    engine.dispose()

    def definitions(path: Path) -> dict[str, list[str]]:
        rows = ask(path, "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND type <> 'trigger'")
        return {name: parts(text.replace('"', "")) for name, text in rows}

    def parts(text: str) -> list[str]:
        """Columns and constraints, in no order: a column that was added stands after the constraints."""
        split = re.split(r",(?![^()]*\))\s*(?=\w)|^[^(]*\(|\)[^)]*$", re.sub(r"\s+", " ", text))
        return sorted(part.strip() for part in split if part.strip()) + re.findall(r"\)([^)]*)$", text)

    expected = definitions(created)
    found = definitions(migrated)
    found.pop("alembic_version")
    assert found == expected


@pytest.mark.parametrize("kind", ["task_run", "flow_run"])
def test_no_check_of_a_state_makes_a_table_for_every_row(path: Path, kind: str) -> None:
    upgrade(path)
    columns = f"id, {kind}_id, type, name, timestamp, attempt"
    row = f"INSERT INTO {kind}_state ({columns}) VALUES ('a', 'b', {{}}, 'x', 1, 1)"
    opcodes = {opcode for _, opcode, *_ in ask(path, "EXPLAIN " + row.format("'RUNNING'"))}
    assert "Halt" in opcodes
    assert "OpenEphemeral" not in opcodes
    with pytest.raises(sqlite3.IntegrityError, match=f"ck_{kind}_state_type"):
        ask(path, row.format("'NONSENSE'"))


@pytest.fixture
def defended() -> Iterator[None]:
    """Let SQLite ignore who wants to edit its schema, as that of macOS does."""

    def defend(connection: sqlite3.Connection, _record: object) -> None:
        connection.set_authorizer(answer)

    def answer(action: int, what: str | None, value: str | None, *_: object) -> int:
        edits = action == sqlite3.SQLITE_PRAGMA and what == "writable_schema" and value is not None
        return sqlite3.SQLITE_IGNORE if edits else sqlite3.SQLITE_OK

    event.listen(Engine, "connect", defend)
    yield
    event.remove(Engine, "connect", defend)


@pytest.mark.usefixtures("defended")
@pytest.mark.parametrize("first", [True, False])
def test_a_sqlite_that_lets_nobody_edit_its_schema_copies_tables(tmp_path: Path, first: bool) -> None:
    path, plain = tmp_path / "runlane.db", new_database(tmp_path, "plain.db")
    if not first:
        text = Path(__file__).with_name("databases").joinpath("0001.sql").read_text(encoding="utf-8")
        write(path, f"PRAGMA application_id = {APPLICATION_ID}; {text}")
    rows = [] if first else [ask(path, f"SELECT id FROM {table} ORDER BY id") for table in COPIED]
    upgrade(path)
    schema = "SELECT type, name, replace(sql, '\"', '') FROM sqlite_master ORDER BY name"
    assert ask(path, schema) == ask(plain, schema)
    assert first or [ask(path, f"SELECT id FROM {table} ORDER BY id") for table in COPIED] == rows
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]
    assert ask(path, "PRAGMA foreign_key_check") == []


# --- Files that are refused ---------------------------------------------------------------------------------


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    upgrade(path)
    write(path, "UPDATE alembic_version SET version_num = '9999'")
    assert refusal(path) == f"the database {path} was written by a newer version of Runlane (9999)"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "text", ["CREATE TABLE theirs (x)", "PRAGMA application_id = 42", "CREATE TABLE task_run (id)"]
)
def test_somebody_elses_database_is_refused_and_left_alone(path: Path, text: str) -> None:
    write(path, text)
    before = path.read_bytes()
    assert refusal(path) == f"{path} is not a Runlane database"
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database " * 100, b"SQLite format 3\0" + b"\xff" * 4096, b"xy"])
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert str(path) in refusal(path)
    assert path.read_bytes() == content


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = new_database(tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    assert str(path) in refusal(path)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"the database {tmp_path} is a directory"


@pytest.mark.parametrize("below", ["missing/runlane.db", "file/runlane.db"])
def test_a_folder_that_is_none_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / below
    assert refusal(path) == f"the folder of the database {path} does not exist: create it"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    path = new_database(tmp_path)
    path.chmod(0o400)
    assert str(path) in refusal(path)


def test_a_file_that_somebody_else_writes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = new_database(tmp_path)
    connect = sqlite3.connect

    def impatient(database: Path, **rest: Any) -> sqlite3.Connection:
        return connect(database, **rest | {"timeout": 0})

    with closing(connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(sqlite3, "connect", impatient)
        assert "locked" in refusal(path)
        other.execute("ROLLBACK")
    upgrade(path)


# --- The lock -----------------------------------------------------------------------------------------------


def test_a_second_broker_on_one_file_is_refused(path: Path) -> None:
    first = FileLock(path)
    with pytest.raises(StartupError) as refused:
        FileLock(path)
    assert str(refused.value) == f"another broker is using the database {path}"
    first.release()
    FileLock(path).release()


def test_brokers_on_different_files_do_not_meet(tmp_path: Path) -> None:
    one, two = FileLock(tmp_path / "one.db"), FileLock(tmp_path / "two.db")
    one.release()
    two.release()


def test_the_lock_is_beside_the_database_and_names_its_holder(path: Path) -> None:
    lock = FileLock(path)
    assert [file.name for file in path.parent.iterdir()] == ["runlane.db.lock"]
    assert (path.parent / "runlane.db.lock").read_text(encoding="ascii") == f"{os.getpid()}\n"
    lock.release()
    FileLock(path).release()


def test_a_refused_lock_leaves_the_name_of_its_holder(path: Path) -> None:
    lock = FileLock(path)
    with pytest.raises(StartupError):
        FileLock(path)
    assert (path.parent / "runlane.db.lock").read_text(encoding="ascii") == f"{os.getpid()}\n"
    lock.release()


@pytest.mark.parametrize(("folder", "why"), [("missing", "there is no folder {}"), ("file", "Not a directory")])
def test_a_lock_that_cannot_be_made_is_one_clear_line(tmp_path: Path, folder: str, why: str) -> None:
    (tmp_path / "file").touch()
    database = tmp_path / folder / "runlane.db"
    with pytest.raises(StartupError) as refused:
        FileLock(database)
    reason = why.format(database.parent)
    assert str(refused.value) == f"cannot write beside the database {database}: {reason}"


# --- Locations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////var/lib/runlane.db", "/var/lib/runlane.db"),
        ("sqlite+aiosqlite:////var/lib/runlane.db", "/var/lib/runlane.db"),
        ("sqlite:////a b/ü.db", "/a b/ü.db"),
        ("sqlite:///runlane.db", "{cwd}/runlane.db"),
        ("sqlite:///./data/runlane.db", "{cwd}/data/runlane.db"),
        ("sqlite:///~/runlane.db", "{home}/runlane.db"),
    ],
)
def test_a_url_names_a_file(url: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("USERPROFILE", "/home/somebody")
    assert sqlite_path(url) == Path(path.format(cwd=tmp_path, home="/home/somebody"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "runlane.db",
        "/var/lib/runlane.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://host/runlane.db",
        "sqlite:///runlane.db?mode=ro",
        "postgresql://localhost/runlane",
        "mysql:///x",
    ],
)
def test_any_other_url_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^db: .*expected sqlite:///PATH$") as refused:
        sqlite_path(url)
    assert "\n" not in str(refused.value)


def test_names_of_migrations_begin_with_their_revisions() -> None:
    """So that a start need not load them to know which is the newest."""
    paths = sorted((schema._MIGRATIONS / "versions").glob("[0-9]*.py"))
    before = "None"
    for path in paths:
        text = path.read_text(encoding="utf-8")
        revision = path.stem.partition("_")[0]
        assert f'\nrevision = "{revision}"\n' in text
        assert f"\ndown_revision = {before}\n" in text
        before = f'"{revision}"'
    assert head_revision() == before.strip('"')


def test_a_start_that_has_nothing_to_migrate_does_without_alembic(tmp_path: Path) -> None:
    path = new_database(tmp_path)
    program = (
        "import sys, pathlib; import runlane_broker.program; from runlane_broker.storage.schema import upgrade;"
        "upgrade(pathlib.Path(sys.argv[1])); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == 0
