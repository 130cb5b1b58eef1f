"""Where a table's stored columns come from: arrays in memory, or a product complete, partial or not there yet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wbtui.errors import StoreError, WbtuiError
from wbtui.schema import Column, empty
from wbtui.store.keys import ProductSpec
from wbtui.store.products import Product

_OPEN_SHARDS = 4


class ArrayRows:
    """Rows in memory.

    Args:
        arrays: full column name -> [n, …]; columns that are not given are absent rows.
        schema: name -> column.
        definition: the definition as JSON data (widths).
        computed: which rows are there; all by default.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        schema: Mapping[str, Column],
        definition: Mapping[str, Any],
        computed: np.ndarray | None = None,
        n: int | None = None,
    ) -> None:
        lengths = {len(array) for array in arrays.values()}
        if n is not None:
            lengths.add(n)
        if len(lengths) != 1:
            raise StoreError(f"columns of {sorted(lengths)} rows", "one length")
        self.n = lengths.pop()
        self.schema = schema
        self.definition = dict(definition)
        self.computed = np.ones(self.n, dtype=bool) if computed is None else computed.astype(bool)
        self.complete = bool(self.computed.all())
        self._arrays = dict(arrays)

    def column(self, name: str) -> np.ndarray:
        """One column [n, …]."""
        if name not in self._arrays:
            self._arrays[name] = empty(self.schema[name], self.n, self.definition)
        return self._arrays[name]

    def row(self, name: str, row: int) -> Any:
        """One row of one column."""
        return self.column(name)[row]

    def put(self, row: int, columns: Mapping[str, Any]) -> None:
        """Lay a provisional row over the absent one."""
        for name, value in columns.items():
            array = self.column(name)
            if not array.flags.writeable:
                array = self._arrays[name] = array.copy()
            array[row] = value

    def refresh(self) -> bool:
        """Nothing ever lands here."""
        return False


class ProductRows:
    """Rows of a product folder that may still be growing.

    A complete product is mapped. Of a partial one, only the columns that somebody asks for are gathered from the shards
    into memory, and later shards are copied into those alone.

    Args:
        product: ``wbtui.store.products.Product`` (or anything with its reading half).
        rows: rows of the whole product.
        schema: name -> column.
        definition: the definition as JSON data (widths).
    """

    def __init__(self, product: Any, rows: int, schema: Mapping[str, Column], definition: Mapping[str, Any]) -> None:
        self.n = rows
        self.schema = schema
        self.definition = dict(definition)
        self.computed = np.zeros(rows, dtype=bool)
        self.complete = False
        self._product = product
        self._whole: Any = None
        self._arrays: dict[str, np.ndarray] = {}
        self._shards: set[tuple[int, int]] = set()
        self._open: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._put: dict[int, dict[str, Any]] = {}
        self.refresh()

    @classmethod
    def open(cls, cache: Path, spec: ProductSpec, schema: Mapping[str, Column]) -> ProductRows:
        """The rows of a spec's product in a cache."""
        return cls(Product(cache, spec), spec.rows, schema, spec.identity["definition"])

    def refresh(self) -> bool:
        """Look for new shards (one directory listing) or completion; True if rows arrived."""
        if self.complete:
            return False
        if self._product.state == "complete":
            self._map()
            return True
        landed = set(self._product.shards()) - self._shards
        taken = False
        for span in sorted(landed):
            taken |= self._take(span)
        if self._product.state == "complete":  # it was assembled meanwhile
            self._map()
            return True
        return taken

    def _map(self) -> None:
        whole = self._product.columns()
        missing = sorted(set(self.schema) - set(whole.names))
        if missing:
            raise StoreError(f"{self._product.path}: no column {', '.join(missing[:3])}", "the columns of this version")
        for name in self.schema:
            if len(whole[name]) != self.n:
                raise StoreError(f"{self._product.path}: {name} has {len(whole[name])} rows", f"{self.n}")
        self._whole = whole
        self.complete = True
        self.computed = np.ones(self.n, dtype=bool)
        self._arrays.clear()
        self._put.clear()
        self._close_shards()
        self._shards.clear()

    def _take(self, span: tuple[int, int]) -> bool:
        """Count a shard as there and copy it into the columns in memory; a shard that cannot be read is not there."""
        start, stop = span
        if self._arrays:
            shard = self._shard(span)
            if shard is None:
                return False
            for name, array in self._arrays.items():
                array[start:stop] = shard[name]
        self._shards.add(span)
        self.computed = self.computed.copy()  # earlier readers keep what they were given
        self.computed[start:stop] = True
        for row in [row for row in self._put if start <= row < stop]:
            del self._put[row]
        return True

    def _shard(self, span: tuple[int, int]) -> Any:
        """An opened shard, None when it cannot be read (gone by assembly, or damaged: the service removes those)."""
        shard = self._open.pop(span, None)
        if shard is None:
            try:
                shard = self._product.read_shard(*span)
            except (WbtuiError, OSError):
                return None
        self._open[span] = shard
        while len(self._open) > _OPEN_SHARDS:
            self._open.popitem(last=False)[1].close()
        return shard

    def _close_shards(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def column(self, name: str) -> np.ndarray:
        """One column [n, …]; absent rows are NaN, -1 or 0."""
        if self._whole is not None:
            return self._whole[name]
        if name not in self._arrays:
            array = empty(self.schema[name], self.n, self.definition)
            for span in sorted(self._shards):
                shard = self._shard(span)
                if shard is None:
                    if self._product.state == "complete":
                        self._map()
                        return self.column(name)
                    self._shards.discard(span)
                    self.computed = self.computed.copy()
                    self.computed[span[0] : span[1]] = False
                    continue
                array[span[0] : span[1]] = shard[name]
            for row, columns in self._put.items():
                if name in columns:
                    array[row] = columns[name]
            self._arrays[name] = array
        return self._arrays[name]

    def row(self, name: str, row: int) -> Any:
        """One row of one column, without gathering the column."""
        if self._whole is not None:
            return self._whole[name][row]
        if name in self._arrays:
            return self._arrays[name][row]
        if row in self._put and name in self._put[row]:
            return np.asarray(self._put[row][name], dtype=self.schema[name].dtype)
        if self.computed[row]:
            span = next(s for s in self._shards if s[0] <= row < s[1])
            shard = self._shard(span)
            if shard is not None:
                return shard[name][row - span[0]]
            return self.column(name)[row]
        return empty(self.schema[name], 1, self.definition)[0]

    def put(self, row: int, columns: Mapping[str, Any]) -> None:
        """Lay a provisional row over the absent one; its shard replaces it."""
        if self.computed[row]:
            return
        self._put[row] = dict(columns)
        for name, array in self._arrays.items():
            if name in columns:
                array[row] = columns[name]
