"""SAEs in the local Hub cache: registry entries that are on disk, and repositories that the registry does not know.

Only folders are looked at; nothing is asked of the Hub. A registry SAE is called ``release/id``, any other
``org/repo/path``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wbtui.catalog.formats import Candidate, candidates
from wbtui.catalog.models import hub_cache_dir
from wbtui.catalog.registry import Entry, Release, releases, releases_of


def repo_snapshot(repo: str) -> Path | None:
    """The snapshot folder of a repository in the Hub cache: of ``main`` where it is known, else the newest."""
    parts = repo.split("/")
    if len(parts) > 2 or any(not p or p in (".", "..") for p in parts) or "\0" in repo:
        return None
    folder = hub_cache_dir() / ("models--" + "--".join(parts))
    try:
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
        if commit and "/" not in commit and commit != ".." and (folder / "snapshots" / commit).is_dir():
            return folder / "snapshots" / commit
    except (OSError, UnicodeDecodeError):
        pass
    try:
        found = [p for p in (folder / "snapshots").iterdir() if p.is_dir()]
        return max(found, key=lambda p: p.stat().st_mtime) if found else None
    except OSError:
        return None


def local_candidates(entry: Entry) -> list[Candidate]:
    """What is on disk of a registry entry: nothing, one SAE, or one for each target layer."""
    snapshot = repo_snapshot(entry.repo)
    return [] if snapshot is None else _at(snapshot, entry)


def _at(snapshot: Path, entry: Entry) -> list[Candidate]:
    if ".." in Path(entry.path).parts or entry.path.startswith("/"):
        return []
    base = snapshot / entry.path
    if entry.loader == "mntss_clt_layer_transcoder":
        base = snapshot / f"W_dec_{entry.path}.safetensors"
    elif entry.loader == "gemma_3" and "clt" in entry.path:
        base = base.with_name(base.name + ".safetensors")
    if base.is_dir():
        return candidates(base)
    if base.is_file():
        return [c for c in candidates(base.parent) if c.path == base]
    return []


def hub_candidates(model: str) -> Iterator[tuple[str, Candidate]]:
    """(name, candidate) of the registry's SAEs for a model that are on disk; each file once."""
    seen: set[tuple[Path, str]] = set()
    by_canonical = sorted(releases_of(model), key=lambda r: "canonical" not in r.name)
    for release in by_canonical:
        snapshot = repo_snapshot(release.repo)
        if snapshot is None:
            continue
        for entry in release.saes:
            for candidate in _at(snapshot, entry):
                key = (candidate.path, candidate.entry)
                if key not in seen:
                    seen.add(key)
                    yield entry.name + (f":{candidate.entry}" if candidate.entry else ""), candidate


def other_repositories() -> Iterator[tuple[str, Path]]:
    """(repository, snapshot) of the cache's repositories that the registry does not know and that are no models."""
    known = {release.repo for release in releases()}
    try:
        folders = sorted(hub_cache_dir().glob("models--*"))
    except OSError:
        return
    for folder in folders:
        repo = folder.name.removeprefix("models--").replace("--", "/")
        if repo in known:
            continue
        snapshot = repo_snapshot(repo)
        if snapshot is not None and not any(snapshot.glob("model*.safetensors")):
            yield repo, snapshot


def local_counts(release: Release) -> int:
    """How many SAEs of a release are on disk."""
    snapshot = repo_snapshot(release.repo)
    return 0 if snapshot is None else sum(bool(_at(snapshot, entry)) for entry in release.saes)
