"""Chaos: brokers, workers and producers as real processes, hurt at random, and judged by what they leave behind.

    python -m tests.chaos --cycles 30 --timers 0.1      (what CI does)
    python -m tests.chaos --cycles 500 --runs 200000    (the long form)
    python -m tests.chaos --only takeover-kill          (one scenario)

schedule    what is done to whom and when, from a seed; pure
journal     JSON lines: who did and saw what
producer    a process that submits runs, and hears of their ends
fleet       the processes: started, replaced, ended
nemesis     carries out a schedule
hogs        disks that are full, databases that are locked
verdict     judges journals and tables, and works out the figures
figures     what a scenario found
"""
