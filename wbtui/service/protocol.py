"""The wire between the service and its clients: frames, requests, replies, events.

A frame is a 4-byte big-endian length and that many bytes of UTF-8 JSON, one object, at most 1 MiB. Requests are
``{v, id, op, …}``; replies ``{v, id, ok}`` or ``{v, id, error: {code, found, expected, do}}``; events
``{v, event, job, …}`` have no ``id``. No array travels: readers map the store. What may be asked for, field by field:
:mod:`wbtui.service.wishes`.

``hello``, ``status`` and ``stop`` keep their shape in every future version, so that a newer client can always end an
older service.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
from dataclasses import dataclass
from typing import Any

from wbtui.errors import ServiceError, TimedOut, WbtuiError

PROTOCOL = 1
MAX_FRAME = 1 << 20
"""Bytes of a frame's body."""
_HEADER = struct.Struct(">I")
FINAL_STATES = ("done", "failed", "cancelled")


class ProtocolError(ServiceError):
    """What came is not a frame of this protocol; the connection is closed after it."""

    def to_json(self) -> dict[str, str]:
        """As the kind of error that the other side knows."""
        return {**super().to_json(), "code": ServiceError.__name__}


class OtherVersion(ServiceError):
    """A service of another version runs; it can be looked at and ended, and one of this version started."""

    def to_json(self) -> dict[str, str]:
        """As the kind of error that the other side knows."""
        return {**super().to_json(), "code": ServiceError.__name__}


class Disconnected(ServiceError):
    """The other side has gone."""


def encode(message: dict[str, Any], limit: int = MAX_FRAME) -> bytes:
    """One frame. ASCII JSON without NaN, so that any text and any reader will do.

    Raises:
        ProtocolError: the message is larger than a frame may be.
    """
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")
    if len(body) > limit:
        raise ProtocolError(f"a message of {len(body)} bytes", f"at most {limit}")
    return _HEADER.pack(len(body)) + body


def body_length(header: bytes, limit: int = MAX_FRAME) -> int:
    """The length in a frame's header, checked before a byte of the body is read.

    Raises:
        ProtocolError: zero, or more than ``limit``.
    """
    (length,) = _HEADER.unpack(header)
    if not 2 <= length <= limit:
        raise ProtocolError(f"a frame of {length} bytes", f"2 to {limit}")
    return int(length)


def decode(body: bytes) -> dict[str, Any]:
    """The object in a frame's body.

    Raises:
        ProtocolError: not UTF-8, not JSON, too deep, a non-finite number, or not an object.
    """
    try:
        message = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a frame that is not JSON ({type(error).__name__})", "one UTF-8 JSON object") from None
    if not isinstance(message, dict):
        raise ProtocolError(f"a frame holding {type(message).__name__}", "one JSON object")
    return message


def _no_constant(name: str) -> None:
    raise ValueError(name)


def plain(value: Any) -> Any:
    """``value`` as JSON data: arrays and scalars of numpy or torch become lists and numbers, non-finite ones null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return str(value)


# Blocking sockets ---------------------------------------------------------------------------------------------------


def send(sock: socket.socket, message: dict[str, Any], limit: int = MAX_FRAME) -> None:
    """Send one frame on a blocking socket.

    Raises:
        Disconnected: the other side has gone. TimedOut: the socket's timeout passed.
    """
    data = encode(message, limit)
    try:
        sock.sendall(data)
    except TimeoutError:
        raise TimedOut("the service did not take a request in time") from None
    except OSError as error:
        raise Disconnected(f"the connection was lost while sending ({error.strerror or error})") from None


def receive(sock: socket.socket, limit: int = MAX_FRAME) -> dict[str, Any] | None:
    """Receive one frame from a blocking socket; None at a clean end between frames.

    Raises:
        ProtocolError: a malformed frame. Disconnected: an end inside a frame, or a broken connection. TimedOut.
    """
    header = _exactly(sock, _HEADER.size)
    if header is None:
        return None
    body = _exactly(sock, body_length(header, limit))
    if body is None:
        raise Disconnected("the connection ended inside a frame")
    return decode(body)


def _exactly(sock: socket.socket, n: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < n:
        try:
            part = sock.recv(min(n - len(parts), 1 << 16))
        except TimeoutError:
            raise TimedOut("no answer from the service in time") from None
        except OSError as error:
            raise Disconnected(f"the connection was lost ({error.strerror or error})") from None
        if not part:
            if parts:
                raise Disconnected("the connection ended inside a frame")
            return None
        parts += part
    return bytes(parts)


async def receive_async(reader: asyncio.StreamReader, limit: int = MAX_FRAME) -> dict[str, Any] | None:
    """:func:`receive` on an asyncio stream."""
    try:
        header = await reader.readexactly(_HEADER.size)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise Disconnected("the connection ended inside a frame") from None
        return None
    except OSError as error:
        raise Disconnected(f"the connection was lost ({error.strerror or error})") from None
    try:
        return decode(await reader.readexactly(body_length(header, limit)))
    except (asyncio.IncompleteReadError, OSError):
        raise Disconnected("the connection ended inside a frame") from None


# Messages -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One request as it came: its number, what is asked, and the rest of the object."""

    id: int
    op: str
    fields: dict[str, Any]

    @staticmethod
    def from_message(message: dict[str, Any]) -> Request:
        """Raises ProtocolError where ``v``, ``id`` or ``op`` is not what it must be."""
        number, op = message.get("id"), message.get("op")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 53:
            raise ProtocolError("a request without a number", "'id' a whole number from 0 to 2^53")
        if not isinstance(op, str) or len(op) > 64:
            raise ProtocolError("a request without an operation", "'op' a short text")
        if not isinstance(message.get("v"), int):
            raise ProtocolError("a request without a protocol version", f"'v' {PROTOCOL}")
        return Request(number, op, {k: v for k, v in message.items() if k not in ("v", "id", "op")})

    def to_message(self) -> dict[str, Any]:
        """The request as a message."""
        return {"v": PROTOCOL, "id": self.id, "op": self.op, **self.fields}


def reply(number: int | None, ok: Any) -> dict[str, Any]:
    """A successful answer to request ``number``."""
    return {"v": PROTOCOL, "id": number, "ok": ok}


def failure(number: int | None, error: WbtuiError) -> dict[str, Any]:
    """A failed answer; ``number`` is None where the request could not even be read."""
    return {"v": PROTOCOL, "id": number, "error": error.to_json()}


def result(message: dict[str, Any]) -> Any:
    """What a reply carries.

    Raises:
        WbtuiError: the error in it, as the class it was. ProtocolError: neither ``ok`` nor a readable ``error``.
    """
    if "ok" in message:
        return message["ok"]
    error = message.get("error")
    if not isinstance(error, dict) or not all(isinstance(v, str) for v in error.values()):
        raise ProtocolError("a reply with neither 'ok' nor 'error'")
    raise WbtuiError.from_json(error)


def version_error(theirs: str, ours: str) -> OtherVersion:
    """The error where client and service are of different versions."""
    return OtherVersion(f"a service of version {theirs}", f"version {ours}", "run `wbtui daemon restart`")


def build_error(version: str) -> OtherVersion:
    """The error where both are of one version, and the package was changed after the service had started."""
    return OtherVersion(
        f"a service of version {version} started before the package was changed",
        "one that runs the same code",
        "run `wbtui daemon restart`",
    )
