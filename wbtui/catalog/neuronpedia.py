"""Neuronpedia's addresses and ours: a pasted page names an SAE by SAELens's registry, an SAE its page. No network.

A page is ``neuronpedia.org/MODEL/SOURCE[/INDEX]``, in the browser's form or the API's (``/api/feature/…``). Which SAE a
source is says SAELens's registry (its field ``neuronpedia``), or ``neuronpedia_id`` in the config of a local SAE;
INDEX is the feature's number.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from wbtui.address import Address
from wbtui.catalog.registry import Entry, canonical_model, find_entry, releases
from wbtui.errors import UsageError, WbtuiError

if TYPE_CHECKING:
    from wbtui.catalog.models import ModelInfo
    from wbtui.catalog.saes import SaeInfo

HOST = "www.neuronpedia.org"
EXAMPLE = f"{HOST}/gemma-2-2b/12-gemmascope-res-16k/345"
_URL = re.compile(r"(?:https?:)?(?://)?(?:www\.)?neuronpedia\.org(?::\d+)?(?=[/?#]|$)", re.ASCII | re.IGNORECASE)
_ID = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_INDEX = re.compile(r"[0-9]{1,12}", re.ASCII)


class NotHere(UsageError):
    """A published SAE that is not on this disk, or whose model is not."""

    def __init__(self, page: Page, entry: Entry, missing: str) -> None:
        self.entry = entry
        self.feature = page.feature
        self.command = f"wbtui download {shlex.quote(entry.model)} {shlex.quote(entry.name)}"
        super().__init__(
            f"{page.id} is {entry.name} of {entry.model}, but {missing} not on this disk", "",
            f"`{self.command}` fetches it",
        )  # fmt: skip


@dataclass(frozen=True)
class Page:
    """What a page is of."""

    model: str
    """Neuronpedia's id of the model."""
    source: str
    feature: int | None

    @property
    def id(self) -> str:
        """``MODEL/SOURCE``."""
        return f"{self.model}/{self.source}"


def is_page(text: str) -> bool:
    """Whether a text is an address on Neuronpedia, with or without scheme and ``www``."""
    return bool(_URL.match(text.strip()))


def page_of(text: str) -> Page:
    """The page's model, source and feature.

    Raises:
        UsageError: another page than a feature's or a source's.
    """
    path = _URL.sub("", text.strip(), count=1)
    parts = [unquote(part) for part in re.split(r"[?#]", path, maxsplit=1)[0].split("/") if part]
    shown = "/".join(parts)
    if parts[:2] == ["api", "feature"]:
        parts = parts[2:]
    if len(parts) not in (2, 3) or parts[0].casefold() in ("api", "list"):
        what = f"Neuronpedia's page /{shown}" if shown else "Neuronpedia's first page"
        raise UsageError(what, f"a feature's page or a source's, as {EXAMPLE}")
    if len(parts) == 3 and not _INDEX.fullmatch(parts[2]):
        raise UsageError(f"Neuronpedia's page /{shown}: {parts[2]!r}", f"a feature's number, as in {EXAMPLE}")
    return Page(parts[0].casefold(), parts[1].casefold(), int(parts[2]) if len(parts) == 3 else None)


def entry_of(page: Page) -> Entry:
    """The registry's SAE of a page.

    Raises:
        UsageError: the registry knows no such model or source; the nearest are named.
    """
    known = _by_id()
    if page.id in known:
        return known[page.id]
    models = sorted({name.partition("/")[0] for name in known})
    if page.model not in models:
        near = get_close_matches(page.model, models, n=3) or models[:6]
        raise UsageError(
            f"no model {page.model!r} of Neuronpedia in the registry of published SAEs", "one of " + ", ".join(near)
        )
    sources = [name.partition("/")[2] for name in known if name.startswith(page.model + "/")]
    members = [source for source in sources if source.partition("-")[2] == page.source]
    if members:
        raise UsageError(
            f"{page.id}: a set of {len(members)} sources",
            f"one of them, as {HOST}/{page.model}/{members[len(members) // 2]}",
        )
    near = get_close_matches(page.source, sources, n=3) or sources[:3]
    raise UsageError(
        f"no source {page.source!r} of {page.model} in the registry of published SAEs", "one of " + ", ".join(near)
    )


def address_of(text: str, model: ModelInfo | None = None) -> Address:
    """A page as an address that can be opened here.

    Args:
        text: the page's address.
        model: one that is open, taken where it is the page's.

    Raises:
        UsageError: not a feature's or source's page, or unknown.
        NotHere: not on this disk; names the command that fetches it.
    """
    from wbtui.catalog.hub import local_candidates

    page = page_of(text)
    unknown: UsageError | None = None
    entry: Entry | None = None
    try:
        entry = entry_of(page)
    except UsageError as error:
        unknown = error
    here = _local_model(entry, page, model)
    if entry is not None and here is not None and local_candidates(entry):
        return Address(here.name, entry.name, page.feature)
    named = _by_config(page, here)
    if named is not None:
        return Address(named[0], named[1], page.feature)
    if unknown is not None:
        raise unknown
    assert entry is not None
    sae_here = bool(local_candidates(entry))
    raise NotHere(page, entry, "its model is" if sae_here else "the SAE is" if here else "SAE and model are")


def source_in(folder: Path) -> str:
    """``MODEL/SOURCE`` that a SAELens folder's own config names, or nothing."""
    try:
        config = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if not isinstance(config, dict):
        return ""
    metadata = config.get("metadata")
    found = (metadata if isinstance(metadata, dict) else {}).get("neuronpedia_id") or config.get("neuronpedia_id")
    return str(found or "")


def page_for(sae: SaeInfo, feature: int | None = None) -> str:
    """The page of an SAE or of one of its features; nothing where it is not known to have one."""
    entry = find_entry(sae.name) or find_entry(sae.name.rpartition(":")[0])
    if entry is not None:
        found = entry.neuronpedia or _by_place().get((entry.repo, entry.path), "")
    else:
        found = source_in(Path(sae.path))
    if not _ID.fullmatch(found):  # a folder's config is not ours: it may say anything
        return ""
    return f"https://{HOST}/{found}" + ("" if feature is None else f"/{feature}")


def _local_model(entry: Entry | None, page: Page, opened: ModelInfo | None) -> ModelInfo | None:
    """The page's model on this disk: the one that is open, the Hub's, or a folder of the same name."""
    from wbtui.catalog.models import find_model, list_models

    names = {canonical_model(page.model), *([canonical_model(entry.model)] if entry is not None else [])}
    if opened is not None and canonical_model(opened.name) in names:
        return opened
    if entry is not None:
        try:
            return find_model(entry.model)
        except WbtuiError:
            pass
    return next((found for found in list_models() if canonical_model(found.name) in names), None)


def _by_config(page: Page, model: ModelInfo | None) -> tuple[str, str] | None:
    """(model, SAE) of a local SAE whose own config names the source."""
    from wbtui.catalog.saes import list_saes

    if model is None:
        return None
    for sae in list_saes(model):
        if source_in(Path(sae.path)).casefold() == page.id:
            return model.name, sae.name
    return None


@cache
def _by_id() -> dict[str, Entry]:
    return {e.neuronpedia.casefold(): e for release in releases() for e in release.saes if e.neuronpedia}


@cache
def _by_place() -> dict[tuple[str, str], str]:
    """Of (repository, path): one file may stand in two releases of which one names its page."""
    return {(e.repo, e.path): e.neuronpedia for release in releases() for e in release.saes if e.neuronpedia}
