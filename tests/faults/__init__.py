"""Faults on real processes: what is killed, stopped or cut off loses nothing and completes nothing twice.

With FAULTS_LONG=1 the sizes are those of the acceptance: ten restarts in a row, a backlog of 100,000 runs.
"""
