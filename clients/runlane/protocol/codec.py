"""Frames to text and back. One WebSocket message holds one frame, or a JSON array of frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Generic, TypeVar

import msgspec

from .errors import ErrorCode, FrameRefused, ProtocolViolation
from .limits import MAX_MESSAGE_BYTES
from .messages import Frame, NewRun, SubmissionDown, SubmissionUp, WorkerDown, WorkerUp
from .payloads import check_payload

F = TypeVar("F", bound=Frame)

_ENCODER: Final = msgspec.json.Encoder()
_ANY_FRAMES: Final = msgspec.json.Decoder(tuple[msgspec.Raw, ...])
_NEW_RUN: Final = msgspec.json.Decoder(NewRun)


class _Head(msgspec.Struct, gc=False):
    """What can be said of any frame, however wrong."""

    type: str | None = None
    ref: int | str | None = None


_HEAD: Final = msgspec.json.Decoder(_Head)


class FrameDecoder(Generic[F]):
    """Decodes the messages of one direction of one socket.

    A message that is no JSON, or neither an object nor an array, breaks the conversation. A frame that is only
    wrong in itself is yielded as a `FrameRefused` in its place: what stands before and after it counts.
    """

    def __init__(self, union: Any) -> None:
        self._one: msgspec.json.Decoder[F] = msgspec.json.Decoder(union)
        self._many: msgspec.json.Decoder[tuple[F, ...]] = msgspec.json.Decoder(tuple[union, ...])

    def decode(self, text: str | bytes) -> tuple[F | FrameRefused, ...]:
        """Return the frames of a message in order. Raises `ProtocolViolation`."""
        data = text.encode() if isinstance(text, str) else text
        try:
            return self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
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
        frames = _ANY_FRAMES.decode(data) if data.lstrip()[:1] == b"[" else (msgspec.Raw(data),)
        for frame in frames:
            try:
                yield self._one.decode(frame)
            except msgspec.ValidationError as exc:
                yield _refusal(bytes(frame), exc)


def _refusal(data: bytes, error: msgspec.ValidationError) -> FrameRefused:
    """Say what is wrong with a frame that is JSON but none of ours."""
    message = str(error)
    try:
        kind = _HEAD.decode(data).type
    except msgspec.ValidationError:
        kind = None
    field = field_of(message)
    if field == "type" or kind is None:
        return FrameRefused(ErrorCode.UNKNOWN_TYPE, message, frame=kind, field="type")
    return FrameRefused(ErrorCode.INVALID_FRAME, message, frame=kind, field=field)


def field_of(message: str) -> str | None:
    """Return the path that a msgspec validation message names (`runs[0].id`), if it names one.

    A missing field is named in the message itself ("Object missing required field `limit`").
    """
    _, found, path = message.rpartition(" - at `$")
    place = path.rstrip("`").lstrip(".") if found else ""
    _, missing, name = message.partition("missing required field `")
    if missing:
        leaf = name.split("`", 1)[0]
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
        raise FrameRefused(ErrorCode.INVALID_FIELD, str(exc), field=where) from exc
    where = f"{field}.parameters"
    if bytes(run.parameters)[:1] != b"{":
        raise FrameRefused(ErrorCode.INVALID_FIELD, "parameters must be a JSON object", field=where)
    check_payload(run.parameters, where, max_payload_bytes)
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
