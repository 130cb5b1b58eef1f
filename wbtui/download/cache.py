"""The Hub cache on disk, in huggingface_hub's own layout, so that either finds what the other fetched.

``models--org--name/blobs/<etag>`` holds bytes, ``snapshots/<commit>/<file>`` links to them, ``refs/<branch>`` names the
commit. A part of a file lies in ``blobs/<etag>.incomplete``; a lock per blob keeps two downloads apart.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from wbtui.catalog.models import hub_cache_dir
from wbtui.download.hub import RemoteFile, Repository

_CHUNK = 1 << 20


class RepoCache:
    """One repository's place in the cache.

    Args:
        repo: ``org/name``.
    """

    def __init__(self, repo: str) -> None:
        self.folder = hub_cache_dir() / ("models--" + repo.replace("/", "--"))
        self.locks = hub_cache_dir() / ".locks" / self.folder.name

    def blob(self, file: RemoteFile) -> Path:
        """Where the whole file's bytes are kept."""
        return self.folder / "blobs" / file.etag

    def part(self, file: RemoteFile) -> Path:
        """Where they gather."""
        return self.folder / "blobs" / f"{file.etag}.incomplete"

    def have(self, file: RemoteFile) -> int:
        """Bytes of a file that are here: all of them, a part, none."""
        for path in (self.blob(file), self.part(file)):
            with contextlib.suppress(OSError):
                return min(path.stat().st_size, file.size)
        return 0

    def whole(self, file: RemoteFile) -> bool:
        """Whether a file's bytes are all here (they were checked when they came)."""
        try:
            return self.blob(file).stat().st_size == file.size
        except OSError:
            return False

    def link(self, found: Repository, file: RemoteFile) -> Path:
        """Make a file visible in its snapshot.

        Raises:
            OSError: the cache cannot be written.
        """
        place = self.folder / "snapshots" / found.commit / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(self.blob(file), place.parent)
        if os.path.islink(place) and os.readlink(place) == target:
            return place
        new = place.with_name(f".{place.name}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        os.symlink(target, new)
        os.replace(new, place)
        return place

    def refer(self, revision: str, commit: str) -> None:
        """Remember which commit a branch meant; a commit itself needs no reference."""
        if revision == commit:
            return
        place = self.folder / "refs" / revision
        place.parent.mkdir(parents=True, exist_ok=True)
        new = place.with_name(f".{place.name}.{os.getpid()}")
        new.write_text(commit, encoding="utf-8")
        os.replace(new, place)

    @contextlib.contextmanager
    def lock(self, file: RemoteFile) -> Iterator[None]:
        """One download of a blob at a time; the lock is huggingface_hub's.

        Raises:
            OSError: the cache cannot be written.
        """
        self.locks.mkdir(parents=True, exist_ok=True)
        (self.folder / "blobs").mkdir(parents=True, exist_ok=True)
        with open(self.locks / f"{file.etag}.lock", "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


class Digest:
    """A file's checksum as the Hub states it, over bytes as they come.

    Args:
        file: SHA-256 for large files, Git's blob SHA-1 for others.
    """

    def __init__(self, file: RemoteFile) -> None:
        self.want = file.etag
        self._hash = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.size)

    def add(self, data: bytes) -> None:
        """More bytes."""
        self._hash.update(data)

    def add_file(self, path: Path, size: int) -> None:
        """The first ``size`` bytes of a part that is here already."""
        with open(path, "rb") as handle:
            left = size
            while left and (piece := handle.read(min(_CHUNK, left))):
                self.add(piece)
                left -= len(piece)

    def right(self) -> bool:
        """Whether they are the file's."""
        return self._hash.hexdigest() == self.want
