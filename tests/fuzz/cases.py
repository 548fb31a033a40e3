"""Messages that are nearly right, made from the frames' own declarations: a new frame is covered by itself."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, get_args

import msgspec
from msgspec import inspect as mi

from runlane.protocol import codec
from runlane.protocol import messages as m
from runlane.protocol.codec import FrameDecoder
from runlane.protocol.errors import FrameRefused, ProtocolViolation
from runlane.protocol.ids import ID_PATTERN, uuid7
from runlane.protocol.limits import MAX_BAD_FRAMES

#: The frames that clients send, by socket, with what decodes them.
WORKER_FRAMES: Final = get_args(m.WorkerUp)
SUBMISSION_FRAMES: Final = get_args(m.SubmissionUp)
DECODERS: Final[dict[str, FrameDecoder[Any]]] = {"worker": codec.WORKER_UP, "producer": codec.SUBMISSION_UP}

#: Values that are right hardly anywhere, as JSON, or nearly.
BAD: Final = (
    "null", "true", "false", "0", "-1", "1.5", "1e400", "-1e400", "NaN", "Infinity", str(2**31), str(2**53 + 1),
    str(2**64), "9" * 5000, '""', '" "', '"\\u0000"', '"\\ud800"', '"🦆"', '"x\\n"', f'"{"x" * 300}"',
    f'"{"x" * 20_000}"', "[]", "[null]", "[[]]", "{}", '{"":{}}', "[" * 70 + "]" * 70, "[" * 2000 + "]" * 2000,
    "[" * 2000, '{"a":' * 300, '"2026-13-01T00:00:00Z"', '"0001-01-01T00:00:00+23:59"', f"[{'1,' * 3000}1]",
    "'x'", "undefined", "",
)  # fmt: skip
KEYS: Final = ("fuzz.a", "fuzz.b")
#: A queue of the pool that the rig makes.
QUEUE: Final = "fuzz/a"


def tag_of(kind: type[m.Frame]) -> str:
    """Return a frame's `type` on the wire."""
    return str(kind.__struct_config__.tag)


class Source:
    """Draws values: valid ones from declarations. `ids` yields ids that somebody may know."""

    def __init__(self, seed: int, ids: Callable[[random.Random], str] = lambda _: uuid7()) -> None:
        self.random = random.Random(seed)
        self._ids = ids
        self._known = True

    def frame(self, kind: type[m.Frame]) -> dict[str, str]:
        """Return a valid frame: its fields as JSON. Optional ones are there or not.

        Only workers name what somebody else may know: a producer could have others' runs cancelled, rightly.
        """
        self._known = kind in WORKER_FRAMES
        fields = {"type": json.dumps(tag_of(kind))}
        fields |= self._struct(kind)
        if kind is m.Submit:  # its items are raw there
            items = (self._text(self._struct(m.NewRun)) for _ in range(self.random.randint(0, 3)))
            fields["runs"] = f"[{','.join(items)}]"
        if kind is m.Subscribe and json.loads(fields.get("keys", "[]")) == []:  # it must ask for something
            fields["keys"] = json.dumps([KEYS[0]])
        return fields

    def _struct(self, kind: type[msgspec.Struct]) -> dict[str, str]:
        info = mi.type_info(kind)
        assert isinstance(info, mi.StructType)
        return {
            field.encode_name: self._value(field.type, field.encode_name)
            for field in info.fields
            if field.required or self.random.random() < 0.4
        }

    def _text(self, fields: dict[str, str]) -> str:
        return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in fields.items()) + "}"

    def _value(self, info: mi.Type, name: str) -> str:
        draw = self.random
        match info:
            case mi.Metadata(type=inner):
                return self._value(inner, name)
            case mi.UnionType(types=types):
                return self._value(draw.choice(types), name)
            case mi.NoneType():
                return "null"
            case mi.BoolType():
                return draw.choice(("true", "false"))
            case mi.IntType(ge=low, le=high):
                few = [n for n in (0, 1, 2, 3) if (low or 0) <= n <= (high or 3)]
                return str(draw.choice([*few, low or 0, few[-1] if high is None else high]))
            case mi.FloatType(gt=above):
                return str(draw.choice([0.5, 1, 30.25] if above is not None else [0, 0.5, 30.25]))
            case mi.StrType(pattern=pattern) if pattern == ID_PATTERN:
                return json.dumps(
                    self._ids(draw) if self._known else uuid7(draw.getrandbits(47), draw.getrandbits(74))
                )
            case mi.StrType(pattern=str(pattern)):
                return json.dumps(QUEUE if "[^/]" in pattern else draw.choice(KEYS))
            case mi.StrType(max_length=high):
                return json.dumps("x" * draw.choice([1, 2, min(high or 9, 200)]))
            case mi.DateTimeType():
                return draw.choice(['"2026-01-01T00:00:00Z"', '"2020-02-29T23:59:59.999999+05:30"'])
            case mi.VarTupleType(item_type=item, min_length=low):
                items = (self._value(item, name) for _ in range(draw.randint(low or 0, 3)))
                return f"[{','.join(items)}]"
            case mi.DictType(key_type=key, value_type=value):
                return f"{{{self._value(key, name)}:{self._value(value, name)}}}" if draw.random() < 0.5 else "{}"
            case mi.LiteralType(values=values):
                return json.dumps(draw.choice(sorted(values)))
            case mi.RawType():
                return draw.choice(['{"n":1}', '{"x":[1,2,{"y":"🦆"}]}', "{}"])
            case mi.StructType(cls=cls):
                return self._text(self._struct(cls))
            case _:
                raise NotImplementedError(f"nothing is known of {info}, for {name}")

    def message(self, kind: type[m.Frame]) -> bytes:
        """Return a message of this frame, most often spoilt in one way."""
        return self.spoilt(self.frame(kind))

    def spoilt(self, fields: dict[str, str]) -> bytes:
        """Return a message of these fields, most often spoilt in one way."""
        return self.random.choice(_SPOILERS)(self, fields)

    def some_id(self) -> str:
        """Return a run's id, of nobody's that matters: reports of Prefect's clients count, whoever sends them."""
        return uuid7(self.random.getrandbits(16), self.random.getrandbits(4))


def whole(source: Source, fields: dict[str, str]) -> bytes:
    """As it is."""
    return source._text(fields).encode()


def _missing(source: Source, fields: dict[str, str]) -> bytes:
    name = source.random.choice(list(fields))
    return whole(source, {other: value for other, value in fields.items() if other != name})


def _wrong(source: Source, fields: dict[str, str]) -> bytes:
    name = source.random.choice(list(fields))
    return whole(source, {**fields, name: source.random.choice(BAD)})


def _inner(source: Source, fields: dict[str, str]) -> bytes:
    """Some value, however deep, is replaced."""
    text = source._text(fields)
    places = [i for i, char in enumerate(text) if char in ":[,"]
    at = source.random.choice(places) + 1
    end = min((i for i in (text.find(c, at) for c in ",]}") if i >= 0), default=len(text))
    return (text[:at] + source.random.choice(BAD) + text[end:]).encode()


def _twice(source: Source, fields: dict[str, str]) -> bytes:
    name = source.random.choice(list(fields))
    more = f",{json.dumps(name)}:{source.random.choice([fields[name], *BAD])}}}"
    return (source._text(fields)[:-1] + more).encode()


def _more(source: Source, fields: dict[str, str]) -> bytes:
    return whole(source, {**fields, "more": source.random.choice(BAD), "": "1"})


def _cut(source: Source, fields: dict[str, str]) -> bytes:
    text = whole(source, fields)
    return text[: source.random.randrange(len(text))]


def _flipped(source: Source, fields: dict[str, str]) -> bytes:
    text = bytearray(whole(source, fields))
    for _ in range(source.random.randint(1, 3)):
        text[source.random.randrange(len(text))] = source.random.randrange(256)
    return bytes(text)


def _inserted(source: Source, fields: dict[str, str]) -> bytes:
    text = whole(source, fields)
    at = source.random.randrange(len(text) + 1)
    return text[:at] + source.random.randbytes(source.random.randint(1, 8)) + text[at:]


def _batch(source: Source, fields: dict[str, str]) -> bytes:
    junk = [source.random.choice(BAD) for _ in range(source.random.randint(0, 2))]
    frames = [source._text(fields)] * source.random.randint(1, 20) + junk
    source.random.shuffle(frames)
    return f"[{','.join(frames)}]".encode()


_SPOILERS: Final[tuple[Callable[[Source, dict[str, str]], bytes], ...]] = (
    whole, whole, _missing, _missing, _wrong, _wrong, _wrong, _inner, _inner,
    _twice, _more, _cut, _flipped, _inserted, _batch,
)  # fmt: skip


# --- Conversations -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Phase:
    """A place of the conversation, and what leads there."""

    name: str
    socket: str
    opening: tuple[bytes, ...] = ()


_AUTH: Final = b'{"type":"auth"}'
_SUBSCRIBE: Final = b'{"type":"subscribe","client_id":"fuzz","keys":["fuzz.a","fuzz.b"],"limit":3}'
_QUIT: Final = b'{"type":"quit"}'
PHASES: Final = (
    Phase("worker connected", "worker"),
    Phase("worker authenticated", "worker", (_AUTH,)),
    Phase("worker subscribing or ready", "worker", (_AUTH, _SUBSCRIBE)),
    Phase("worker closing", "worker", (_AUTH, _SUBSCRIBE, _QUIT)),
    Phase("producer connected", "producer"),
    Phase("producer ready", "producer", (_AUTH,)),
    Phase("producer closing", "producer", (_AUTH, _QUIT)),
)


def frames_of(phase: Phase) -> tuple[type[m.Frame], ...]:
    """Return the frames that a client may send on this phase's socket at all."""
    return WORKER_FRAMES if phase.socket == "worker" else SUBMISSION_FRAMES


def bad_frames(socket: str, message: bytes) -> int | None:
    """Return how many frames of a message are wrong in themselves; None if it ends the conversation."""
    try:
        frames = DECODERS[socket].decode(message)
    except ProtocolViolation:
        return None
    return sum(isinstance(frame, FrameRefused) for frame in frames)


def conversation(source: Source, phase: Phase, most: int = 16) -> list[bytes]:
    """Return messages for one connection, so many or fewer; what must end it comes last."""
    messages: list[bytes] = []
    last: list[bytes] = []
    bad = 0
    for _ in range(1 if not phase.opening else most):
        message = source.message(source.random.choice(frames_of(phase)))
        wrong = bad_frames(phase.socket, message)
        if wrong is None or bad + wrong > MAX_BAD_FRAMES:
            last = [message]
        else:
            messages.append(message)
            bad += wrong
    return messages + last


def table(source: Source) -> Iterator[tuple[Phase, list[bytes]]]:
    """Every frame in every phase: valid, and with each field missing or wrong in each way, one at a time."""
    for phase in PHASES:
        for kind in frames_of(phase):
            fields = source.frame(kind)
            yield phase, [whole(source, fields)]
            for name in fields:
                yield phase, [whole(source, {other: fields[other] for other in fields if other != name})]
                for value in BAD:
                    yield phase, [whole(source, {**fields, name: value})]


def cuts(source: Source) -> Iterator[tuple[Phase, list[bytes]]]:
    """Every frame in every phase, cut at every byte."""
    for phase in PHASES:
        for kind in frames_of(phase):
            text = whole(source, source.frame(kind))
            for at in range(len(text)):
                yield phase, [text[:at]]
