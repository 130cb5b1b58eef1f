"""Every touch of the disk by the store goes through this module, so that tests can make any of them fail.

A fault is a function ``(op, path) -> None | int`` called before each operation. It may raise an ``OSError`` (a full
disk, a read-only or failing one), end the process (a kill point), or return, for ``write``, the most bytes that this
one system call may take (a short write). The operations are those of ``OPS``. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import mmap as _mmap
import os
import re
import socket
import stat as _stat
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

OPS = (
    "open", "create", "read", "write", "fsync", "fsync_dir", "rename", "link", "unlink", "rmdir", "mkdir",
    "listdir", "stat", "mmap", "utime",
)  # fmt: skip
WRITING = frozenset({"create", "write", "fsync", "fsync_dir", "rename", "link", "unlink", "rmdir", "mkdir", "utime"})
"""The operations that a read-only cache refuses."""

Fault = Callable[[str, Path], "int | None"]
CHUNK = 4 << 20
STALE_SECONDS = 3600.0
"""A temporary file that nobody wrote to for this long is stale, whoever made it."""

_fault: Fault | None = None
_serial = itertools.count()
_TEMPORARY = re.compile(r"\.(tmp|bad|gone)-([A-Za-z0-9_.]+)-(\d+)-([0-9a-f]+)-")


def install(fault: Fault | None) -> None:
    """Make ``fault`` see every operation from now on; ``None`` takes it away."""
    global _fault
    _fault = fault


def note(op: str, path: Path) -> None:
    """Let the fault see an operation that other code does (a header read by :mod:`wbtui.tensorfile`)."""
    _hit(op, path)


def _hit(op: str, path: Path | str) -> int | None:
    return _fault(op, Path(path)) if _fault is not None else None


# --- single operations ------------------------------------------------------------------------------------------------


def open_read(path: Path) -> int:
    """A descriptor for reading a regular file; a link as the last part of the path is refused."""
    _hit("open", path)
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not _stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return handle


def open_new(path: Path) -> int:
    """A descriptor for reading and writing a file that is not there yet."""
    _hit("create", path)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)


def read_at(handle: int, path: Path, begin: int, size: int) -> bytes:
    """``size`` bytes from ``begin``; fewer only at the end of the file."""
    parts = []
    while size > 0:
        _hit("read", path)
        part = os.pread(handle, min(size, 1 << 30), begin)
        if not part:
            break
        parts.append(part)
        begin += len(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_at(handle: int, path: Path, begin: int, data: memoryview | bytes) -> None:
    """All of ``data`` at ``begin``; short writes are continued."""
    left = memoryview(data).cast("B") if len(data) else memoryview(b"")
    while len(left):
        most = _hit("write", path)
        size = min(len(left), CHUNK if most is None else max(1, most))
        done = os.pwrite(handle, left[:size], begin)
        begin += done
        left = left[done:]


def fsync(handle: int, path: Path) -> None:
    """A file's bytes are on the disk after this."""
    _hit("fsync", path)
    os.fsync(handle)


def fsync_dir(folder: Path) -> None:
    """A folder's names are on the disk after this; file systems that cannot sync a folder are believed."""
    _hit("fsync_dir", folder)
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):
            raise
    finally:
        os.close(handle)


def rename(old: Path, new: Path) -> None:
    """Atomic; replaces ``new``."""
    _hit("rename", new)
    os.replace(old, new)


def link(old: Path, new: Path) -> None:
    """A second name; fails with ``FileExistsError`` where ``new`` is there."""
    _hit("link", new)
    os.link(old, new, follow_symlinks=False)


def unlink(path: Path) -> None:
    """Remove a file; one that is gone already is well."""
    _hit("unlink", path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def rmdir(path: Path) -> bool:
    """Remove a folder if it is empty."""
    _hit("rmdir", path)
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            return False
        raise
    return True


def make_folders(folder: Path) -> None:
    """A folder and its parents, each one's name on the disk before its child is made."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    _hit("mkdir", folder)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    fsync_dir(folder.parent)


def names_in(folder: Path) -> list[str]:
    """Sorted names in a folder; none when there is no such folder, or a link in its place."""
    _hit("listdir", folder)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise
    try:
        return sorted(os.listdir(handle))
    finally:
        os.close(handle)


def stat(path: Path) -> os.stat_result | None:
    """``lstat``, or None when there is nothing."""
    _hit("stat", path)
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def map_whole(handle: int, path: Path, size: int) -> _mmap.mmap:
    """The first ``size`` bytes of a file, read-only. The caller has checked that the file is that long."""
    _hit("mmap", path)
    return _mmap.mmap(handle, size, access=_mmap.ACCESS_READ)


def touch(path: Path) -> None:
    """Set a file's times to now."""
    _hit("utime", path)
    os.utime(path)


# --- whole steps ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def host_tag() -> str:
    """This host as it stands in temporary names; boot and PID namespace are in it, for containers share host names."""
    name = re.sub(r"[^A-Za-z0-9.]+", "_", socket.gethostname().split(".")[0])[:32] or "host"
    seed = []
    for read in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text(), lambda: os.readlink("/proc/self/ns/pid")):
        with contextlib.suppress(OSError):
            seed.append(read().strip())
    return f"{name}.{hashlib.sha256('|'.join(seed).encode()).hexdigest()[:6]}"


def own_name(path: Path, kind: str = "tmp") -> Path:
    """A name beside ``path`` that no other process, host or call uses."""
    return path.with_name(f".{kind}-{host_tag()}-{os.getpid()}-{next(_serial):x}{os.urandom(4).hex()}-{path.name}")


def stamps(paths: Iterable[str | Path]) -> list[list[str | int]]:
    """What tells files as they stand from what may lie there later: real path, bytes, time of change, inode; by path.

    Raises:
        OSError: one is not there.
    """
    files = sorted(os.path.realpath(path) for path in paths)
    return [[path, (found := os.stat(path)).st_size, found.st_mtime_ns, found.st_ino] for path in files]


def is_temporary(name: str) -> bool:
    """Whether :func:`own_name` made this name."""
    return _TEMPORARY.match(name) is not None


def is_stale(path: Path, now: float | None = None) -> bool:
    """Whether a temporary file or folder was left behind: its process is gone (this host), or it is an hour old."""
    found = _TEMPORARY.match(path.name)
    info = stat(path)
    if found is None or info is None:
        return False
    if found[2] == host_tag() and not alive(int(found[3])):
        return True
    return (time.time() if now is None else now) - info.st_mtime > STALE_SECONDS


def alive(pid: int) -> bool:
    """Whether a process of this host runs; one that was killed and that its parent has not yet buried does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    with contextlib.suppress(OSError, IndexError):  # no /proc: believed to run
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    return True


@contextlib.contextmanager
def replacing(path: Path, *, exclusive: bool = False) -> Iterator[tuple[int, Path]]:
    """Write a file whole or not at all.

    Yields the descriptor and name of a temporary file in the same folder. When the block ends it is synced, renamed to
    ``path`` and the folder synced; when the block fails it is removed.

    Args:
        path: the final name.
        exclusive: leave a ``path`` that is there already (where the file system has no hard links, replace it).

    Raises:
        OSError: as the system says; the final name is then as before, or complete.
    """
    temporary = own_name(path)
    handle = open_new(temporary)
    try:
        try:
            yield handle, temporary
            fsync(handle, temporary)
        finally:
            os.close(handle)
        if not exclusive or not _linked(temporary, path):
            rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unlink(temporary)
        raise
    fsync_dir(path.parent)


def _linked(temporary: Path, path: Path) -> bool:
    try:
        link(temporary, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV):
            return False
        raise
    unlink(temporary)
    return True


def write_bytes(path: Path, data: bytes, *, exclusive: bool = False) -> None:
    """A small file, whole or not at all (see :func:`replacing`)."""
    with replacing(path, exclusive=exclusive) as (handle, temporary):
        write_at(handle, temporary, 0, data)


def read_bytes(path: Path, limit: int = 64 << 20) -> bytes:
    """A small file.

    Raises:
        OSError: not there, not a regular file, or larger than ``limit`` bytes.
    """
    handle = open_read(path)
    try:
        size = os.fstat(handle).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"{size} bytes, more than {limit}", str(path))
        return read_at(handle, path, 0, size)
    finally:
        os.close(handle)


def discard(path: Path, still_bad: Callable[[Path], bool]) -> bool:
    """Remove a bad file.

    It is renamed away first and looked at again, for another process may just have replaced it by a good one.

    Returns:
        bool: True when a bad file is gone.
    """
    away = own_name(path, "bad")
    try:
        rename(path, away)
    except FileNotFoundError:
        return False
    if still_bad(away):
        unlink(away)
        return True
    if not _linked(away, path):
        rename(away, path)
    return False


def remove_tree(folder: Path) -> None:
    """A folder and all in it; renamed away first, so that nobody meets half of it. A link goes, not what it names."""
    away = folder
    if not is_temporary(folder.name):
        away = own_name(folder, "gone")
        try:
            rename(folder, away)
        except FileNotFoundError:
            return
    info = stat(away)
    if info is not None and not _stat.S_ISDIR(info.st_mode):
        unlink(away)
        return
    for _ in range(3):  # a writer that had opened the folder before may still put a temporary file there
        _empty(away)
        if rmdir(away):
            break


def remove(path: Path) -> None:
    """A file, a link or a folder with all in it; one that is gone already is well."""
    info = stat(path)
    if info is not None and _stat.S_ISDIR(info.st_mode):
        remove_tree(path)
    else:
        unlink(path)


def sweep(folder: Path) -> None:
    """Remove what processes that have ended left half written in a folder (see :func:`is_stale`)."""
    for name in names_in(folder):
        if is_temporary(name) and is_stale(folder / name):
            remove(folder / name)


def _empty(folder: Path) -> None:
    for name in names_in(folder):
        info = stat(folder / name)
        if info is not None and _stat.S_ISDIR(info.st_mode):
            _empty(folder / name)
            rmdir(folder / name)
        else:
            unlink(folder / name)
