"""Which SAEs a model has: the demo's, those in a model folder's ``saes/``, those below the setting ``sae_roots``, those
that the local Hub cache holds, and those that SAELens has converted for us. What a file means is decided by
:mod:`wbtui.catalog.formats`, what one SAE is by :mod:`wbtui.catalog.sae`."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from wbtui import settings
from wbtui.address import is_path
from wbtui.catalog.formats import Candidate, by_loader, candidates
from wbtui.catalog.from_saelens import all_converted, converted, goes_through, not_converted
from wbtui.catalog.hub import hub_candidates, local_candidates, other_repositories
from wbtui.catalog.models import DEMO, DEMO_DIR, ModelInfo, read_json
from wbtui.catalog.registry import canonical_model, find_entry
from wbtui.catalog.sae import SaeInfo, beside, read, read_sae, reader_layer, stream_position
from wbtui.errors import UsageError, WbtuiError, WeightsError

__all__ = [
    "SaeInfo", "beside", "find_sae", "list_saes", "read_sae", "reader_layer", "sae_roots", "stream_position", "walk",
]  # fmt: skip

MAX_DEPTH = 4
MAX_FOLDERS = 20_000


def _other_model(model: ModelInfo, info: SaeInfo) -> SaeInfo:
    """The SAE with a note where it names another model than the one that it was opened on."""
    if not info.model_name or _same_model(model, info.model_name):
        return info
    note = f"trained on {info.model_name} by its own word, not on {model.name}: the widths fit, the meaning may not"
    return replace(info, notes=[note, *info.notes])


def list_saes(model: ModelInfo) -> list[SaeInfo]:
    """Every SAE that belongs to the model: by place (demo, ``saes/`` in its folder), by the model name in its files, or
    by the registry.

    Sorted by layer, then name. Folders that cannot be read or do not fit are left out; naming one says why.
    """
    found: list[SaeInfo] = []
    for root, trusted in _roots(model):
        for candidate in walk(root):
            info = _quiet(model, candidate)
            if info is not None and (trusted or _same_model(model, info.model_name)):
                found.append(info)
    found.sort(key=_order)
    named = _unique_names(found)
    if model.kind != DEMO:
        taken = {info.name for info in named}
        named += sorted((info for info in _from_hub(model) if info.name not in taken), key=_order)
    return named


def _order(info: SaeInfo) -> tuple[Any, ...]:
    return info.layer, info.site != "resid_post", info.site, info.name


def _quiet(model: ModelInfo, candidate: Candidate, name: str = "") -> SaeInfo | None:
    try:
        return read(model, candidate, name)
    except WbtuiError:
        return None


def _from_hub(model: ModelInfo) -> list[SaeInfo]:
    """Those in the Hub cache: of the registry's releases for the model, and of repositories that name the model."""
    out = [info for name, c in hub_candidates(_known_as(model)) if (info := _quiet(model, c, name)) is not None]
    for one in all_converted():
        info = _quiet(model, Candidate("saelens", one.path), one.name)
        if info is not None and (_same_model(model, one.model) or _same_model(model, info.model_name)):
            out.append(info)
    for repo, snapshot in other_repositories():
        for candidate in walk(snapshot):
            inner = os.path.relpath(candidate.path, snapshot) + (f":{candidate.entry}" if candidate.entry else "")
            info = _quiet(model, candidate, f"{repo}/{inner}")
            if info is not None and _same_model(model, info.model_name):
                out.append(info)
    return out


def find_sae(model: ModelInfo, name: str) -> SaeInfo:
    """The SAE that ``name`` means: a short name of :func:`list_saes`, a bare layer number, a folder or file, or a
    registry SAE (``release/id``) that is in the Hub cache.

    Raises:
        UsageError: no such SAE; the nearest names are offered.
        WeightsError: a folder that is there but cannot be used.
    """
    if is_path(name):
        path = Path(name).expanduser()
        if not path.exists() and not (":" in path.name and path.with_name(path.name.partition(":")[0]).exists()):
            raise UsageError(f"no SAE folder {name}", "a folder or file of one of the formats that the README lists")
        return _other_model(model, replace(read_sae(model, path), name=name))
    if "/" in name and (published := _published(model, name)) is not None:
        return published
    saes = list_saes(model)
    by_name = {sae.name: sae for sae in saes}
    wanted = f"L{name}" if name.isdigit() else name
    for candidate in (name, wanted):
        if candidate in by_name:
            return by_name[candidate]
    folded = {sae.name.casefold(): sae for sae in saes}
    if wanted.casefold() in folded:
        return folded[wanted.casefold()]
    match = re.fullmatch(r"[Ll](\d+)", wanted)
    if match and int(match.group(1)) >= model.n_layers:
        raise UsageError(
            f"layer {match.group(1)} of {model.name}",
            f"a layer from 0 to {model.n_layers - 1}",
            f"`wbtui saes {model.name}` lists what is here",
        )
    near = get_close_matches(name, list(by_name), n=3) or list(by_name)[:8]
    raise UsageError(
        f"no SAE {name!r} of {model.name}",
        ("one of " + ", ".join(near)) if near else "an SAE folder (./path); none is known for this model",
        f"`wbtui saes {model.name}` lists them",
    )


def _published(model: ModelInfo, name: str) -> SaeInfo | None:
    """A registry SAE; None where the registry has none of that name.

    Raises:
        UsageError: it is not on disk, or has several target layers.
        WeightsError: it is there but cannot be used.
    """
    bare, _, target = name.partition(":")
    entry = find_entry(bare)
    if entry is None or by_loader(entry.loader) is None:
        through = converted(name)
        if through is not None:
            return _other_model(model, read(model, Candidate("saelens", through.path), name))
        if goes_through(name, entry.loader if entry else None):
            raise not_converted(model.name, name)
    if entry is None:
        return None
    found = [c for c in local_candidates(entry) if target in ("", c.entry)]
    if not found:
        raise UsageError(
            f"{name} is in the registry but not on this disk",
            "an SAE in the local Hub cache",
            f"`wbtui download {model.name} {bare}` fetches it",
        )
    if len(found) > 1:
        raise UsageError(f"{name}: {len(found)} target layers", f"one of them, as in {bare}:{found[0].entry}")
    return _other_model(model, read(model, found[0], name))


def sae_roots() -> list[Path]:
    """Folders to look for SAEs in: the setting ``sae_roots``."""
    return list(settings.get("sae_roots"))


def _roots(model: ModelInfo) -> list[tuple[Path, bool]]:
    """(root, whether everything in it belongs to the model)."""
    own = DEMO_DIR / "saes" if model.kind == DEMO else Path(model.path) / "saes"
    return [(own, True)] + [(root, False) for root in sae_roots()]


def walk(root: Path) -> list[Candidate]:
    """Candidates below ``root``, depth and number bounded (symlink loops end there; a folder is entered once)."""
    out: list[Candidate] = []
    entered: set[tuple[int, int]] = set()
    queue = [(root, 0)]
    while queue and len(entered) < MAX_FOLDERS:
        folder, depth = queue.pop(0)
        try:
            stat = folder.stat()
            if (stat.st_dev, stat.st_ino) in entered:
                continue
            entered.add((stat.st_dev, stat.st_ino))
            found = candidates(folder)
            out += found
            if depth < MAX_DEPTH and not any(c.path == folder for c in found):
                queue += [(Path(child.path), depth + 1) for child in _folders(folder)]
        except OSError:
            continue
    return out


def _folders(folder: Path) -> list[os.DirEntry[str]]:
    def is_folder(child: os.DirEntry[str]) -> bool:
        try:
            return child.is_dir()
        except OSError:  # a link that leads to itself
            return False

    with os.scandir(folder) as children:
        return sorted(filter(is_folder, children), key=lambda child: child.name)


def _same_model(model: ModelInfo, named: str) -> bool:
    """Whether a label names this model: one of the names that it goes by, compared by their last parts."""
    if not named:
        return False
    wanted = canonical_model(named)
    return any(canonical_model(ours) == wanted for ours in _names(model))


def _known_as(model: ModelInfo) -> str:
    """The name by which the registry would know a model."""
    return _names(model)[-1]


def _names(model: ModelInfo) -> list[str]:
    """What a model is called here, its folder's name, and what its own config says that it was loaded from."""
    names = [model.name]
    if model.kind == "folder":
        names.append(Path(model.path).name)
        try:
            said = read_json(Path(model.path) / "config.json", "a config.json").get("_name_or_path")
        except WeightsError:
            said = None
        if isinstance(said, str) and said:
            names.append(said)
    return names


def _unique_names(saes: list[SaeInfo]) -> list[SaeInfo]:
    """Short names: ``L3``, with the site where it is not resid_post; the folder's name where that is not unique."""
    taken: set[str] = set()
    out = []
    for sae in saes:
        folder = Path(sae.path).name.replace(":", "-")
        short = f"L{sae.layer}" + ("" if sae.site == "resid_post" else f"-{sae.site}")
        name = folder if re.match(rf"L{sae.layer}(?!\d)", folder) else short
        if name in taken:
            name = f"{short}-{folder}"
        base, count = name, 2
        while name in taken:
            name = f"{base}-{count}"
            count += 1
        taken.add(name)
        out.append(replace(sae, name=name))
    return out
