"""Changing what tables of SQLite are declared as, for which it has no statement."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa


def reword(connection: sa.Connection, words: Mapping[str, str], *tables: str) -> None:
    """Replace words, one after the other, in the declarations of tables. All rows fulfil the new ones already.

    So the text is edited where it stands: SQLite would otherwise copy whole tables. That of macOS lets nobody do
    this; there they are copied.
    """
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'table'"
    texts: dict[str, str] = {row[0]: row[1] for row in connection.exec_driver_sql(query)}
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    may_edit = connection.exec_driver_sql("PRAGMA writable_schema").scalar_one()
    for name in tables:
        before = after = texts[name]
        for old, new in words.items():
            after = after.replace(old, new)
        if after != before:
            (_edit if may_edit else _copy)(connection, name, after)
    if may_edit:
        connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
        connection.exec_driver_sql("PRAGMA writable_schema = OFF")


def _edit(connection: sa.Connection, table: str, text: str) -> None:
    connection.exec_driver_sql("UPDATE sqlite_master SET sql = ? WHERE type = 'table' AND name = ?", (text, table))


def _copy(connection: sa.Connection, table: str, text: str) -> None:
    assert not connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one(), "to drop a table deletes no rows"
    query = "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND type <> 'table' AND sql IS NOT NULL"
    rest = connection.exec_driver_sql(query, (table,)).scalars().all()
    _, _, columns = text.partition("(")
    connection.exec_driver_sql(f"CREATE TABLE {table}_copy ({columns}")
    connection.exec_driver_sql(f"INSERT INTO {table}_copy SELECT * FROM {table}")  # noqa: S608
    connection.exec_driver_sql(f"DROP TABLE {table}")
    connection.exec_driver_sql(f"ALTER TABLE {table}_copy RENAME TO {table}")
    for statement in rest:
        connection.exec_driver_sql(statement)
