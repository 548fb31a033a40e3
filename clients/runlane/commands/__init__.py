"""What the `runlane` command does, a module each: `main(argv)` returns the exit code.

    console     what all of them share: exit codes, one-line errors, the parser
    status      is the broker there, and ready?
    submit      submit a run of a task by its key
    config      what is set, and by whom

`cli` imports a command when it is called, and no earlier.
"""
