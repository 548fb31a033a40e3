"""Frames to text and back. One WebSocket message holds one frame, or a JSON array of frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Generic, TypeVar

import msgspec

from .errors import ErrorCode, FrameRefused, ProtocolViolation
from .limits import MAX_BAD_FRAMES, MAX_HEADERS_BYTES, MAX_MESSAGE_BYTES
from .messages import Frame, NewRun, Ref, SubmissionDown, SubmissionUp, WorkerDown, WorkerUp
from .payloads import ABSENT, check_payload

F = TypeVar("F", bound=Frame)
T = TypeVar("T")

_ENCODER: Final = msgspec.json.Encoder()
_ANY_FRAME: Final = msgspec.json.Decoder(msgspec.Raw)
_ANY_FRAMES: Final = msgspec.json.Decoder(tuple[msgspec.Raw, ...])
_NEW_RUN: Final = msgspec.json.Decoder(NewRun)

#: What a refusal repeats of a frame is cut to about this length: an answer must never outgrow the question.
_MAX_ECHO: Final = 100


class _Head(msgspec.Struct, gc=False):
    """What can be said of any object, however wrong."""

    type: msgspec.Raw = ABSENT
    ref: msgspec.Raw = ABSENT


_HEAD: Final = msgspec.json.Decoder(_Head)
_TYPE: Final[msgspec.json.Decoder[str]] = msgspec.json.Decoder(str)
_REF: Final[msgspec.json.Decoder[int | str]] = msgspec.json.Decoder(Ref)


class FrameDecoder(Generic[F]):
    """Decodes the messages of one direction of one socket.

    A message that is no JSON, or neither an object nor an array, breaks the conversation. A frame that is
    only wrong in itself is yielded as a `FrameRefused` in its place: what stands before and after it counts.
    After more than `MAX_BAD_FRAMES` of those in one message the rest is left out.
    """

    def __init__(self, union: Any) -> None:
        self._one: msgspec.json.Decoder[F] = msgspec.json.Decoder(union)
        self._many: msgspec.json.Decoder[tuple[F, ...]] = msgspec.json.Decoder(tuple[union, ...])

    def decode(self, text: str | bytes) -> tuple[F | FrameRefused, ...]:
        """Return the frames of a message in order. Raises `ProtocolViolation`."""
        try:
            return self._decode(_utf8(text))
        except (msgspec.DecodeError, UnicodeError) as exc:
            raise ProtocolViolation(f"not JSON: {exc}") from exc
        except RecursionError as exc:
            raise ProtocolViolation("nested too deeply") from exc

    def _decode(self, data: bytes) -> tuple[F | FrameRefused, ...]:
        try:
            return self._many.decode(data) if data[:1] == b"[" else (self._one.decode(data),)
        except msgspec.ValidationError:
            return tuple(self._decode_singly(data))

    def _decode_singly(self, data: bytes) -> Iterator[F | FrameRefused]:
        if data.lstrip()[:1] not in (b"[", b"{"):
            raise ProtocolViolation("a message must be an object or an array of objects")
        frames = _ANY_FRAMES.decode(data) if data.lstrip()[:1] == b"[" else (_ANY_FRAME.decode(data),)
        refused = 0
        for frame in frames:
            try:
                yield self._one.decode(frame)
            except msgspec.ValidationError as exc:
                yield _refusal(frame, exc)
                refused += 1
                if refused > MAX_BAD_FRAMES:
                    return  # the conversation ends with this one, so that what follows need not be read


def _utf8(text: str | bytes) -> bytes:
    """Return the text as UTF-8 throughout, which msgspec checks only where it makes a `str` of it."""
    if isinstance(text, str):
        return text.encode()
    if not text.isascii():
        text.decode()
    return text


def _refusal(frame: msgspec.Raw, error: msgspec.ValidationError) -> FrameRefused:
    """Say what is wrong with a frame that is JSON but none of ours."""
    message = str(error)
    try:
        head = _HEAD.decode(frame)
    except msgspec.ValidationError:
        head = _Head()
    kind = _read(_TYPE, head.type)
    ref = _read(_REF, head.ref)
    field = field_of(message)
    unknown = field == "type" or kind is None
    code = ErrorCode.UNKNOWN_TYPE if unknown else ErrorCode.INVALID_FRAME
    return FrameRefused(
        code, _shorten(message), frame=kind and _shorten(kind), field="type" if unknown else field, ref=ref
    )


def _read(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw) -> T | None:
    """Return the value, or None where it is absent or of another type."""
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _shorten(text: str) -> str:
    """Cut the middle out of a text that is long because the frame was."""
    return text if len(text) <= 3 * _MAX_ECHO else f"{text[: 2 * _MAX_ECHO]}…{text[-_MAX_ECHO:]}"


_MISSING: Final = "Object missing required field `"


def field_of(message: str) -> str | None:
    """Return the path that a msgspec validation message names (`runs[0].id`), if it names one.

    A missing field is named in the message itself ("Object missing required field `limit`").
    """
    _, found, path = message.rpartition(" - at `$")
    place = path.rstrip("`").lstrip(".") if found else ""
    if message.startswith(_MISSING):
        leaf = message[len(_MISSING) :].split("`", 1)[0]
        return f"{place}.{leaf}" if place else leaf
    return place or None


WORKER_UP: Final[FrameDecoder[WorkerUp]] = FrameDecoder(WorkerUp)
WORKER_DOWN: Final[FrameDecoder[WorkerDown]] = FrameDecoder(WorkerDown)
SUBMISSION_UP: Final[FrameDecoder[SubmissionUp]] = FrameDecoder(SubmissionUp)
SUBMISSION_DOWN: Final[FrameDecoder[SubmissionDown]] = FrameDecoder(SubmissionDown)


def decode_new_run(data: msgspec.Raw | bytes, field: str, max_payload_bytes: int) -> NewRun:
    """Decode one run of a `submit` frame and check its payload.

    Raises `FrameRefused` (`invalid_field`, `payload_too_large`, `payload_too_deep`) naming the field under
    `field`, which is where the run stands (`runs[3]`).
    """
    try:
        run = _NEW_RUN.decode(data)
    except msgspec.ValidationError as exc:
        place = field_of(str(exc))
        where = f"{field}.{place}" if place else field
        raise FrameRefused(ErrorCode.INVALID_FIELD, _shorten(str(exc)), field=_shorten(where)) from exc
    except RecursionError as exc:
        raise FrameRefused(ErrorCode.TOO_DEEP, f"{field} nests too deeply", field=field) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        # What a frame does not read is scanned only: such text can still turn out to be no text.
        raise FrameRefused(ErrorCode.INVALID_FIELD, f"not JSON: {exc}", field=field) from exc
    where = f"{field}.parameters"
    if bytes(run.parameters)[:1] != b"{":
        raise FrameRefused(ErrorCode.INVALID_FIELD, "parameters must be a JSON object", field=where)
    check_payload(run.parameters, where, max_payload_bytes)
    if run.headers and (size := len(_ENCODER.encode(run.headers))) > MAX_HEADERS_BYTES:
        where = f"{field}.headers"
        message = f"{where} has {size} bytes; at most {MAX_HEADERS_BYTES}"
        raise FrameRefused(ErrorCode.TOO_LARGE, message, field=where)
    return run


def encode(frame: Frame) -> bytes:
    """Return a frame as JSON."""
    return _ENCODER.encode(frame)


def encode_part(part: msgspec.Struct) -> msgspec.Raw:
    """Return a part as JSON, to be placed in a frame (the runs of a `submit`)."""
    return msgspec.Raw(_ENCODER.encode(part))


def pack(frames: Iterable[bytes], limit: int = MAX_MESSAGE_BYTES) -> Iterator[bytes]:
    """Join encoded frames into as few messages as the limit allows, in order.

    A single frame is sent as it is, several as an array. A frame beyond the limit goes alone; it is the
    sender's duty not to make one.
    """
    batch: list[bytes] = []
    size = 2
    for frame in frames:
        if batch and size + len(frame) > limit:
            yield _join(batch)
            batch, size = [], 2
        batch.append(frame)
        size += len(frame) + 1
    if batch:
        yield _join(batch)


def _join(batch: list[bytes]) -> bytes:
    return batch[0] if len(batch) == 1 else b"[" + b",".join(batch) + b"]"
