"""Products to test with: rows are a pure function of their number, so every byte on disk has a known value."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from wbtui.errors import StoreError
from wbtui.store import io
from wbtui.store.keys import ProductSpec
from wbtui.store.products import Product

FACTS = {"device": "cpu", "tile": 128, "threads": 1, "seconds": 1.5}


def make_spec(rows: int = 20, shard_rows: int = 8, name: str = "demo", analysis: str = "null", **more) -> ProductSpec:
    """A spec whose key depends on ``more``."""
    return ProductSpec(
        analysis,
        {"analysis": analysis, "method_version": 1, "model": name, "definition": {"dtype": "float32"}, **more},
        rows=rows,
        shard_rows=shard_rows,
        model={"name": name, "path": "/nowhere"},
        sae={"name": "L3"},
        model_slug=f"{name}-00000000",
        sae_slug="L3-11111111",
    )


def rows_of(start: int, stop: int) -> dict[str, np.ndarray]:
    """Columns of rows [start, stop): value = row number, in several dtypes and widths."""
    rows = np.arange(start, stop)
    return {
        "a.wide": (rows[:, None] + np.arange(3) / 8).astype(np.float32),
        "a.ids": (rows[:, None] * 7 + np.arange(5)).astype(np.int32),
        "half": rows.astype(np.float16),
        "big": rows.astype(np.int64) << 33,
        "odd": (rows % 251).astype(np.uint8),
        "yes": rows % 3 == 0,
    }


def run_all(cache: Path, spec: ProductSpec) -> list[tuple[int, int]]:
    """What the service does: begin, compute what is missing, assemble. Returns the ranges computed."""
    product = Product(cache, spec)
    product.begin()
    done = []
    for start, stop in product.missing():
        product.write_shard(start, stop, rows_of(start, stop))
        done.append((start, stop))
    product.assemble(FACTS)
    return done


def columns_bytes(cache: Path, spec: ProductSpec) -> bytes:
    """The finished file's bytes."""
    return (cache / spec.relative / "columns.safetensors").read_bytes()


def files_below(folder: Path) -> list[str]:
    """All files, relative, sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


class Killed(BaseException):
    """The process is dead: no handler of ``Exception`` sees it, and the disk is not touched any more."""


class KillAt:
    """Dies at operation ``k`` (from 0) and at every one after it; counts operations on the way."""

    def __init__(self, k: int | None = None, short: int | None = None) -> None:
        self.k, self.short, self.count = k, short, 0

    def __call__(self, op: str, path: Path) -> int | None:
        if self.k is not None and self.count >= self.k:
            raise Killed
        self.count += 1
        return self.short if op == "write" else None


class FailAt:
    """An ``OSError`` at the ``k``-th operation of a kind, once or from then on."""

    def __init__(self, code: int, k: int, ops: frozenset[str] = frozenset(io.OPS), forever: bool = False) -> None:
        self.code, self.k, self.ops, self.forever, self.count = code, k, ops, forever, 0
        self.hit: tuple[str, Path] | None = None

    def __call__(self, op: str, path: Path) -> None:
        if op not in self.ops:
            return
        now = self.count
        self.count += 1
        if now == self.k or (self.forever and now > self.k):
            self.hit = (op, path)
            raise OSError(self.code, os.strerror(self.code), str(path))


class MeanwhileAt:
    """Runs something else (another process, as it were) just before operation ``k``."""

    def __init__(self, k: int, other: Callable[[], object]) -> None:
        self.k, self.other, self.count, self.busy = k, other, 0, False

    def __call__(self, op: str, path: Path) -> None:
        if self.busy:
            return
        now = self.count
        self.count += 1
        if now == self.k:
            self.busy = True
            try:
                self.other()
            finally:
                self.busy = False


def read_only(op: str, path: Path) -> None:
    """A cache on a read-only file system."""
    if op in io.WRITING:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))


@contextmanager
def faults(fault: io.Fault | None) -> Iterator[None]:
    """Install a fault for the block."""
    io.install(fault)
    try:
        yield
    finally:
        io.install(None)


def refusal(work: Callable[[], object]) -> StoreError | None:
    """The ``StoreError`` of the work, None if it went well; any other exception goes through."""
    try:
        work()
    except StoreError as error:
        return error
    return None


def killed(fault: KillAt, work: Callable[[], object]) -> bool:
    """Whether the work died of the fault."""
    with faults(fault):
        try:
            work()
        except Killed:
            return True
    return False
