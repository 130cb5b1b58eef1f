"""The service's folder, lock and socket: who may be the daemon, and who may talk to it.

A ``flock`` held for life decides who is the daemon, and the kernel lets go of it however the daemon ends: there is no
stale lock. A socket file means nothing by itself; only the lock's holder may replace it, and it does so by binding a
temporary name and renaming, so that a live socket never disappears.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import sys
from pathlib import Path

from wbtui import paths
from wbtui.errors import ServiceError

MAX_PATH = 100
"""Bytes of a socket's path that every system takes (104 on macOS, 108 on Linux)."""


def folder() -> Path:
    """The runtime folder, ours alone (0700); made if it is not there.

    Raises:
        ServiceError: it belongs to another user, is a link, or cannot be made.
    """
    path = paths.runtime_dir()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise ServiceError(f"{path}: {error.strerror or error}", "a folder for the service's socket", _MOVE) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ServiceError(f"{path} is a link, no folder, or another user's", "a folder of your own", _MOVE)
    if found.st_mode & 0o077:
        path.chmod(0o700)
    return path


_MOVE = "set WBTUI_RUNTIME_DIR to a short path of your own on a local disk"


def socket_path() -> Path:
    """The socket's path, checked for length.

    Raises:
        ServiceError: too long for a socket.
    """
    path = paths.socket_path()
    if len(os.fsencode(path)) > MAX_PATH:
        raise ServiceError(f"{path} is {len(os.fsencode(path))} bytes long", f"at most {MAX_PATH}", _MOVE)
    return path


class Lock:
    """A lock file beside the socket, held by ``flock``.

    Args:
        suffix: ``.lock`` for the daemon's life, ``.start`` while a client starts one.
    """

    def __init__(self, suffix: str = ".lock") -> None:
        self.path = socket_path().with_suffix(suffix)
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Take the lock if no one holds it. A lock on a file that is no longer at the path does not count."""
        if self._fd is not None and self.ours():
            return True
        for _ in range(100):
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                return False
            if _same(os.fstat(fd), self.path):
                self.release()
                self._fd = fd
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                return True
            os.close(fd)
        return False

    def ours(self) -> bool:
        """Whether we hold the lock and its file is still the one at the path."""
        return self._fd is not None and _same(os.fstat(self._fd), self.path)

    def holder(self) -> int | None:
        """The process id that the holder wrote, for messages only."""
        try:
            text = self.path.read_text()
        except (OSError, ValueError):
            return None
        return int(text) if text.strip().isdecimal() else None

    def release(self) -> None:
        """Let go; the file stays, for removing it would let two processes hold two locks."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _same(found: os.stat_result, path: Path) -> bool:
    try:
        there = path.lstat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (there.st_dev, there.st_ino)


class Listener:
    """The daemon's listening socket at its path. Only for the holder of the lock."""

    def __init__(self) -> None:
        self.path = socket_path()
        for old in self.path.parent.glob(f"{self.path.stem}.*.new"):  # of daemons killed between bind and rename
            old.unlink(missing_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}.new")
        if len(os.fsencode(temporary)) > MAX_PATH + 4:
            raise ServiceError(f"{temporary} is too long for a socket", f"at most {MAX_PATH} bytes", _MOVE)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.bind(str(temporary))
            temporary.chmod(0o600)
            self.socket.listen(128)
            self.socket.setblocking(False)
            self._stat = temporary.lstat()
            temporary.rename(self.path)
        except OSError as error:
            self.socket.close()
            temporary.unlink(missing_ok=True)
            raise ServiceError(f"{self.path}: {error.strerror or error}", "a socket for the service", _MOVE) from None

    def in_place(self) -> bool:
        """Whether the file at the path is this socket's."""
        return _same(self._stat, self.path)

    def remove(self) -> None:
        """Remove the file if it is still ours; a daemon that has taken over keeps its own."""
        if self.in_place():
            self.path.unlink(missing_ok=True)


def peer_uid(sock: socket.socket) -> int | None:
    """The user at the other end of a unix socket, by the kernel's word; None where the system cannot say."""
    with contextlib.suppress(OSError, struct.error):
        if hasattr(socket, "SO_PEERCRED"):
            data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", data)[1])
        if sys.platform == "darwin":
            version, uid = struct.unpack_from("=II", sock.getsockopt(0, 1, 76))  # SOL_LOCAL, LOCAL_PEERCRED
            return int(uid) if version == 0 else None
    return None


def is_ours(sock: socket.socket) -> bool:
    """Whether the other end is the same user. Unknown counts as no."""
    return peer_uid(sock) == os.getuid()
