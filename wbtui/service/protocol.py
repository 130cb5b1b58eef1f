"""The wire between the service and its clients: frames, requests, replies, events.

A frame is a 4-byte big-endian length and that many bytes of UTF-8 JSON, one object, at most 1 MiB. Requests are
``{v, id, op, …}``; replies ``{v, id, ok}`` or ``{v, id, error: {code, found, expected, do}}``; events
``{v, event, job, …}`` have no ``id``. No array travels: readers map the store.

``hello``, ``status`` and ``stop`` keep their shape in every future version, so that a newer client can always end an
older service.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

from wbtui.errors import ServiceError, TimedOut, UsageError, WbtuiError

PROTOCOL = 1
MAX_FRAME = 1 << 20
MAX_TEXT = 4096
"""Bytes of a frame's body, and characters of any name or path in a request."""
_HEADER = struct.Struct(">I")
ANALYSES = ("tokens", "attention", "neighbours", "match")
QUESTIONS = ("find", "edges", "flow", "direction", "set")
PRIORITIES = ("screen", "near", "batch")
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


@dataclass(frozen=True)
class ComputeRequest:
    """``compute``: make every product of one analysis of one SAE. ``cache`` and paths are absolute: the service has
    a working folder of its own. Shards nearest to row ``around`` come first."""

    model: str
    sae: str
    definition: dict[str, Any]
    cache: str
    analysis: str = "tokens"
    priority: str = "batch"
    checks: bool = True
    around: int | None = None
    layer: int | None = None
    """For ``attention``: the reading layer; None is the first that reads the hook's stream."""
    other: str | None = None
    """For ``neighbours``: an SAE to compare with, or ``all``; None is the SAE itself and those beside it. For
    ``match``: the address of the other SAE."""

    @staticmethod
    def from_fields(fields: dict[str, Any]) -> ComputeRequest:
        """Raises UsageError for a missing, unknown or wrongly typed field."""
        request: ComputeRequest = _typed(ComputeRequest, fields)
        _one_of("analysis", request.analysis, ANALYSES)
        _one_of("priority", request.priority, PRIORITIES)
        if request.around is not None and request.around < 0:
            raise UsageError(f"around {request.around}", "a row from 0")
        if request.layer is not None and request.analysis != "attention":
            raise UsageError(f"layer {request.layer} for {request.analysis}", "a layer for attention only")
        if request.other is not None and request.analysis not in ("neighbours", "match"):
            raise UsageError(
                f"other {request.other[:64]!r} for {request.analysis}", "another SAE for neighbours and match only"
            )
        if request.other is None and request.analysis == "match":
            raise UsageError("a match without another SAE", "other: the address of one")
        return request

    @property
    def label(self) -> str:
        """What people read of the job."""
        layer = "" if self.layer is None else f" of L{self.layer}"
        return f"{self.model}@{self.sae}" + ("" if self.analysis == "tokens" else f" {self.analysis}{layer}")

    def plan_request(self) -> dict[str, Any]:
        """Whose numbers, and where they are kept: what ``row`` takes too."""
        return {"model": self.model, "sae": self.sae, "definition": self.definition, "cache": self.cache}

    def wish(self) -> dict[str, Any]:
        """All that a plan is made from."""
        return {**self.plan_request(), "analysis": self.analysis, "layer": self.layer, "other": self.other,
                "checks": self.checks}  # fmt: skip


@dataclass(frozen=True)
class RowRequest:
    """``row``: the columns of one feature now, provisional, kept nowhere."""

    model: str
    sae: str
    definition: dict[str, Any]
    cache: str
    feature: int

    @staticmethod
    def from_fields(fields: dict[str, Any]) -> RowRequest:
        """Raises UsageError for a missing, unknown or wrongly typed field."""
        request: RowRequest = _typed(RowRequest, fields)
        if request.feature < 0:
            raise UsageError(f"feature {request.feature}", "a number from 0")
        return request

    def plan_request(self) -> dict[str, Any]:
        """What a plan is made from."""
        return {"model": self.model, "sae": self.sae, "definition": self.definition, "cache": self.cache}


@dataclass(frozen=True)
class PageRequest:
    """``page``: one feature in all heads of a layer now: partners each way, what each head writes, kept nowhere."""

    model: str
    sae: str
    definition: dict[str, Any]
    """Of ``attention``."""
    cache: str
    feature: int
    layer: int | None = None
    """The reading layer; None is the first that reads the hook's stream."""
    tokens: dict[str, Any] | None = None
    """A definition of ``tokens``: top tokens of what heads write. None leaves them out."""
    target: str | None = None
    """An SAE of the same model: readers and becomes are its features. None leaves them out."""

    @staticmethod
    def from_fields(fields: dict[str, Any]) -> PageRequest:
        """Raises UsageError for a missing, unknown or wrongly typed field."""
        request: PageRequest = _typed(PageRequest, fields)
        if request.feature < 0:
            raise UsageError(f"feature {request.feature}", "a number from 0")
        return request

    def wishes(self) -> list[dict[str, Any]]:
        """What plans are made from: of the heads; then, where wanted, of tokens at the SAE and at the target."""
        place = {"model": self.model, "cache": self.cache, "checks": False}
        heads = {**place, "sae": self.sae, "definition": self.definition, "analysis": "attention", "layer": self.layer}
        words = {**place, "definition": self.tokens or {}, "analysis": "tokens"}
        return [
            heads,
            *([{**words, "sae": self.sae}] if self.tokens is not None else []),
            *([{**words, "sae": self.target}] if self.target is not None else []),
        ]


@dataclass(frozen=True)
class AskRequest:
    """``ask``: a question about every feature of a model, answered now and kept nowhere: see
    :mod:`wbtui.compute.ask`. Parts of the answer that are there before the rest come as events
    ``{event: "part", ticket, part}`` to the client that asked."""

    model: str
    sae: str
    """The SAE that the question starts from; where it is of no one SAE, any of the model."""
    definition: dict[str, Any]
    """Of ``tokens``."""
    cache: str
    what: str
    args: dict[str, Any]
    """Plain data, by question; paths in it are absolute."""
    ticket: str | None = None
    """The client's own name for the question, told with its parts."""

    @staticmethod
    def from_fields(fields: dict[str, Any]) -> AskRequest:
        """Raises UsageError for a missing, unknown or wrongly typed field."""
        request: AskRequest = _typed(AskRequest, fields)
        _one_of("what", request.what, QUESTIONS)
        return request

    def plan_request(self) -> dict[str, Any]:
        """What a plan is made from."""
        place = {"model": self.model, "sae": self.sae, "definition": self.definition, "cache": self.cache}
        return {**place, "checks": False}


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "dict[str, Any]": (dict,),
    "int | None": (int, type(None)),
    "str | None": (str, type(None)),
    "dict[str, Any] | None": (dict, type(None)),
}


def _typed(cls: type, fields: dict[str, Any]) -> Any:
    known = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise UsageError(f"field {unknown[0]!r} of a {cls.__name__}", "only " + ", ".join(known))
    for name, field in known.items():
        if name not in fields:
            if field.default is dataclasses.MISSING:
                raise UsageError(f"a {cls.__name__} without {name!r}", f"{name} as {field.type}")
            continue
        value = fields[name]
        right = isinstance(value, _TYPES[str(field.type)]) and (isinstance(value, bool) == (field.type == "bool"))
        if not right:
            raise UsageError(f"{name} as {type(value).__name__}", f"{name} as {field.type}")
        if isinstance(value, str) and (not value or len(value) > MAX_TEXT or "\0" in value):
            raise UsageError(f"{name} of {len(value)} characters", f"1 to {MAX_TEXT} characters, none of them NUL")
    if not os.path.isabs(fields["cache"]):
        raise UsageError(f"cache {fields['cache'][:64]!r}", "an absolute path: the service works in another folder")
    return cls(**fields)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} {value[:64]!r}", "one of " + ", ".join(allowed))
