"""Use cases: what happens when a producer submits, a worker subscribes or reports, a session is lost.

The only package that sees both the store and the dispatcher. It keeps the order that everything rests on:
commit, then acknowledge, then enqueue; reserve, commit, confirm.
"""
