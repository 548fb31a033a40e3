import time

from tasks import render

future = render.delay(20)
said = None
while not future.done():
    progress = future.progress
    if progress != said and progress is not None:
        print(f"{progress.current:.0f} of {progress.total:.0f}: {progress.message}", flush=True)
    said = progress
    time.sleep(0.05)
print("done:", future.result())
