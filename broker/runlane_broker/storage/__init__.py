"""The only place with SQL: tables, queries, operations, the writer and the store.

Nothing of SQLAlchemy or of a driver leaves this package: typed operations go in, frozen dataclasses come out.
"""
