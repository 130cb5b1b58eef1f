"""One product folder: absent, partial or complete, and the steps between them.

Crash safety rests on order alone: a shard appears whole or not at all; the columns file is written from verified shards
and renamed; then the manifest is replaced; then the shards go. Whatever instant a process dies at, what is on disk is
one of these states, and every step can be done again. Nothing is locked: two processes write equal bytes to different
temporary names, and the last rename wins.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from wbtui import __version__, schema
from wbtui.errors import StoreError
from wbtui.store import io, manifest, places
from wbtui.store.columns import Columns, check_header, verify_columns
from wbtui.store.keys import ProductSpec
from wbtui.store.refusals import Damaged, reported
from wbtui.store.shards import COMPUTE, Shards
from wbtui.store.writer import write_columns
from wbtui.tensorfile import Header

_TOUCH_SECONDS = 3600.0


class Product:
    """One product of a cache.

    Args:
        cache: the cache folder; need not exist.
        spec: which product.

    Raises:
        UsageError: a spec whose folder names are not well formed.
        StoreError: a link below the cache leads out of it.
    """

    def __init__(self, cache: Path, spec: ProductSpec) -> None:
        self.cache = Path(cache)
        self.spec = spec
        self.key = spec.key
        self.path = places.safe_product_path(self.cache, spec.relative)
        self._shards = Shards(self.path, spec)

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """``absent``, ``partial`` or ``complete``; cheap (a manifest and a listing), writes nothing.

        A product whose columns file is gone or has another size than its manifest says is not complete.

        Raises:
            StoreError: made by a newer wbtui, or the manifest cannot be opened.
        """
        data = manifest.good(self.path, self.key)
        if self._is_complete(data):
            return "complete"
        begun = data is not None and data["status"] == "computing"
        return "partial" if begun or self.shards() or self._columns_named() else "absent"

    def manifest(self) -> dict[str, Any]:
        """The manifest; empty where it is absent or corrupt.

        Raises:
            StoreError: made by a newer wbtui, or it cannot be opened.
        """
        return manifest.good(self.path, self.key) or {}

    def columns(self) -> Columns:
        """The finished columns, mapped. Needs no write permission.

        Raises:
            StoreError: not complete, or damaged.
        """
        data = manifest.good(self.path, self.key)
        if not self._is_complete(data):
            raise StoreError(f"{self.path}: {self.state}", "a complete product", COMPUTE)
        columns = Columns(self.path / places.COLUMNS)
        if columns.metadata.get("key") != self.key:
            columns.close()
            raise Damaged(
                f"{columns.path}: holds product {columns.metadata.get('key')}",
                f"product {self.key}",
                "remove it with `wbtui cache verify --repair`",
            )
        self._touch()
        return columns

    def ranges(self) -> list[tuple[int, int]]:
        """Row ranges of all shards of this product; none for a whole product."""
        return self._shards.ranges()

    def shard_path(self, start: int, stop: int) -> Path:
        """Where the rows [start, stop) lie while the product is partial."""
        return self._shards.path(start, stop)

    def shards(self) -> dict[tuple[int, int], Path]:
        """Shards that are there by name (one folder listing; headers are not read)."""
        with reported(self._shards.folder, "list it"):
            return self._shards.named()

    def read_shard(self, start: int, stop: int) -> Columns:
        """One shard, mapped; its header, size, key and range are checked, its data's hash is not.

        Raises:
            StoreError: not there or damaged.
        """
        columns = Columns(self.shard_path(start, stop))
        try:
            self._shards.check_metadata(columns.path, columns.metadata, start, stop)
        except StoreError:
            columns.close()
            raise
        return columns

    def missing(self) -> list[tuple[int, int]]:
        """Row ranges to compute; ``[(0, 0)]`` for a whole product that is not there.

        A shard with a bad size or header is removed, where that is allowed, and counts as missing.

        Raises:
            StoreError: made by a newer wbtui, or a file that cannot be opened.
        """
        if self._complete_now() or self._columns_plausible():
            return []
        if not self.spec.rows:
            return [(0, 0)]
        with reported(self._shards.folder, "read it"):
            there = self._shards.named()
            return [span for span in self.ranges() if span not in there or not self._shards.trust(span)]

    def has(self, start: int, stop: int) -> bool:
        """Whether these rows are there, in a sound-looking shard or the finished columns: another process may have made
        them since they were found missing. Such a look costs a manifest and a header.

        Raises:
            StoreError: made by a newer wbtui, or a file that cannot be opened.
        """
        if self._complete_now():
            return True
        with reported(self._shards.folder, "read it"):
            return bool(self.spec.rows) and self._shards.is_range(start, stop) and self._shards.trust((start, stop))

    def hold(self) -> AbstractContextManager[None]:
        """While the context lasts, ``gc`` leaves this product alone."""
        return places.held_open(self.path)

    def hold_until_exit(self) -> None:
        """As :meth:`hold`, until this process ends; without effect on a product that is not there yet."""
        if self.path.is_dir():
            places.hold_until_exit(self.path)

    # --- writing ------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the folder and a manifest that says ``computing``; if the columns are there already, finish.

        Idempotent, and safe for two processes: a manifest that is there is kept, a corrupt one is replaced. What dead
        processes left half written in the folder goes.

        Raises:
            StoreError: made by a newer wbtui; the cache cannot be written.
        """
        with reported(self.path, "write to it"):
            data = manifest.good(self.path, self.key)
            if self._is_complete(data):
                return
            if data is None:
                io.make_folders(self.path)
            io.sweep(self.path)
            if manifest.load(self.path).found == "corrupt":
                io.discard(self.path / places.MANIFEST, lambda p: manifest.load_file(p).found == "corrupt")
            if self._columns_named() and self._recover({}):
                return
            demoted = data is not None and data["status"] == "complete"
            if data is None or demoted:
                manifest.write(self.path, manifest.computing(self.spec), exclusive=not demoted)

    def write_shard(
        self,
        start: int,
        stop: int,
        arrays: Mapping[str, np.ndarray],
        metadata: Mapping[str, str] | None = None,
    ) -> Path:
        """Store the rows [start, stop): whole or not at all.

        Args:
            start, stop: a shard's range: ``start`` a multiple of ``shard_rows``.
            arrays: name -> array [stop - start, …].
            metadata: text that depends on the numbers alone (no times: equal rows must give equal bytes).

        Returns:
            Path: the shard, or the columns file when the product is complete already.

        Raises:
            StoreError: arrays that do not fit the range; the cache cannot be written.
        """
        if not self._shards.is_range(start, stop):
            raise StoreError(f"{self.path}: rows {start} to {stop}", f"a shard of {self.spec.shard_rows} rows")
        for name, array in arrays.items():
            if array.ndim == 0 or len(array) != stop - start:
                raise StoreError(f"{self.path}: column {name!r} of shape {array.shape}", f"{stop - start} rows")
        if not arrays:
            raise StoreError(f"{self.path}: a shard without columns", "at least one")
        path = self.shard_path(start, stop)
        whole = {**(metadata or {}), **self._metadata(), "range": f"{start}-{stop}"}
        with reported(path, "write it"):
            for last in (False, True):
                if self._complete_now():
                    return self.path / places.COLUMNS
                try:
                    self._shards.make_folder()
                    write_columns(path, arrays, whole)
                    break
                except FileNotFoundError:  # the folder went meanwhile: assembled or evicted by another process
                    if last:
                        raise
                    self.begin()
        return path

    def write_whole(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None) -> None:
        """Store a product that is not made of rows (token strings), complete at once.

        Args:
            arrays: name -> array of any shape.
            facts: what the manifest records beside the numbers: device, threads, seconds, ….

        Raises:
            StoreError: a product of rows; the cache cannot be written.
        """
        if self.spec.rows:
            raise StoreError(f"{self.path}: {self.spec.rows} rows", "a product without rows")
        self.begin()
        if self.state == "complete":
            return
        path = self.path / places.COLUMNS
        with reported(path, "write it"):
            write_columns(path, arrays, self._metadata())
            self._finish(dict(facts or {}), check_header(path))

    def assemble(self, facts: Mapping[str, Any] | None = None) -> None:
        """All shards into ``columns.safetensors``, manifest complete, shards removed. Idempotent.

        Every shard's checksum is verified on the very bytes that are copied.

        Args:
            facts: what the manifest records beside the numbers: device, dtype, tile, threads, seconds, ….

        Raises:
            ShardsMissing: shards are missing or were found damaged (and removed): compute its ``ranges``.
            StoreError: the cache cannot be written.
        """
        self.begin()
        with reported(self.path, "assemble it"):
            if not self._complete_now():
                if not self.spec.rows:
                    raise StoreError(f"{self.path}: nothing to assemble", "a product of rows", COMPUTE)
                if self._shards.join(self._metadata(), self._complete_now):
                    self._recover(dict(facts or {}), verified=True)
            if not self._complete_now():
                raise StoreError(
                    f"{self.path / places.COLUMNS}: removed or changed while it was made",
                    "a cache left in peace",
                    COMPUTE,
                )
            self._shards.clear()
            io.sweep(self.path)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _metadata(self) -> dict[str, str]:
        return {
            "analysis": self.spec.analysis,
            "key": self.key,
            "rows": str(self.spec.rows),
            "wbtui_version": __version__,
        }

    def _columns_named(self) -> bool:
        with reported(self.path, "list it"):
            return io.stat(self.path / places.COLUMNS) is not None

    def _is_complete(self, data: dict[str, Any] | None) -> bool:
        if data is None or data["status"] != "complete":
            return False
        with reported(self.path, "list it"):
            info = io.stat(self.path / places.COLUMNS)
        return info is not None and info.st_size == data["bytes"]

    def _complete_now(self) -> bool:
        return self._is_complete(manifest.good(self.path, self.key))

    def _columns_plausible(self) -> bool:
        """Whether the columns file stands though no manifest says so (a crash between the two)."""
        if not self._columns_named():
            return False
        try:
            return check_header(self.path / places.COLUMNS).metadata.get("key") == self.key
        except Damaged:
            return False

    def _recover(self, facts: dict[str, Any], verified: bool = False) -> bool:
        """Finish a product whose columns file is there; a bad one is removed. False if there is none then."""
        path = self.path / places.COLUMNS

        def bad(file: Path) -> bool:
            try:
                header = check_header(file) if verified else verify_columns(file)
            except Damaged:
                return True
            return header.metadata.get("key") != self.key

        if bad(path):
            io.discard(path, bad)
            if not self._columns_named():
                return False
        self._finish(facts, check_header(path))
        return True

    def _finish(self, facts: dict[str, Any], header: Header) -> None:
        """Replace the manifest by the complete one, unless another process has done so."""
        begun = manifest.good(self.path, self.key)
        if self._is_complete(begun):
            return
        with Columns(self.path / places.COLUMNS) as columns:
            bad = _nonfinite(columns, self.spec)
        data = manifest.complete(
            begun or {},
            self.spec,
            facts=facts,
            sha256=header.metadata["sha256"],
            size=header.size,
            nonfinite=[int(row) for row in bad[:100]],
            n_nonfinite=len(bad),
        )
        manifest.write(self.path, data, exclusive=False)

    def _touch(self) -> None:
        """Remember the use of a complete product for ``gc``: the manifest's time, at most once an hour, if allowed."""
        path = self.path / places.MANIFEST
        with contextlib.suppress(OSError):
            info = io.stat(path)
            if info is not None and time.time() - info.st_mtime > _TOUCH_SECONDS:
                io.touch(path)


def _nonfinite(columns: Columns, spec: ProductSpec) -> np.ndarray:
    """Rows whose weights were not finite: by the flags of a ``tokens`` product, else rows without any finite float."""
    if not spec.rows:
        return np.empty(0, np.int64)
    if spec.analysis == "tokens" and "flags" in columns:
        return np.flatnonzero(columns["flags"] & (schema.FLAG_BAD_DECODER | schema.FLAG_BAD_ENCODER))
    floats = [name for name in columns.names if columns[name].dtype.kind == "f" and columns[name].size]
    bad = np.full(spec.rows, bool(floats))
    for name in floats:
        if not bad.any():
            break
        finite = np.isfinite(columns[name][bad])
        bad[bad] = ~finite.reshape(len(finite), -1).any(axis=1)
    return np.flatnonzero(bad)
