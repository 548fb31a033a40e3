"""Python values to the JSON payloads of the wire and back.

`values` (any value), `arguments` (the parameters of a function, by name) and `hints` (annotations, read
leniently). Nothing here knows of tasks or sockets.
"""

from .arguments import Arguments
from .values import ValueType, dump, load

__all__ = ["Arguments", "ValueType", "dump", "load"]
