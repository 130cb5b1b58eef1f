"""The cache as a whole: what is in it, how big it is, what may go. Every result is plain data (``to_json``)."""

from __future__ import annotations

import dataclasses
import json
import shutil
import stat as _stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wbtui.errors import StoreError, UsageError, WbtuiError
from wbtui.store import io, manifest, places
from wbtui.store.places import safe_product_path
from wbtui.store.refusals import reported
from wbtui.store.verify import Problem, verify
from wbtui.tensorfile import read_header

__all__ = [
    "DiskUsage",
    "GcReport",
    "Problem",
    "ProductEntry",
    "disk_usage",
    "gc",
    "list_products",
    "pin",
    "remove",
    "safe_product_path",
    "verify",
]


@dataclass(frozen=True)
class ProductEntry:
    """One product folder as it lies there."""

    relative: str
    analysis: str
    key: str
    model: str
    sae: str | None
    model_slug: str
    sae_slug: str
    state: str
    """``complete``, ``partial``, ``damaged`` (manifest or columns) or ``newer`` (made by a newer wbtui)."""
    rows: int
    rows_done: int
    bytes: int
    created: str | None
    finished: str | None
    used: float
    """Last use in seconds since 1970: the manifest's time when complete, the newest file's otherwise."""
    device: str | None
    seconds: float | None
    wbtui_version: str | None
    pinned: bool
    open: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class DiskUsage:
    """Bytes in the cache; the three groupings each sum to ``products``."""

    total: int
    products: int
    by_model: dict[str, int]
    by_sae: dict[str, int]
    """``<model>/<sae>`` -> bytes; ``_model`` holds what belongs to no SAE."""
    by_analysis: dict[str, int]
    temporaries: int
    fingerprints: int
    lengths: int
    """Row lengths that questions took."""
    free: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


@dataclass
class GcReport:
    """What ``gc`` removed, or would remove."""

    removed: list[str] = field(default_factory=list)
    removed_bytes: int = 0
    temporaries: int = 0
    temporary_bytes: int = 0
    kept_bytes: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    """Products that stayed though room was asked for, and why."""
    over: int = 0
    """Bytes still above the limit."""
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


def product_folders(cache: Path) -> Iterator[tuple[str, Path]]:
    """(relative path, folder) of everything that is named and placed like a product; links are not followed."""
    root = Path(cache) / places.PRODUCTS
    for model in io.names_in(root):
        for sae in _folders_in(root / model):
            for name in _folders_in(root / model / sae):
                relative = f"{places.PRODUCTS}/{model}/{sae}/{name}"
                try:
                    yield relative, safe_product_path(cache, relative)
                except (UsageError, StoreError):
                    continue


def list_products(cache: Path) -> list[ProductEntry]:
    """All products, by path. An empty or absent cache has none.

    Raises:
        StoreError: the cache cannot be read.
    """
    now = time.time()
    with reported(Path(cache), "list it"):
        entries = (_entry(relative, folder, now) for relative, folder in product_folders(cache))
        return [entry for entry in entries if entry is not None]


def disk_usage(cache: Path) -> DiskUsage:
    """Bytes by model, by SAE, by analysis.

    Raises:
        StoreError: the cache cannot be read.
    """
    by_model: dict[str, int] = {}
    by_sae: dict[str, int] = {}
    by_analysis: dict[str, int] = {}
    cache = Path(cache)
    for entry in list_products(cache):
        for group, name in (
            (by_model, entry.model_slug),
            (by_sae, f"{entry.model_slug}/{entry.sae_slug}"),
            (by_analysis, entry.analysis),
        ):
            group[name] = group.get(name, 0) + entry.bytes
    with reported(cache, "list it"):
        products = sum(by_model.values())
        temporaries = sum(_tree(path)[0] for path in _temporaries(cache))
        fingerprints = _tree(cache / places.FINGERPRINTS)[0]
        lengths = _tree(cache / places.LENGTHS)[0]
        free = shutil.disk_usage(next(p for p in (cache, *cache.absolute().parents) if p.exists())).free
        total = _tree(cache)[0]
    return DiskUsage(total, products, by_model, by_sae, by_analysis, temporaries, fingerprints, lengths, free)


def pin(cache: Path, relative: str, pinned: bool = True) -> None:
    """Keep a product from ``gc``, or let it go again.

    Raises:
        UsageError: not a product's path.
        StoreError: no such product; the cache cannot be written.
    """
    folder = _existing_product(cache, relative)
    with reported(folder, "write to it"):
        if not pinned:
            io.unlink(folder / places.PIN)
        elif io.stat(folder / places.PIN) is None:
            io.write_bytes(folder / places.PIN, b"")


def remove(cache: Path, relative: str) -> int:
    """Remove one product, whatever its state; returns the bytes freed.

    Raises:
        UsageError: not a product's path.
        StoreError: no such product, or it is pinned; the cache cannot be written.
    """
    folder = _existing_product(cache, relative)
    with reported(folder, "remove it"):
        if io.stat(folder / places.PIN) is not None:
            raise StoreError(f"{folder}: pinned", "a product that is not pinned", "unpin it first")
        size = _tree(folder)[0]
        _remove(folder)
        return size


def gc(cache: Path, max_bytes: int | None = None, *, dry_run: bool = False, now: float | None = None) -> GcReport:
    """Collect what is left over and, if ``max_bytes`` is given, the products used longest ago.

    Left over are temporary files of dead processes or older than an hour, marks of dead readers, shards of complete
    products, and row lengths of files that are gone or others now.
    Never evicted: what is pinned, open, made by a newer wbtui, or partial and written to in the last hour.

    Args:
        cache: the cache folder.
        max_bytes: products may take this much; None evicts nothing.
        dry_run: only say what would go.
        now: seconds since 1970, for tests.

    Raises:
        StoreError: the cache cannot be read or written.
    """
    cache = Path(cache)
    now = time.time() if now is None else now
    report = GcReport(dry_run=dry_run)
    with reported(cache, "clean it"):
        for path in [*_left_over(cache, now)]:
            report.temporaries += 1
            report.temporary_bytes += _tree(path)[0]
            if not dry_run:
                io.remove(path)
        entries = list_products(cache)
        report.kept_bytes = sum(entry.bytes for entry in entries)
        if dry_run:  # the entries still hold what would have gone
            report.kept_bytes -= sum(
                _tree(path)[0] for path in _left_over(cache, now) if _in_product(cache, path) is not None
            )
        if max_bytes is None:
            return report
        for entry in sorted(entries, key=lambda e: (e.used, e.relative)):
            if report.kept_bytes <= max_bytes:
                break
            folder = safe_product_path(cache, entry.relative)
            again = _entry(entry.relative, folder, now)  # it may have been opened since it was listed
            if again is None:
                report.kept_bytes -= entry.bytes
                continue
            why = _kept_because(again, now)
            if why:
                report.kept[entry.relative] = why
                continue
            if not dry_run:
                _remove(folder)
            report.removed.append(entry.relative)
            report.removed_bytes += entry.bytes
            report.kept_bytes -= entry.bytes
    report.over = max(0, report.kept_bytes - max_bytes)
    return report


# --- inside -----------------------------------------------------------------------------------------------------------


def _entry(relative: str, folder: Path, now: float) -> ProductEntry | None:
    """A folder as an entry; None when it is gone or holds nothing of a product."""
    size, newest = _tree(folder)
    try:
        loaded = manifest.load(folder)
    except StoreError as error:
        loaded = manifest.Loaded("corrupt", {}, error.found)
    data = loaded.data
    columns = io.stat(folder / places.COLUMNS)
    spans = {span for name in io.names_in(folder / places.SHARDS) if (span := places.shard_range(name)) is not None}
    if loaded.found == "absent" and columns is None and not spans:
        return None
    state = {"newer": "newer", "corrupt": "damaged", "absent": "partial"}.get(loaded.found, "partial")
    if data.get("status") == "complete":
        state = "complete" if columns is not None and columns.st_size == data["bytes"] else "damaged"
    rows = int(data.get("rows", 0))
    done = rows if state == "complete" else sum(stop - start for start, stop in spans)
    _, model_slug, sae_slug, name = relative.split("/")
    analysis, _, key = name.rpartition("-")
    spec = data.get("spec", {})
    touched = io.stat(folder / places.MANIFEST)
    return ProductEntry(
        relative=relative,
        analysis=analysis,
        key=key,
        model=str((spec.get("model") or {}).get("name", model_slug)),
        sae=(spec.get("sae") or {}).get("name"),
        model_slug=model_slug,
        sae_slug=sae_slug,
        state=state,
        rows=rows,
        rows_done=min(done, rows) if rows else 0,
        bytes=size,
        created=data.get("created"),
        finished=data.get("finished"),
        used=touched.st_mtime if state == "complete" and touched is not None else newest,
        device=data.get("device"),
        seconds=data.get("seconds"),
        wbtui_version=data.get("wbtui_version"),
        pinned=io.stat(folder / places.PIN) is not None,
        open=bool(places.open_marks(folder, now)[0]),
    )


def _kept_because(entry: ProductEntry, now: float) -> str:
    if entry.pinned:
        return "pinned"
    if entry.open:
        return "open"
    if entry.state == "newer":
        return "made by a newer wbtui"
    if entry.state != "complete" and now - entry.used < io.STALE_SECONDS:
        return "being computed"
    return ""


def _folders_in(folder: Path) -> list[str]:
    """Names of real folders that are not temporary."""
    info = io.stat(folder)
    if info is None or not _stat.S_ISDIR(info.st_mode):
        return []
    return [name for name in io.names_in(folder) if not io.is_temporary(name)]


def _files_in(folder: Path) -> list[str]:
    """Names of real files that are not temporary, in a real folder."""
    info = io.stat(folder)
    if info is None or not _stat.S_ISDIR(info.st_mode):
        return []
    found = ((name, io.stat(folder / name)) for name in io.names_in(folder) if not io.is_temporary(name))
    return [name for name, each in found if each is not None and _stat.S_ISREG(each.st_mode)]


def _tree(path: Path) -> tuple[int, float]:
    """(bytes of all files, time of the newest file) below a path; links count as nothing and are not followed."""
    info = io.stat(path)
    if info is None:
        return 0, 0.0
    if not _stat.S_ISDIR(info.st_mode):
        return (info.st_size if _stat.S_ISREG(info.st_mode) else 0), info.st_mtime
    size, newest = 0, 0.0
    for name in io.names_in(path):
        more, when = _tree(path / name)
        size, newest = size + more, max(newest, when)
    return size, newest or info.st_mtime


def _temporaries(cache: Path) -> list[Path]:
    """Every temporary file and folder of the store's own making, at the depths where it makes them."""
    products = cache / places.PRODUCTS
    folders = [cache / places.FINGERPRINTS, cache / places.LENGTHS]
    for model in _folders_in(products):
        for sae in _folders_in(products / model):
            folders.append(products / model / sae)
            for name in _folders_in(products / model / sae):
                folder = products / model / sae / name
                folders.extend((folder, folder / places.SHARDS))
    return [folder / name for folder in folders for name in io.names_in(folder) if io.is_temporary(name)]


def _left_over(cache: Path, now: float) -> list[Path]:
    out = [path for path in _temporaries(cache) if io.is_stale(path, now)]
    out.extend(_ownerless_lengths(cache))
    for _, folder in product_folders(cache):
        out.extend(places.open_marks(folder, now)[1])
        shards = folder / places.SHARDS
        if io.stat(shards) is not None and _is_complete(folder):
            out = [path for path in out if shards not in path.parents]  # they go with their folder
            out.append(shards)
    return out


def _ownerless_lengths(cache: Path) -> list[Path]:
    """Row lengths of files that are gone or others now: nobody will ask for them by this name again."""
    out = []
    folder = cache / places.LENGTHS
    for name in _files_in(folder):
        try:
            kept = json.loads(read_header(folder / name).metadata[places.LENGTHS_OF])
            if io.stamps(path for path, *_ in kept) == kept:
                continue
        except (WbtuiError, OSError, KeyError, ValueError, TypeError):
            pass  # damaged, or of a file that is not there
        out.append(folder / name)
    return out


def _is_complete(folder: Path) -> bool:
    try:
        data = manifest.load(folder).data
    except StoreError:
        return False
    columns = io.stat(folder / places.COLUMNS)
    return data.get("status") == "complete" and columns is not None and columns.st_size == data["bytes"]


def _in_product(cache: Path, path: Path) -> str | None:
    """The product that a left-over path is inside of, None for one beside products."""
    parts = path.relative_to(cache).parts
    return "/".join(parts[:4]) if len(parts) > 4 else None


def _remove(folder: Path) -> None:
    """A product goes, and its SAE's and model's folders if they are empty then."""
    io.remove_tree(folder)
    if io.rmdir(folder.parent):
        io.rmdir(folder.parent.parent)


def _existing_product(cache: Path, relative: str) -> Path:
    folder = safe_product_path(cache, relative)
    with reported(folder, "read it"):
        info = io.stat(folder)
    if info is None or not _stat.S_ISDIR(info.st_mode):
        raise StoreError(f"{folder}: no such product", "one that `wbtui cache ls` shows")
    return folder
