"""`runlane demo`: a broker, two workers and a job with a checkable end, each in a process of its own.

job         what is done, and whether it was done right
tasks       the workers' side of it
processes   broker and workers, as a user would start them
history     what has happened to one run, asked of the broker
report      the figures, as tables
display     live progress in a terminal, lines elsewhere
"""
