"""Python values to the JSON payloads of the wire and back.

`values` (any value), `arguments` and `results` (those of a function, as annotated), `serializer` (a form other
than JSON, chosen by the user), `hints` (annotations, read leniently). Nothing here knows of tasks or sockets.
"""

from .arguments import Arguments
from .results import ANY_RESULT, Results
from .serializer import CONTENT_TYPE, JsonSerializer, Serializer
from .values import ValueType, dump, load

__all__ = [
    "ANY_RESULT",
    "CONTENT_TYPE",
    "Arguments",
    "JsonSerializer",
    "Results",
    "Serializer",
    "ValueType",
    "dump",
    "load",
]
