"""An SAE as we read it against the same files in SAELens's own loader, and against published top tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wbtui.analysis.streaming import top_k
from wbtui.analysis.tokens import output_directions
from wbtui.catalog.registry import find_entry
from wbtui.catalog.saes import SaeInfo
from wbtui.check.compare import Row
from wbtui.check.forward import Seen
from wbtui.check.published import INDEX, entries_for
from wbtui.errors import WbtuiError, WeightsError
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.model import output_map
from wbtui.sources.sae import SaeSource

BLOCK = 4096
COSINE = 1e-6
"""The largest 1 − cosine of directions that are the same numbers, in fp32."""
CORRELATION = 1e-5
OTHERWISE = {
    "sparsify": "SAELens's loader transposes W_dec of this layout",
    "cross_layer": "SAELens's loader sums the target layers",
}
"""Layouts that SAELens reads otherwise than their publishers mean them (``tests/sources/test_sae_lens_parity.py``)."""


def sae_rows(ckpt: Checkpoint, info: SaeInfo, seen: list[Seen]) -> list[Row]:
    """Directions and pre-activations against SAELens. What cannot be compared says why."""
    names = ("decoder directions", "pre-activations")
    if not info.site.startswith("resid_"):
        why = f"at {info.site} directions are mapped into the stream, which SAELens does not do"
        return [Row(name, info.name, None, COSINE, "", why) for name in names]
    theirs, why = _theirs(info)
    if theirs is None:
        return [Row(name, info.name, None, COSINE, "", why) for name in names]
    source = SaeSource(info, ckpt)
    worst, feature = 0.0, 0
    for start in range(0, source.n, BLOCK):
        stop = min(source.n, start + BLOCK)
        miss = 1 - torch.nn.functional.cosine_similarity(
            source.decoder_rows(start, stop).double(), theirs.W_dec[start:stop].detach().double()
        )
        miss = torch.where(theirs.W_dec[start:stop].detach().abs().amax(1) > 0, miss, 0.0)
        if float(miss.max()) > worst or not bool(torch.isfinite(miss).all()):
            worst, feature = float(miss.max()), start + int(miss.argmax())
    rows = [Row(names[0], f"feature {feature}", worst, COSINE, "1 − cosine")]
    return [*rows, _activations(ckpt, info, source, theirs, seen)]


def _theirs(info: SaeInfo) -> tuple[Any, str]:
    """(SAELens's SAE of the same files, nothing), or (None, why there is none to compare with)."""
    if info.format in OTHERWISE:
        return None, OTHERWISE[info.format]
    try:
        if info.format == "saelens":
            from sae_lens import SAE

            return SAE.load_from_disk(info.path, device="cpu"), ""
        if find_entry(info.name) is None:
            return None, f"a {info.format} folder: SAELens loads that from the Hub cache only, by its registry's name"
        from wbtui.sources.through_saelens import entry_of, load

        theirs, missing = load(info.name, *entry_of(info.name))
        return theirs, missing
    except WbtuiError as error:
        return None, error.line()[:300]
    except Exception as error:  # whatever goes wrong in another library is a reason, not a fault of ours
        return None, f"SAELens does not load it ({type(error).__name__}: {str(error)[:200]})"


def _activations(ckpt: Checkpoint, info: SaeInfo, source: SaeSource, theirs: Any, seen: list[Seen]) -> Row:
    """Pre-activations over tokens, constants and positive factors aside: 1 − correlation over the real stream."""
    name, unit = "pre-activations", "1 − correlation over tokens"
    if not hasattr(theirs, "W_enc") or source.reads_absent is not None:
        return Row(name, info.name, None, CORRELATION, unit, "this SAE has no encoder of the stream")
    place = info.layer if info.site == "resid_pre" else info.layer + 1
    if info.site == "resid_mid" or (place < ckpt.dims.n_layers and place not in seen[0].streams):
        return Row(name, info.name, None, CORRELATION, unit, "its stream was not kept from the forward pass")
    x = torch.cat([one.last if place >= ckpt.dims.n_layers else one.streams[place] for one in seen])
    if ckpt.architecture.norm == "layer":  # every reader of such a stream is blind to its mean over the width
        x = x - x.mean(1, keepdim=True)
    with torch.no_grad():
        inner = theirs.process_sae_in(x.to(theirs.W_enc.dtype))
        wanted = (inner @ theirs.W_enc).double()
    found = torch.cat(
        [x @ _rows(source, a, min(source.n, a + BLOCK)).T for a in range(0, source.n, BLOCK)], dim=1
    ).double()
    if info.conventions.get("normalize_activations") in ("layer_norm", "constant_norm_rescale"):
        return Row(name, info.name, None, CORRELATION, unit, "its input is rescaled token by token")
    found, wanted = (t - t.mean(0) for t in (found, wanted))
    size = found.norm(dim=0) * wanted.norm(dim=0)
    miss = torch.where(size > 0, 1 - (found * wanted).sum(0) / torch.where(size > 0, size, 1.0), 0.0)
    return Row(name, f"feature {int(miss.argmax())}", float(miss.max()), CORRELATION, unit)


def _rows(source: SaeSource, start: int, stop: int) -> Tensor:
    rows = source.encoder_rows(start, stop)
    assert rows is not None
    return rows


def published_rows(ckpt: Checkpoint, info: SaeInfo, index: Path = INDEX) -> list[Row]:
    """Top tokens against those that others have published for the same file."""
    unit = "published tokens that our list of the same length lacks"
    known = entries_for(info, index)
    if not known:
        return [Row("published top tokens", info.name, None, 1, unit, "none are kept for this SAE")]
    source, out, strings = SaeSource(info, ckpt), output_map(ckpt), _token_strings(ckpt)
    rows = []
    for entry in known:
        unembed = entry.get("unembed", "folded")
        for key, values in sorted(entry["features"].items(), key=lambda item: int(item[0])):
            wanted = [str(t) for t in values["top"]]
            row = source.decoder_rows(int(key), int(key) + 1)
            direction, _ = output_directions(row, out.gain, out.centre, unembed)
            scores = torch.cat([direction @ block.float().T for block in out.tokens.split(16_384)], dim=1)
            ours = {strings.get(int(i)) for i in top_k(scores, len(wanted))[1][0]}
            missing = float(sum(token not in ours for token in wanted))
            rows.append(Row("published top tokens", f"feature {key} ({entry.get('source', '?')})", missing, 1, unit))
    return rows


def _token_strings(ckpt: Checkpoint) -> dict[int, str]:
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(ckpt.folder, local_files_only=True)
    except Exception as error:
        raise WeightsError(
            f"{ckpt.folder}: no usable tokenizer ({error})", "one, to name tokens as published"
        ) from None
    return {i: tokenizer.decode([i]) for i in range(min(len(tokenizer), ckpt.dims.d_vocab))}
