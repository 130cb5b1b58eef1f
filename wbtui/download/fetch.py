"""Fetching files into the Hub cache: resumed where a part is there, checked against the Hub's checksum, said as it
goes."""

from __future__ import annotations

import errno
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from wbtui.catalog.architectures import architecture_of
from wbtui.catalog.hub import repo_snapshot
from wbtui.catalog.models import hub_snapshot, read_json
from wbtui.catalog.registry import HUB_IDS, Entry, find_entry, releases_of
from wbtui.display import json_text
from wbtui.download.cache import Digest, RepoCache
from wbtui.download.hub import TIMEOUT, RemoteFile, Repository, Say, ask, endpoint, listing, patient
from wbtui.download.wants import INDEX, Wanted, model_files, path_files, sae_files, shards
from wbtui.errors import StoreError, UsageError, WeightsError

CHUNK = 1 << 18
SPARE_BYTES = 200_000_000
"""Left free on the disk."""
SAY_EVERY = 0.5
SMALL = (".json", ".yaml", ".yml")


@dataclass
class Fetched:
    """What a download did."""

    repo: str
    snapshot: str
    files: list[str] = field(default_factory=list)
    bytes: int = 0
    """Received over the network."""


class Meter:
    """Progress over several files: bytes, rate and time left, said twice a second.

    Args:
        total: bytes of all files.
        have: of them, what is here already.
    """

    def __init__(self, total: int, have: int, say: Say) -> None:
        self.total, self.done, self._say = total, have, say
        self.received = 0
        self._start = self._last = time.monotonic()

    def add(self, count: int, name: str) -> None:
        """Bytes have come."""
        self.done += count
        self.received += count
        now = time.monotonic()
        if now - self._last >= SAY_EVERY:
            self._last = now
            self.tell(name)

    def lose(self, count: int) -> None:
        """Bytes that were thought to be here must come again."""
        self.done -= count

    def tell(self, name: str) -> None:
        """Say where it stands."""
        seconds = max(time.monotonic() - self._start, 1e-6)
        rate = self.received / seconds
        self._say(
            {
                "event": "progress", "file": name, "done": self.done, "total": self.total, "rate": round(rate),
                "eta": round((self.total - self.done) / rate, 1) if rate > 0 else None,
            }
        )  # fmt: skip


def hub_id(model: str) -> tuple[str, str]:
    """(repository, revision) that a model's name means on the Hub.

    Raises:
        UsageError: no Hub name.
    """
    name, _, revision = model.partition(":")
    name = HUB_IDS.get(name, name)
    parts = name.split("/")
    if len(parts) > 2 or any(not p or p in (".", "..") for p in parts) or "\0" in model or ".." in revision:
        raise UsageError(f"{model!r} is no Hub name", "org/name, or a name that `wbtui releases` lists")
    if len(parts) == 1 and releases_of(name):
        name = releases_of(name)[0].model
    return name, revision or "main"


def fetch_model(model: str, say: Say) -> Fetched:
    """Config, tokenizer and the weights that the analyses read, into the Hub cache.

    Args:
        model: a Hub id, with ``:revision`` or without, or a registry name (``gpt2-small``).
        say: told how it goes, as plain data: plan, progress, waiting.

    Raises:
        WbtuiError: in words: no such repository, gated, an unsupported model type, no space, no connection, damage.
    """
    repo, revision = hub_id(model)
    found = listing(repo, revision, say)
    first = model_files(found.files).of(found.files, repo)
    weights = [name for name in first if name == "model.safetensors"]
    small = [name for name in first if name not in weights]
    out = _fetch(found, revision, small, say, quiet=True)
    folder = Path(out.snapshot)
    config = read_json(folder / "config.json", "a Hugging Face config.json")
    arch = architecture_of(config, f"{repo}: config.json")  # before the weights come: an unknown type is refused
    if INDEX in first:
        table = read_json(folder / INDEX, "a safetensors index").get("weight_map")
        if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
            raise WeightsError(f"{repo}: {INDEX} has no weight_map", "a map from tensor names to file names")
        weights = Wanted(tuple(shards(table, arch))).of(found.files, repo)
    rest = _fetch(found, revision, weights, say)
    return Fetched(repo, rest.snapshot, out.files + rest.files, out.bytes + rest.bytes)


def fetch_sae(name: str, say: Say) -> Fetched:
    """An SAE's own files, into the Hub cache.

    Args:
        name: ``release/id`` of the registry (a target layer behind ``:`` is ignored: one file holds them all), or
            ``org/repo/path`` of any repository.

    Raises:
        WbtuiError: as :func:`fetch_model`.
    """
    entry = find_entry(name) or find_entry(name.rpartition(":")[0])
    if entry is not None:
        found = listing(entry.repo, "main", say)
        return _fetch(found, "main", sae_files(entry).of(found.files, entry.repo), say)
    parts = name.split("/")
    if len(parts) < 2 or any(p in ("", ".", "..") for p in parts):
        raise UsageError(
            f"no SAE {name!r} in the registry", "release/id (`wbtui releases` lists releases), or org/repo/path"
        )
    return fetch_below("/".join(parts[:2]), "/".join(parts[2:]), say, about=())


def fetch_below(repo: str, path: str, say: Say, about: tuple[str, ...] = SMALL) -> Fetched:
    """Everything at or below a path of a repository that can be weights or a config of an SAE.

    Args:
        repo: ``org/name``.
        path: a folder or file in it; empty for all.
        about: endings of the files in its first folder, or in the path's own, that come too: configs of layouts that
            are not known here.

    Raises:
        WbtuiError: as :func:`fetch_model`; UsageError where nothing is there.
    """
    found = listing(repo, "main", say)
    names = path_files(found.files, path)
    if not names:
        raise UsageError(f"{repo} holds nothing at {path!r}", "a folder or file of SAE weights in it")
    beside = path.rpartition("/")[0]
    names += [n for n in found.files if n.endswith(about) and n.rpartition("/")[0] in ("", beside) and n not in names]
    return _fetch(found, "main", names, say)


def on_disk(model: str) -> bool:
    """Whether a model's config and weights are in the Hub cache already, without asking anyone."""
    repo, revision = hub_id(model)
    folder = hub_snapshot(f"{repo}:{revision}")
    if folder is None:
        return False
    if (folder / INDEX).is_file():
        try:
            table = read_json(folder / INDEX, "an index").get("weight_map")
            config = read_json(folder / "config.json", "a config.json")
            wanted = shards(table, architecture_of(config, str(folder))) if isinstance(table, dict) else ["?"]
        except WeightsError:
            return False
        return all((folder / name).is_file() for name in wanted)
    return (folder / "model.safetensors").is_file()


def sae_on_disk(entry: Entry) -> bool:
    """Whether a registry SAE's files are in the Hub cache already."""
    folder = repo_snapshot(entry.repo)
    return folder is not None and all((folder / name).is_file() for name in sae_files(entry).needed)


def _fetch(found: Repository, revision: str, names: list[str], say: Say, quiet: bool = False) -> Fetched:
    files = [found.files[name] for name in names]
    cache = RepoCache(found.name)
    have = sum(cache.have(file) for file in files)
    total = sum(file.size for file in files)
    out = Fetched(found.name, str(cache.folder / "snapshots" / found.commit), names)
    try:
        _room(cache.folder, total - have, found.name)
        if not quiet:
            say({"event": "plan", "repo": found.name, "files": len(files), "total": total, "have": have})
        meter = Meter(total, have, (lambda _: None) if quiet else say)
        for file in files:
            with cache.lock(file):
                if not cache.whole(file):
                    _file(found, file, cache, meter, say)
            cache.link(found, file)
        cache.refer(revision, found.commit)
    except OSError as error:
        raise _disk_error(error, cache.folder, found.name) from None
    out.bytes = meter.received
    if not quiet:
        meter.tell(names[-1] if names else "")
    return out


def _file(found: Repository, file: RemoteFile, cache: RepoCache, meter: Meter, say: Say) -> None:
    """One file, from where its part ends; checked, then given its name.

    Raises:
        WeightsError: the bytes are not those that the Hub promises, twice.
    """
    part = cache.part(file)
    for attempt in range(2):
        mark = [-1]

        def progressed(mark: list[int] = mark) -> bool:
            size = part.stat().st_size if part.is_file() else 0
            further, mark[0] = size > mark[0], size
            return further

        progressed()
        patient(lambda: _stream(found, file, part, meter), found.name, say, progressed)
        digest = Digest(file)
        digest.add_file(part, file.size)
        if digest.right() and part.stat().st_size == file.size:
            os.replace(part, cache.blob(file))
            return
        meter.lose(part.stat().st_size)
        part.unlink()
        if attempt == 0:
            say({"event": "waiting", "seconds": 0, "why": f"{file.name} came damaged (checksum); once more"})
    raise WeightsError(
        f"{found.name}: {file.name} does not have the checksum that the Hub states, twice", f"{file.etag[:16]}…",
        "a proxy or mirror may be serving other bytes; nothing of it is kept",
    )  # fmt: skip


def _stream(found: Repository, file: RemoteFile, part: Path, meter: Meter) -> None:
    """Append what is missing; returns when the file has its size.

    Raises:
        OSError, urllib.error.HTTPError: the connection or the disk failed; the part stays.
    """
    start = part.stat().st_size if part.is_file() else 0
    if start > file.size:
        part.unlink()
        meter.lose(file.size)
        start = 0
    if start == file.size:
        part.touch()
        return
    url = f"{endpoint()}/{quote(found.name)}/resolve/{found.commit}/{quote(file.name)}"
    with ask(url, {"Range": f"bytes={start}-"} if start else {}, TIMEOUT) as response:
        resumed = response.status == 206 and _starts_at(response.headers.get("Content-Range"), start)
        if start and not resumed:
            meter.lose(start)
            start = 0
        with open(part, "r+b" if start else "wb", buffering=0) as out:
            out.seek(start)
            out.truncate()
            while start < file.size:
                piece = response.read1(min(CHUNK, file.size - start))
                if not piece:
                    raise ConnectionResetError(f"it ended {file.size - start} bytes too early")
                view = memoryview(piece)
                while view:
                    view = view[out.write(view) :]
                start += len(piece)
                meter.add(len(piece), file.name)
            os.fsync(out.fileno())


def _starts_at(content_range: str | None, start: int) -> bool:
    return content_range is not None and content_range.startswith(f"bytes {start}-")


def _room(folder: Path, need: int, repo: str) -> None:
    """Refuse before the first byte what cannot fit.

    Raises:
        StoreError: too little space.
    """
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if need > 0 and need + SPARE_BYTES > free:
        raise StoreError(
            f"{repo}: {need / 1e9:.2f} GB to fetch, {free / 1e9:.2f} GB free on the disk of {folder.parent}",
            f"{(need + SPARE_BYTES) / 1e9:.2f} GB",
            "free some, or set HF_HOME to a larger disk",
        )


def _disk_error(error: OSError, folder: Path, repo: str) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"{repo}: the disk of {folder.parent} is full", "space for the rest",
            "what has arrived is kept: free some space and run the same command again",
        )  # fmt: skip
    return StoreError(
        f"{error.filename or folder}: {error.strerror or error}", "a Hub cache that can be written",
        "set HF_HOME to a folder of yours",
    )  # fmt: skip


def event_line(event: dict[str, Any]) -> str:
    """An event as one line of JSON."""
    return json_text(event)
