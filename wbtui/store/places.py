"""Where things lie below a cache, and the check that a path given by somebody else stays there."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from wbtui.errors import StoreError, UsageError
from wbtui.store import io

PRODUCTS = "products"
FINGERPRINTS = "fingerprints"
LENGTHS = "lengths"
"""Row lengths of dictionaries, a small file for each that was asked about."""
LENGTHS_OF = "files"
"""What such a file names the files it is about by, as :func:`wbtui.store.io.stamps` had them."""
MANIFEST = "manifest.json"
COLUMNS = "columns.safetensors"
SHARDS = "shards"
PIN = ".pin"
_OPEN = re.compile(r"open-([A-Za-z0-9_.]+)-(\d+)-[0-9a-f]+")
_OPEN_SECONDS = 86_400.0
"""Another host's mark of an open product holds for a day: nobody here can ask whether its process lives."""

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_PRODUCT = re.compile(r"[a-z][a-z0-9_]{0,31}-[0-9a-f]{16}")
_SHARD = re.compile(r"(\d{8,})-(\d{8,})\.safetensors")


def safe_product_path(cache: Path, relative: str) -> Path:
    """The folder of a product named by a client, a manifest or a spec.

    Args:
        cache: the cache folder (may itself be a link).
        relative: ``products/<model>/<sae>/<analysis>-<key>``.

    Raises:
        UsageError: not of that form.
        StoreError: a link below the cache leads out of it.
    """
    parts = relative.split("/")
    formed = (
        len(parts) == 4
        and parts[0] == PRODUCTS
        and _PART.fullmatch(parts[1])
        and _PART.fullmatch(parts[2])
        and _PRODUCT.fullmatch(parts[3])
    )
    if not formed:
        raise UsageError(f"product path {relative!r}", "products/<model>/<sae>/<analysis>-<16 hex digits>")
    path = Path(cache, *parts)
    root = os.path.realpath(cache)
    real = os.path.realpath(path)
    if real != os.path.join(root, *parts):
        raise StoreError(f"{path}: leads to {real} by a link", f"a folder below {root}", "remove the link")
    return path


def shard_name(start: int, stop: int) -> str:
    """File name of the rows [start, stop)."""
    return f"{start:08d}-{stop:08d}.safetensors"


def shard_range(name: str) -> tuple[int, int] | None:
    """The rows that a file name promises; None for other files."""
    found = _SHARD.fullmatch(name)
    if found is None or shard_name(int(found[1]), int(found[2])) != name:
        return None
    return int(found[1]), int(found[2])


@contextlib.contextmanager
def held_open(folder: Path) -> Iterator[None]:
    """Mark a product as in use, so that ``gc`` on any host leaves it; without effect where nothing can be written."""
    mark = folder / f"open-{io.host_tag()}-{os.getpid()}-{os.urandom(4).hex()}"
    with contextlib.suppress(OSError):
        os.close(io.open_new(mark))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            io.unlink(mark)


_held = contextlib.ExitStack()
_held_folders: set[Path] = set()
atexit.register(_held.close)


def hold_until_exit(folder: Path) -> None:
    """Mark a product as in use for as long as this process lives; once, however often it is asked."""
    if folder not in _held_folders:
        _held_folders.add(folder)
        _held.enter_context(held_open(folder))


def open_marks(folder: Path, now: float) -> tuple[list[Path], list[Path]]:
    """(marks of processes that may still read, marks left behind)."""
    live: list[Path] = []
    dead: list[Path] = []
    for name in io.names_in(folder):
        found = _OPEN.fullmatch(name)
        if found is None:
            continue
        if found[1] == io.host_tag():
            lives = io.alive(int(found[2]))
        else:
            info = io.stat(folder / name)
            lives = info is not None and now - info.st_mtime < _OPEN_SECONDS
        (live if lives else dead).append(folder / name)
    return live, dead


def is_open_mark(name: str) -> bool:
    """Whether :func:`held_open` made this name."""
    return _OPEN.fullmatch(name) is not None
