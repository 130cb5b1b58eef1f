"""The shards of one partial product: which there are, which can be trusted, and their union in one file."""

from __future__ import annotations

import contextlib
import json
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wbtui.errors import StoreError
from wbtui.store import io, places
from wbtui.store.columns import array_from, check_header, read_verified, verify_columns
from wbtui.store.keys import ProductSpec, canonical_json
from wbtui.store.refusals import Damaged, ShardsMissing
from wbtui.store.writer import DTYPES, OWN_METADATA, writing
from wbtui.tensorfile import Header

Span = tuple[int, int]
_GROUP_BYTES = 64 << 20
"""Shards are gathered to about this much before their columns are written, in long runs."""
_OWN = ("analysis", "key", "range", "rows", "wbtui_version", *OWN_METADATA)
COMPUTE = "compute it: `wbtui compute`"


@dataclass(frozen=True)
class _Trusted:
    """What is remembered of a shard whose header was checked."""

    stamp: tuple[int, int, int]
    layout: str
    metadata: tuple[tuple[str, str], ...]


class Shards:
    """The ``shards/`` folder of a product.

    Args:
        product: the product's folder.
        spec: which product.
    """

    def __init__(self, product: Path, spec: ProductSpec) -> None:
        self.product = product
        self.folder = product / places.SHARDS
        self.spec = spec
        self.key = spec.key
        self._trusted: dict[Span, _Trusted] = {}

    def ranges(self) -> list[Span]:
        """All row ranges, there or not."""
        rows, step = self.spec.rows, self.spec.shard_rows
        return [(start, min(start + step, rows)) for start in range(0, rows, step)] if rows else []

    def is_range(self, start: int, stop: int) -> bool:
        """Whether [start, stop) is one of :meth:`ranges`."""
        rows, step = self.spec.rows, self.spec.shard_rows
        return 0 <= start < rows and start % step == 0 and stop == min(start + step, rows)

    def path(self, start: int, stop: int) -> Path:
        """Where the rows [start, stop) lie."""
        return self.folder / places.shard_name(start, stop)

    def make_folder(self) -> None:
        """Make ``shards/``.

        Raises:
            StoreError: a link is in its place.
            OSError: as the system says.
        """
        info = io.stat(self.folder)
        if info is not None and stat.S_ISLNK(info.st_mode):
            raise StoreError(f"{self.folder}: a link", "a folder of the cache", "remove the link")
        io.make_folders(self.folder)

    def named(self) -> dict[Span, Path]:
        """Shards that are there by name; other files are left out."""
        spans = (places.shard_range(name) for name in io.names_in(self.folder))
        return {span: self.path(*span) for span in spans if span is not None and self.is_range(*span)}

    def check_metadata(self, path: Path, metadata: Mapping[str, str], start: int, stop: int) -> None:
        """A shard must say the product and the rows that its place says.

        Raises:
            Damaged: it does not.
        """
        found = (metadata.get("key"), metadata.get("range"))
        if found != (self.key, f"{start}-{stop}"):
            raise Damaged(f"{path}: product {found[0]}, rows {found[1]}", f"product {self.key}, rows {start}-{stop}")

    def check(self, path: Path, start: int, stop: int) -> Header:
        """Header, size, product, rows and the length of every column; not the data's hash.

        Raises:
            Damaged: one of them is wrong.
            StoreError: the file cannot be opened.
        """
        header = check_header(path)
        self.check_metadata(path, header.metadata, start, stop)
        for entry in header.tensors.values():
            if not entry.shape or entry.shape[0] != stop - start:
                raise Damaged(f"{path}: column {entry.name!r} of shape {list(entry.shape)}", f"{stop - start} rows")
        return header

    def trust(self, span: Span) -> bool:
        """Whether a shard is there and passes :meth:`check`, looked at once for each state of the file.

        A bad one is removed.

        Raises:
            StoreError: it cannot be opened, which says nothing about it.
        """
        path = self.path(*span)
        info = io.stat(path)
        if info is None:
            return False
        stamp = (info.st_ino, info.st_size, info.st_mtime_ns)
        known = self._trusted.get(span)
        if known is not None and known.stamp == stamp:
            return True
        try:
            header = self.check(path, *span)
        except Damaged:
            self.discard(span)
            return False
        except StoreError:
            if io.stat(path) is None:  # gone since it was listed
                return False
            raise
        more = tuple(sorted((k, v) for k, v in header.metadata.items() if k not in _OWN))
        self._trusted[span] = _Trusted(stamp, sys.intern(_layout(header)), more)
        return True

    def discard(self, span: Span) -> bool:
        """Remove a shard that is bad, its data included; a good one stays. Where nothing may be removed, nothing is."""

        def bad(path: Path) -> bool:
            try:
                self.check(path, *span)
                verify_columns(path)
            except Damaged:
                return True
            return False

        self._trusted.pop(span, None)
        with contextlib.suppress(OSError):
            return io.discard(self.path(*span), bad)
        return False

    def clear(self) -> None:
        """All shards go (their product is complete); where they cannot, they are ``gc``'s.

        Their names keep nobody from anything, so a refusal is no error.
        """
        self._trusted.clear()
        with contextlib.suppress(OSError):
            if io.stat(self.folder) is not None:
                io.remove_tree(self.folder)

    def lacking(self, ranges: list[Span]) -> ShardsMissing:
        """The error that names what is to be computed."""
        (start, stop), total = ranges[0], len(self.ranges())
        return ShardsMissing(
            f"{self.product}: {len(ranges)} of {total} shards missing or damaged, the first is rows {start} to {stop}",
            "all shards",
            COMPUTE,
            ranges,
        )

    def join(self, metadata: Mapping[str, str], finished: Callable[[], bool]) -> bool:
        """Write the columns file out of all shards, each verified on the very bytes that are copied.

        Args:
            metadata: of the columns file; what all shards say alike is added.
            finished: asked when shards are gone: has another process finished the product?

        Returns:
            bool: False if another process has.

        Raises:
            ShardsMissing: shards are gone, or were damaged and are removed.
            OSError: as the system says.
        """
        spans = self.ranges()
        absent = [span for span in spans if not self.trust(span)]
        bad: list[Span] = []
        if not absent:
            self._agree(spans)
            bad = self._copy(spans, metadata)
        if not absent and not bad:
            return True
        if finished():
            return False
        for span in bad:
            self.discard(span)
        raise self.lacking(absent or bad)

    def _agree(self, spans: list[Span]) -> None:
        """All shards must have the columns of the newest one; others, of another program, are removed."""
        newest = max(spans, key=lambda span: self._trusted[span].stamp[2])
        odd = [span for span in spans if self._trusted[span].layout != self._trusted[newest].layout]
        for span in odd:
            self._trusted.pop(span)
            io.unlink(self.path(*span))
        if odd:
            raise self.lacking(odd)

    def _copy(self, spans: list[Span], metadata: Mapping[str, str]) -> list[Span]:
        """Copy all shards into the columns file; those that could not be, if any: then there is no file."""
        said = [dict(self._trusted[span].metadata) for span in spans]
        common = {k: v for k, v in said[0].items() if all(one.get(k) == v for one in said)}
        columns = {name: (dtype, tuple(tail)) for name, dtype, tail in json.loads(self._trusted[spans[0]].layout)}
        layout = {name: (np.dtype(DTYPES[d]), (self.spec.rows, *tail)) for name, (d, tail) in columns.items()}
        bad: list[Span] = []
        with (
            contextlib.suppress(ShardsMissing),
            writing(self.product / places.COLUMNS, layout, {**common, **metadata}) as writer,
        ):
            group: list[tuple[Header, bytes]] = []
            begin = size = 0
            for span in spans:
                part = self._read(span)
                if part is None:
                    bad.append(span)
                if bad or part is None:
                    continue  # nothing to write any more; look for other bad ones
                group.append(part)
                size += len(part[1])
                if size >= _GROUP_BYTES or span == spans[-1]:
                    for name in writer.order:
                        writer.put(name, begin, np.concatenate([array_from(h, data, name) for h, data in group]))
                    group, begin, size = [], span[1], 0
            if bad:
                raise self.lacking(bad)  # takes the unfinished file away
        return bad

    def _read(self, span: Span) -> tuple[Header, bytes] | None:
        """A shard's verified bytes; None if it is damaged, gone, or of other columns than it was."""
        path = self.path(*span)
        try:
            header, data = read_verified(path)
            self.check_metadata(path, header.metadata, *span)
        except Damaged:
            return None
        except StoreError:
            if io.stat(path) is None:
                return None
            raise
        return (header, data) if _layout(header) == self._trusted[span].layout else None


def _layout(header: Header) -> str:
    """Names, dtypes and row shapes as one comparable text."""
    return canonical_json(sorted((e.name, e.dtype, e.shape[1:]) for e in header.tensors.values()))
