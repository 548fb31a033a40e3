"""Pure rules: which state may follow which, and what becomes of a proposed state. No I/O, no clock reads.

- `states`, `leases`: the hot path. What the broker does by itself, as a table, and what becomes of a lease.
- `decide`: what becomes of a state that somebody asks for over HTTP. It is given a run (`runs`), what has to be
  known besides (`facts`) and a policy (`policies`), which is rules in order (`rules`; `task_rules`, `flow_rules`,
  `common_rules`). The answer (`decisions`) says all that is to be written, the books (`bookkeeping`) included.
- `diagram`: the page in docs/ that is made of these tables.
"""
