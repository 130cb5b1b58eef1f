"""Places along the residual stream, by what happens there and not by hook names (methods 3.6).

Position ``2l`` is the stream in front of layer ``l`` (``resid_pre l``, the same as ``resid_post l-1``), ``2l + 1`` the
stream between its attention and its MLP (``resid_mid l``). What a sublayer writes joins the stream behind it. In models
whose attention and MLP run side by side both read ``2l`` and both join at ``2l + 2``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from wbtui.catalog.models import ModelInfo, read_json
from wbtui.catalog.saes import SaeInfo
from wbtui.errors import UsageError

_PLACE = re.compile(
    r"L?(\d+)[._-](resid_pre|resid_mid|resid_post)|blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post)"
)
MODULES = {"mlp_out": "M", "mlp_post": "M", "mlp_in": "M", "attn_out": "A", "hook_z": "A"}
"""Sites whose decoders write a sublayer's output: ``M`` the MLP's, ``A`` the attention's (``mlp_in``: transcoders)."""


def is_parallel(model: ModelInfo) -> bool:
    """Whether attention and MLP of a layer read the same stream.

    Raises:
        WeightsError: a config that cannot be read.
    """
    from pathlib import Path

    from wbtui.catalog.architectures import architecture_of

    path = Path(model.path) / "config.json"
    config = read_json(path, "a Hugging Face config.json")
    return architecture_of(config, str(path)).parallel and bool(config.get("use_parallel_residual", True))


def write_position(site: str, layer: int, parallel: bool = False) -> int:
    """Where what a feature writes is in the stream for the first time."""
    if site == "resid_pre":
        return 2 * layer
    if site in ("resid_mid", "attn_out", "hook_z"):
        return 2 * layer + (2 if parallel and site != "resid_mid" else 1)
    return 2 * layer + 2


def read_position(site: str, layer: int, parallel: bool = False) -> int | None:
    """The stream that a feature's encoder reads; None where it does not read the stream."""
    return {
        "resid_pre": 2 * layer,
        "resid_mid": 2 * layer + 1,
        "resid_post": 2 * layer + 2,
        "mlp_in": 2 * layer + (0 if parallel else 1),
    }.get(site)


def writes_at(sae: SaeInfo, parallel: bool = False) -> int:
    """Where an SAE's features write; a cross-layer transcoder's at its target layer."""
    return write_position(sae.site, int(sae.conventions.get("target_layer", sae.layer)), parallel)


def identity(sae: SaeInfo) -> tuple[str, str]:
    """Tells dictionaries apart whatever they are called: by folder, and by place in its files."""
    return sae.path, repr(sae.places)


def feeds(writer: SaeInfo, reader: SaeInfo, parallel: bool = False) -> bool:
    """Whether what ``writer``'s features write is in the stream that ``reader``'s encoder reads.

    Two dictionaries of the same stream describe it twice and do not feed each other; a sublayer's output feeds the
    dictionary of the stream that it has just joined.
    """
    reads = read_position(reader.site, reader.layer, parallel)
    if reads is None:
        return False
    writes = writes_at(writer, parallel)
    same_stream = writer.site.startswith("resid_") and reader.site.startswith("resid_")
    return writes < reads or (writes == reads and not same_stream)


def label(position: int) -> str:
    """A position as people write it: ``L3.resid_post`` for ``2·4``, ``L3.resid_mid`` between attention and MLP."""
    if position == 0:
        return "L0.resid_pre"
    layer, middle = divmod(position, 2)
    return f"L{layer}.resid_mid" if middle else f"L{layer - 1}.resid_post"


def parse_position(text: str, n_layers: int) -> int:
    """A position out of ``L3.resid_post``, ``3.resid_pre`` or ``blocks.3.hook_resid_mid``.

    Raises:
        UsageError: not a position, or a layer that the model has not.
    """
    match = _PLACE.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"stream position {text!r}", "L3.resid_pre, L3.resid_mid or L3.resid_post", "name layer and place so"
        )
    layer, site = int(match[1] or match[3]), match[2] or match[4]
    if layer >= n_layers:
        raise UsageError(
            f"stream position {text!r}", f"a layer from 0 to {n_layers - 1}", "take one that the model has"
        )
    return write_position(site, layer)


def one_per_hook(saes: Iterable[SaeInfo], anchor: SaeInfo | None = None) -> list[SaeInfo]:
    """One dictionary for each hook, in the order of the stream: the anchor where it is the hook's, else the one of its
    width, else the first by name (further seeds and controls come after it)."""
    chosen: dict[tuple[str, int, int], SaeInfo] = {}
    for sae in sorted(saes, key=lambda s: (s.layer, s.site, _strange(s, anchor), len(s.name), s.name)):
        chosen.setdefault((sae.site, sae.layer, writes_at(sae)), sae)
    if anchor is not None:
        chosen[anchor.site, anchor.layer, writes_at(anchor)] = anchor
    return in_order(chosen.values())


def _strange(sae: SaeInfo, anchor: SaeInfo | None) -> bool:
    return anchor is not None and sae.d_sae != anchor.d_sae


def in_order(saes: Iterable[SaeInfo], parallel: bool = False) -> list[SaeInfo]:
    """By place in the stream, then by name."""
    return sorted(saes, key=lambda s: (writes_at(s, parallel), s.site, s.name))


def at_position(saes: Sequence[SaeInfo], position: int) -> list[SaeInfo]:
    """Dictionaries of the stream itself at a position, shortest name first."""
    found = [s for s in saes if s.site.startswith("resid_") and writes_at(s) == position]
    return sorted(found, key=lambda s: (len(s.name), s.name))
