import os

from runlane import task


@task
def greet(name: str) -> str:
    return f"Hello, {name}! This is process {os.getpid()}."
