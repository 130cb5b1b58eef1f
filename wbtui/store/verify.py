"""Reading the whole cache back: every checksum, every manifest, every name; and removing what is bad."""

from __future__ import annotations

import dataclasses
import stat as _stat
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbtui.errors import StoreError, UsageError
from wbtui.store import io, manifest, places
from wbtui.store.columns import check_header, verify_columns
from wbtui.store.refusals import Damaged, reported

Progress = Callable[[int, int, str], None]
REPAIR = "run `wbtui cache verify --repair`; what it removes is computed again when asked for"


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be."""

    kind: str
    """``bad-shard``, ``bad-columns``, ``bad-manifest``, ``newer``, ``misplaced``, ``leftover-shards``, ``temporary``,
    ``stray``, ``link``, ``unreadable``."""
    path: str
    """Relative to the cache."""
    detail: str
    do: str
    repaired: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


def verify(cache: Path, progress: Progress | None = None, repair: bool = False) -> list[Problem]:
    """Check all products: checksums of shards and columns, manifests, names that do not belong.

    Args:
        cache: the cache folder; an absent one has no problems.
        progress: told (products done, products in all, relative path) before each.
        repair: remove bad shards; a complete product with bad columns becomes absent, a manifest that disagrees with
            sound columns is rewritten, stale temporary files and left-over shards go. Nothing else is touched.

    Returns:
        list[Problem]: in the order found; ``repaired`` says what was mended.

    Raises:
        StoreError: the cache cannot be listed, or (with ``repair``) not written.
    """
    cache = Path(cache)
    problems: list[Problem] = []
    with reported(cache, "repair it" if repair else "read it"):
        folders = list(_walk(cache, problems, repair))
        for done, (relative, folder) in enumerate(folders):
            if progress is not None:
                progress(done, len(folders), relative)
            problems.extend(_Check(cache, relative, folder, repair).run())
        if progress is not None:
            progress(len(folders), len(folders), "")
    return problems


def _walk(cache: Path, problems: list[Problem], repair: bool) -> Iterator[tuple[str, Path]]:
    """Product folders; what else lies on the way becomes a problem."""
    root = cache / places.PRODUCTS
    for depth, folder in _below(root, 3):
        relative = str(folder.relative_to(cache))
        info = io.stat(folder)
        if info is None:
            continue
        if io.is_temporary(folder.name):
            problems.extend(_temporary(relative, folder, repair))
        elif _stat.S_ISLNK(info.st_mode):
            problems.append(_link(relative))
        elif not _stat.S_ISDIR(info.st_mode):
            problems.append(_stray(relative))
        elif depth == 3:
            try:
                yield relative, places.safe_product_path(cache, relative)
            except UsageError:
                problems.append(_stray(relative))
            except StoreError as error:
                problems.append(Problem("link", relative, error.found, error.do))


def _below(folder: Path, depth: int, at: int = 1) -> Iterator[tuple[int, Path]]:
    for name in io.names_in(folder):
        path = folder / name
        yield at, path
        info = io.stat(path)
        if at < depth and info is not None and _stat.S_ISDIR(info.st_mode) and not io.is_temporary(name):
            yield from _below(path, depth, at + 1)


def _stray(relative: str) -> Problem:
    return Problem("stray", relative, "not a name that wbtui makes here", "move it elsewhere or delete it")


def _link(relative: str) -> Problem:
    return Problem("link", relative, "a link inside the cache, not followed", "remove the link")


def _temporary(relative: str, path: Path, repair: bool) -> Iterator[Problem]:
    if io.is_stale(path):
        if repair:
            io.remove(path)
        yield Problem("temporary", relative, "left behind by a process that ended", "run `wbtui cache gc`", repair)


class _Check:
    """One product folder under examination."""

    def __init__(self, cache: Path, relative: str, folder: Path, repair: bool) -> None:
        self.cache, self.relative, self.folder, self.repair = cache, relative, folder, repair
        self.key = relative.rpartition("-")[2]
        self.rows: int | None = None
        self.shard_rows: int | None = None

    def run(self) -> Iterator[Problem]:
        """All problems of this folder."""
        complete = yield from self._manifest_and_columns()
        yield from self._names()
        shards = self.folder / places.SHARDS
        info = io.stat(shards)
        if info is None:
            return
        if _stat.S_ISLNK(info.st_mode):
            yield _link(self._at(shards))
            return
        if complete:
            if self.repair:
                io.remove_tree(shards)
            detail = "shards of a product that is complete"
            yield Problem("leftover-shards", self._at(shards), detail, "run `wbtui cache gc`", self.repair)
            return
        yield from self._shards(shards)

    def _at(self, path: Path) -> str:
        return str(path.relative_to(self.cache))

    def _manifest_and_columns(self) -> Generator[Problem, None, bool]:
        """Problems of both; the generator's value is whether the product is complete and sound."""
        path = self.folder / places.MANIFEST
        try:
            loaded = manifest.load(self.folder)
        except StoreError as error:
            yield Problem("unreadable", self._at(path), error.found, error.do)
            return False
        if loaded.found == "newer":
            yield Problem("newer", self._at(path), f"made by a newer wbtui ({loaded.why})", "upgrade wbtui to use it")
            return False
        if loaded.found == "corrupt":
            do = "ask for the product again: it is rewritten from what is there"
            yield Problem("bad-manifest", self._at(path), loaded.why, do)
        data = loaded.data
        if data and data["key"] != self.key:
            detail = f"the manifest is of product {data['key']}"
            yield Problem("misplaced", self.relative, detail, "undo the renaming, or delete the folder")
            return False
        if data:
            self.rows, self.shard_rows = data["rows"], data["shard_rows"]
        complete = data.get("status") == "complete"
        columns = self.folder / places.COLUMNS
        if not complete and io.stat(columns) is None:
            return False
        return (yield from self._columns(columns, data if complete else None))

    def _columns(self, path: Path, data: dict[str, Any] | None) -> Generator[Problem, None, bool]:
        try:
            if io.stat(path) is None:
                raise Damaged(f"{path}: gone, though the manifest says complete")
            header = verify_columns(path)
            if header.metadata.get("key") != self.key:
                raise Damaged(f"{path}: holds product {header.metadata.get('key')}", f"product {self.key}")
        except Damaged as error:
            gone = self._demote(path) if self.repair else False
            yield Problem("bad-columns", self._at(path), _why(error), REPAIR, gone)
            return False
        except StoreError as error:
            yield Problem("unreadable", self._at(path), error.found, error.do)
            return False
        if data is not None and (data["bytes"], data["sha256"]) != (header.size, header.metadata["sha256"]):
            if self.repair:
                manifest.write(
                    self.folder, {**data, "bytes": header.size, "sha256": header.metadata["sha256"]}, exclusive=False
                )
            detail = "size or SHA-256 differ from the (sound) columns file's"
            yield Problem("bad-manifest", self._at(self.folder / places.MANIFEST), detail, REPAIR, self.repair)
        return data is not None

    def _demote(self, path: Path) -> bool:
        """Bad columns go, and with them the manifest that calls them complete."""

        def bad(file: Path) -> bool:
            try:
                return verify_columns(file).metadata.get("key") != self.key
            except Damaged:
                return True

        io.discard(path, bad)
        if io.stat(path) is not None:  # another process has just written a good one
            return False
        io.unlink(self.folder / places.MANIFEST)
        return True

    def _names(self) -> Iterator[Problem]:
        known = (places.MANIFEST, places.COLUMNS, places.SHARDS, places.PIN)
        for name in io.names_in(self.folder):
            if io.is_temporary(name):
                yield from _temporary(self._at(self.folder / name), self.folder / name, self.repair)
            elif name not in known and not places.is_open_mark(name):
                yield _stray(self._at(self.folder / name))

    def _shards(self, folder: Path) -> Iterator[Problem]:
        for name in io.names_in(folder):
            path = folder / name
            if io.is_temporary(name):
                yield from _temporary(self._at(path), path, self.repair)
                continue
            span = places.shard_range(name)
            if span is None or not self._fits(span):
                yield _stray(self._at(path))
                continue
            try:
                self._shard(path, span)
            except Damaged as error:
                gone = io.discard(path, lambda file, span=span: self._is_bad(file, span)) if self.repair else False  # type: ignore[misc]
                yield Problem("bad-shard", self._at(path), _why(error), REPAIR, gone)
            except StoreError as error:
                if io.stat(path) is not None:  # else it was assembled meanwhile
                    yield Problem("unreadable", self._at(path), error.found, error.do)

    def _fits(self, span: tuple[int, int]) -> bool:
        """Whether the manifest's product has such a shard; anything fits when there is no manifest."""
        if not self.rows or not self.shard_rows:
            return True
        start, stop = span
        return start % self.shard_rows == 0 and start < self.rows and stop == min(start + self.shard_rows, self.rows)

    def _shard(self, path: Path, span: tuple[int, int]) -> None:
        metadata = check_header(path).metadata
        if (metadata.get("key"), metadata.get("range")) != (self.key, f"{span[0]}-{span[1]}"):
            raise Damaged(f"{path}: product {metadata.get('key')}, rows {metadata.get('range')}", "what its name says")
        verify_columns(path)

    def _is_bad(self, path: Path, span: tuple[int, int]) -> bool:
        try:
            self._shard(path, span)
        except Damaged:
            return True
        return False


def _why(error: StoreError) -> str:
    return f"{error.found}; expected {error.expected}" if error.expected else error.found
