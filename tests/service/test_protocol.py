"""Frames and messages: what goes in comes out, and nothing that comes in can do more than be refused."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct

import pytest

from wbtui.errors import TimedOut, UsageError, WbtuiError, WeightsError, WorkError
from wbtui.service import protocol
from wbtui.service.protocol import Disconnected, ProtocolError, Request
from wbtui.service.wishes import ComputeRequest, PageRequest, RowRequest


def pair() -> tuple[socket.socket, socket.socket]:
    a, b = socket.socketpair()
    a.settimeout(10)
    b.settimeout(10)
    return a, b


def test_a_frame_comes_out_as_it_went_in():
    a, b = pair()
    message = {
        "v": 1,
        "id": 3,
        "op": "x",
        "text": "naïve \ud800 \u2028 \0",
        "n": [1, 2.5, None, True],
        "big": "y" * 70_000,
    }
    protocol.send(a, message)
    assert protocol.receive(b) == message
    a.close()
    assert protocol.receive(b) is None


def test_the_wire_is_a_big_endian_length_and_ascii_json():
    raw = protocol.encode({"v": 1, "s": "é"})
    assert struct.unpack(">I", raw[:4])[0] == len(raw) - 4
    assert json.loads(raw[4:].decode("ascii")) == {"v": 1, "s": "é"}


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x01{",
        b"\xff\xff\xff\xff",
        struct.pack(">I", protocol.MAX_FRAME + 1),
        struct.pack(">I", 4) + b"null",
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 3) + b"\xff\xfe{",
        struct.pack(">I", 9) + b'{"a":NaN}',
        struct.pack(">I", 200_000) + b"[" * 200_000,
        struct.pack(">I", 5006) + b'{"a":' + b"1" * 5000 + b"}",
    ],
)
def test_a_malformed_frame_is_a_protocol_error_and_no_other(raw):
    a, b = pair()
    a.sendall(raw)
    with pytest.raises(ProtocolError):
        protocol.receive(b)


def test_an_end_inside_a_frame_is_not_a_clean_end():
    for raw in (b"\x00\x00", struct.pack(">I", 10) + b"{"):
        a, b = pair()
        a.sendall(raw)
        a.close()
        with pytest.raises(Disconnected):
            protocol.receive(b)


def test_a_silent_peer_times_out():
    _a, b = pair()
    b.settimeout(0.01)
    with pytest.raises(TimedOut):
        protocol.receive(b)


def test_a_message_beyond_the_limit_is_not_sent():
    with pytest.raises(ProtocolError):
        protocol.encode({"x": "y" * protocol.MAX_FRAME})
    with pytest.raises(ValueError):
        protocol.encode({"x": float("nan")})


async def test_asyncio_reads_the_same_frames():
    reader = asyncio.StreamReader()
    reader.feed_data(protocol.encode({"v": 1, "big": "y" * 300_000}) + b"\x00")
    reader.feed_eof()
    message = await protocol.receive_async(reader)
    assert message is not None and len(message["big"]) == 300_000
    with pytest.raises(Disconnected):
        await protocol.receive_async(reader)


def test_errors_keep_their_class_and_evidence_across_the_wire():
    message = protocol.failure(4, WeightsError("a.safetensors: cut short", "40 bytes", "download it again"))
    with pytest.raises(WeightsError) as caught:
        protocol.result(protocol.decode(protocol.encode(message)[4:]))
    assert (caught.value.found, caught.value.do) == ("a.safetensors: cut short", "download it again")
    for bad in ({}, {"error": 3}, {"error": {"code": 1}}):
        with pytest.raises(WbtuiError):
            protocol.result(bad)


GOOD = {"model": "m", "sae": "L0", "definition": {}, "cache": "/c"}


def test_requests_are_typed():
    assert ComputeRequest.from_fields(GOOD).priority == "batch"
    assert RowRequest.from_fields({**GOOD, "feature": 7}).feature == 7
    for change in (
        {"model": ""},
        {"model": 3},
        {"model": "a\0b"},
        {"model": "x" * 5000},
        {"definition": []},
        {"checks": 1},
        {"around": True},
        {"around": -1},
        {"priority": "now"},
        {"analysis": "flow"},
        {"surprise": 1},
    ):
        with pytest.raises(UsageError):
            ComputeRequest.from_fields({**GOOD, **change})
    for name in GOOD:
        with pytest.raises(UsageError):
            ComputeRequest.from_fields({k: v for k, v in GOOD.items() if k != name})
    for feature in (-1, True, 1.0, None):
        with pytest.raises(UsageError):
            RowRequest.from_fields({**GOOD, "feature": feature})


def test_plain_data_has_no_nan_and_no_arrays():
    import numpy as np

    got = protocol.plain({"a": np.array([1.0, np.nan]), 3: (np.float32(2), float("inf")), "b": np.bool_(True)})
    assert got == {"a": [1.0, None], "3": [2.0, None], "b": True}
    protocol.encode(got)


def mutations(rng: random.Random) -> bytes:
    """One malformed or hostile frame."""
    good = protocol.encode({"v": 1, "id": 1, "op": "compute", **GOOD})
    kind = rng.randrange(6)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 60))
    if kind == 1:
        body = rng.randbytes(rng.randrange(2, 200))
        return struct.pack(">I", len(body)) + body
    if kind == 2:
        return struct.pack(">I", rng.randrange(1 << 32)) + good[4:]
    if kind == 3:
        raw = bytearray(good)
        for _ in range(rng.randrange(1, 8)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        return bytes(raw)
    if kind == 4:
        return good[: rng.randrange(1, len(good))]
    value = rng.choice([None, 0, -1, 1 << 60, True, 1.5, "x", [], {}, "\ud800", "x" * 9000, [[[[]]]]])
    key = rng.choice(["v", "id", "op", "model", "sae", "definition", "cache", "priority", "around", "new"])
    return protocol.encode(
        {"v": 1, "id": 1, "op": rng.choice(["compute", "row", "page", "cancel", "x"]), **GOOD, key: value}
    )


def test_thousands_of_hostile_frames_raise_nothing_but_our_errors():
    rng = random.Random(7)
    refused = 0
    for _ in range(4000):
        a, b = pair()
        a.sendall(mutations(rng))
        a.shutdown(socket.SHUT_WR)
        try:
            while (message := protocol.receive(b)) is not None:
                request = Request.from_message(message)
                kinds = {"row": RowRequest, "page": PageRequest}
                kinds.get(request.op, ComputeRequest).from_fields(request.fields)
        except WbtuiError:
            refused += 1
        finally:
            a.close()
            b.close()
    assert refused > 3000


def test_unknown_error_codes_become_plain_errors():
    with pytest.raises(WbtuiError):
        protocol.result({"error": {"code": "SystemExit", "found": "x"}})
    with pytest.raises(WorkError):
        protocol.result({"error": {"code": "WorkError", "found": "x"}})
