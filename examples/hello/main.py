import os

from tasks import greet

print(f"This is process {os.getpid()}.")
print("called:   ", greet("Ada"))  # a plain function still

future = greet.delay("Ada")
print("submitted:", future.id)
print("result:   ", future.result(timeout=30))
