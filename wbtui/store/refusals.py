"""What the user reads when the disk says no. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from wbtui.errors import StoreError


class Damaged(StoreError):
    """A file of the cache whose bytes are not what was written, or that its disk cannot read back."""


class ShardsMissing(StoreError):
    """A product that cannot be assembled yet; ``ranges`` are the row ranges to compute."""

    def __init__(self, found: str, expected: str = "", do: str = "", ranges: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__(found, expected, do)
        self.ranges = list(ranges)


def refused(path: Path, doing: str, error: OSError) -> StoreError:
    """A ``StoreError`` that names the place, what was expected and what to do.

    Args:
        path: the place.
        doing: what was tried, as in "cannot write it".
        error: what the system said.
    """
    move = "set WBTUI_CACHE_DIR to another place"
    code = error.errno
    if code in (errno.ENOSPC, errno.EDQUOT):
        try:
            free = f" ({shutil.disk_usage(_existing(path)).free / 1e6:.0f} MB free)"
        except OSError:
            free = ""
        what = "the quota is used up" if code == errno.EDQUOT else f"the disk is full{free}"
        return StoreError(
            f"{path}: cannot {doing}, {what}",
            "free space for the cache",
            f"run `wbtui cache gc --max-size SIZE`, free space, or {move}",
        )
    if code in (errno.EROFS, errno.EACCES, errno.EPERM):
        what = "the file system is read-only" if code == errno.EROFS else "permission denied"
        need = "read" if doing.startswith(("read", "open", "list", "map")) else "write"
        return StoreError(
            f"{path}: cannot {doing}, {what}", f"a cache that you may {need}", f"change its permissions, or {move}"
        )
    if code == errno.EIO:
        return StoreError(
            f"{path}: cannot {doing}, the disk reports an input/output error",
            "a sound disk",
            f"check the disk, or {move}",
        )
    if code == errno.ENOENT:
        return StoreError(
            f"{path}: cannot {doing}, it is not there", "a file of the cache", "compute the product again"
        )
    return StoreError(f"{path}: cannot {doing} ({error.strerror or error})", "a usable cache folder", move)


@contextlib.contextmanager
def reported(path: Path, doing: str) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a ``StoreError`` (see :func:`refused`)."""
    try:
        yield
    except OSError as error:
        raise refused(path, doing, error) from error


@contextlib.contextmanager
def reading(path: Path, doing: str = "read it") -> Iterator[None]:
    """As :func:`reported`, but bytes that the disk cannot give back are damage: the file may be removed and made again.

    Any other refusal (no permission, too many open files) says nothing about the file.
    """
    try:
        yield
    except OSError as error:
        refusal = refused(path, doing, error)
        if error.errno == errno.EIO:
            raise Damaged(refusal.found, refusal.expected, refusal.do) from error
        raise refusal from error


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
