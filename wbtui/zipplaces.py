"""Where the members of a zip file lie, read so that no archive can cost more than its own directory.

``zipfile`` reads a directory of any length and trusts what it says. Here the number of members and the directory's size
are limited, members may not overlap each other (the trick of quine-like zip bombs) nor leave the file, and nothing is
unpacked. Layout: APPNOTE.TXT of PKWARE, 4.3.
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wbtui.errors import WeightsError

MAX_MEMBERS = 10_000
MAX_DIRECTORY_BYTES = 4_000_000
STORED, DEFLATED = 0, 8
_AGAIN = "copy or download the file again"


@dataclass(frozen=True)
class Member:
    """One member; ``begin`` and ``end`` bound its bytes as they lie in the file."""

    name: str
    method: int
    """``STORED`` or ``DEFLATED``."""
    begin: int
    end: int
    size: int
    """Unpacked, as the directory says."""


def read_places(path: Path) -> dict[str, Member]:
    """The members of a zip file by name.

    Raises:
        WeightsError: not a zip file, truncated, too many members, a member that is encrypted, compressed in another way
            than by deflate, doubled, overlapping another or outside the file.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _members(path, file, size)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}", "a readable zip file") from None
    except struct.error:
        raise WeightsError(f"{path}: truncated zip directory", "a complete file", _AGAIN) from None


def unpack(path: Path, member: Member, limit: int) -> bytes:
    """A small member's bytes, never more than ``limit`` of them.

    Raises:
        WeightsError: larger than ``limit``, damaged, or unreadable.
    """
    if member.size > limit or (member.method == STORED and member.end - member.begin > limit):
        raise WeightsError(f"{path}: {member.name} says that it has {member.size} bytes", f"at most {limit}")
    try:
        with open(path, "rb") as file:
            file.seek(member.begin)
            raw = file.read(member.end - member.begin)
        if member.method == DEFLATED:
            raw = zlib.decompressobj(-15).decompress(raw, limit + 1)
    except (OSError, zlib.error) as error:
        raise WeightsError(f"{path}: cannot read {member.name} ({error})", "a readable zip file", _AGAIN) from None
    if len(raw) != member.size:
        raise WeightsError(
            f"{path}: {member.name} has not the {member.size} bytes that it says", "a whole file", _AGAIN
        )
    return raw


def _members(path: Path, file: BinaryIO, size: int) -> dict[str, Member]:
    count, length, offset = _end_record(path, file, size)
    if count > MAX_MEMBERS or length > MAX_DIRECTORY_BYTES:
        raise WeightsError(
            f"{path}: a zip file of {count} members ({length} bytes of directory)", f"at most {MAX_MEMBERS} members"
        )
    if offset + length > size:
        raise WeightsError(f"{path}: its zip directory lies outside the file", "a complete file", _AGAIN)
    file.seek(offset)
    raw = file.read(length)
    out: dict[str, Member] = {}
    at = 0
    for _ in range(count):
        if raw[at : at + 4] != b"PK\x01\x02":
            raise WeightsError(f"{path}: damaged zip directory", "a complete file", _AGAIN)
        fields = struct.unpack_from("<4x6H3I5H2I", raw, at)
        flags, method, packed, full = fields[2], fields[3], fields[7], fields[8]
        name_length, extra_length, comment_length, start = fields[9], fields[10], fields[11], fields[15]
        tail = at + 46
        name = raw[tail : tail + name_length].decode("utf-8", "backslashreplace")
        extra = raw[tail + name_length : tail + name_length + extra_length]
        full, packed, start = _large(extra, full, packed, start)
        at = tail + name_length + extra_length + comment_length
        if name.endswith("/"):
            continue
        if flags & 1 or method not in (STORED, DEFLATED):
            raise WeightsError(f"{path}: {name} is encrypted, or compressed by method {method}", "stored or deflate")
        if name in out:
            raise WeightsError(f"{path}: two members are called {name}", "one of each name", _AGAIN)
        begin = _data_start(path, file, name, start)
        if method == STORED and packed != full:
            raise WeightsError(f"{path}: {name} is stored, but its two sizes differ", "a whole zip file", _AGAIN)
        if begin + packed > offset:
            raise WeightsError(f"{path}: {name} ends outside the file's data", "a complete file", _AGAIN)
        out[name] = Member(name, method, begin, begin + packed, full)
    spans = sorted((m.begin, m.end, m.name) for m in out.values())
    for (_, end, name), (begin, _, other) in itertools.pairwise(spans):
        if begin < end:
            raise WeightsError(f"{path}: members {name!r} and {other!r} overlap", "disjoint members", _AGAIN)
    return out


def _end_record(path: Path, file: BinaryIO, size: int) -> tuple[int, int, int]:
    """(members, directory bytes, directory offset) out of the record at the end, in either of its two widths."""
    reach = min(size, 22 + 65_535)
    file.seek(size - reach)
    tail = file.read(reach)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise WeightsError(f"{path}: not a zip file", "a zip file (npz, or torch.save since PyTorch 1.6)", _AGAIN)
    count, length, offset = struct.unpack_from("<10xHII", tail, at)
    locator = at - 20
    if locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
        (place,) = struct.unpack_from("<8xQ", tail, locator)
        if place + 56 <= size:
            file.seek(place)
            record = file.read(56)
            if record[:4] == b"PK\x06\x06":
                count, length, offset = struct.unpack_from("<32xQQQ", record)
    return count, length, offset


def _large(extra: bytes, full: int, packed: int, start: int) -> tuple[int, int, int]:
    """Sizes and offset beyond 32 bits stand in an extra field (4.5.3)."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            values = iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            full = next(values, full) if full == 0xFFFFFFFF else full
            packed = next(values, packed) if packed == 0xFFFFFFFF else packed
            start = next(values, start) if start == 0xFFFFFFFF else start
        at += 4 + length
    return full, packed, start


def _data_start(path: Path, file: BinaryIO, name: str, start: int) -> int:
    """Behind the member's own header, whose extra field may be longer than the directory's."""
    try:
        file.seek(start)
        head = file.read(30)
    except (OSError, ValueError, OverflowError):
        head = b""
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        raise WeightsError(f"{path}: no member where the directory says that {name} is", "a complete file", _AGAIN)
    name_length, extra_length = struct.unpack_from("<26xHH", head)
    return int(start + 30 + name_length + extra_length)
