import os
import time

from runlane import task


@task
def resize(picture: int) -> int:
    time.sleep(0.05)  # the work
    return os.getpid()
