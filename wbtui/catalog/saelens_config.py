"""A SAELens ``cfg.json`` read as data: architecture, hook, widths and the conventions that bear on directions.

Both layouts are read: the flat one of SAELens before 6 (``hook_point`` or ``hook_name``, ``hook_point_layer`` at the
top) and the one with a ``metadata`` block. What is not known is refused: a guessed hook would show wrong tokens with a
straight face. Facts: methods 3.6 and SAELens 6.54.
"""

from __future__ import annotations

import re
from typing import Any

from wbtui.errors import WeightsError

ARCHITECTURES = (
    "standard",
    "gated",
    "jumprelu",
    "topk",
    "abstopk",
    "batchtopk",
    "matryoshka_batchtopk",
    "matching_pursuit",
    "temporal",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
"""Architectures that SAELens saves, those of inference and the two that exist in training checkpoints only."""

TRANSCODERS = tuple(name for name in ARCHITECTURES if name.endswith("transcoder"))

NORMALIZATIONS = ("none", "expected_average_only_in", "constant_norm_rescale", "constant_scalar_rescale", "layer_norm")
"""Input conventions that this package understands. All but ``layer_norm`` only rescale, so directions stay (methods
3.6); ``layer_norm`` also centres, which takes the all-ones component out of the encoder."""

MAX_WIDTH = 100_000_000

_BLOCK_HOOKS = {
    # name behind "blocks.<layer>." -> (site, what the encoder reads)
    "hook_resid_pre": ("resid_pre", "stream"),
    "hook_resid_mid": ("resid_mid", "stream"),
    "hook_resid_post": ("resid_post", "stream"),
    "hook_in": ("resid_pre", "stream"),
    "hook_out": ("resid_post", "stream"),
    "hook_attn_out": ("attn_out", "off_stream"),
    "hook_mlp_out": ("mlp_out", "off_stream"),
    "attn.hook_z": ("hook_z", "off_stream"),
    "mlp.hook_post": ("mlp_post", "off_stream"),
}
_TRANSCODER_HOOKS = {
    # TransformerLens: the first two in front of ln2; ln2's output before its gain (folded or not); the MLP's input
    "hook_resid_mid": "stream",
    "hook_mlp_in": "stream",
    "ln2.hook_normalized": "plain_norm",
    "ln2.hook_out": "gained_norm",
    "mlp.hook_in": "gained_norm",
}
_KNOWN = (
    "hook_embed, blocks.<layer>.{hook_resid_pre, hook_resid_mid, hook_resid_post, hook_attn_out, hook_mlp_out, "
    "attn.hook_z, mlp.hook_post}, for transcoders blocks.<layer>.{" + ", ".join(_TRANSCODER_HOOKS) + "}"
)
_HF_BLOCK = re.compile(r"(?:model\.|transformer\.|gpt_neox\.)(?:language_model\.)?(?:layers|h)\.(\d{1,5})")


def parse_saelens_config(cfg: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of :class:`wbtui.catalog.saes.SaeInfo` that a SAELens config decides.

    Args:
        cfg: the parsed ``cfg.json``.
        where: the file, for errors.

    Returns:
        dict: ``d_in``, ``d_out``, ``d_sae``, ``architecture``, ``hook_name``, ``layer``, ``site``, ``conventions``.
        Sites: ``resid_pre``, ``resid_mid``, ``resid_post``, ``attn_out``, ``mlp_out``, ``hook_z``, ``mlp_post``, and
        ``mlp_in`` for transcoders (which write like ``mlp_out``). Conventions, plain JSON: ``apply_b_dec_to_input``;
        ``normalize_activations``; ``tied_encoder``, the encoder is the decoder transposed; ``reads``, what the encoder
        reads: ``stream``, ``gained_norm`` (the MLP norm's output), ``plain_norm`` (the same without its gain) or
        ``off_stream``. An SAE on the embedding (``hook_embed``) counts as ``resid_pre`` of layer 0.

    Raises:
        WeightsError: an architecture, hook, width or convention that is missing, contradictory or not understood.
    """
    metadata = cfg.get("metadata")
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        raise WeightsError(f"{where}: metadata is a {type(metadata).__name__}", "a JSON object")
    architecture = _architecture(cfg, where)
    d_in = _width(cfg.get("d_in"), "d_in", where)
    d_sae = _d_sae(cfg, d_in, where)
    hook_name = _hook_name(cfg, metadata, where)
    d_out = _d_out(cfg, d_in, architecture, where)
    if _either(cfg, metadata, "hook_head_index", "hook_point_head_index") is not None:
        raise WeightsError(
            f"{where}: an SAE on a single attention head ({hook_name})", "an SAE on all heads of a layer"
        )
    site, layer, reads = _place(cfg, metadata, hook_name, architecture, where)
    stated = _either(cfg, metadata, "hook_layer", "hook_point_layer")
    if isinstance(stated, int) and not isinstance(stated, bool) and stated != layer and hook_name != "hook_embed":
        raise WeightsError(f"{where}: hook {hook_name} but hook_layer {stated}", "one layer in both")
    if cfg.get("reshape_activations") == "hook_z" and site != "hook_z":
        raise WeightsError(f"{where}: reshape_activations is hook_z at {hook_name}", "a hook that ends in attn.hook_z")
    return {
        "d_in": d_in,
        "d_out": d_out,
        "d_sae": d_sae,
        "architecture": architecture,
        "hook_name": hook_name,
        "layer": layer,
        "site": site,
        "conventions": {
            "apply_b_dec_to_input": _flag(cfg, "apply_b_dec_to_input", architecture not in TRANSCODERS, where),
            "normalize_activations": _normalization(cfg, where),
            "tied_encoder": architecture == "matching_pursuit"
            or (architecture == "temporal" and _flag(cfg, "tied_weights", True, where)),
            "reads": reads,
        },
    }


def _architecture(cfg: dict[str, Any], where: str) -> str:
    """The architecture; before SAELens 6 a missing one meant ``standard``, or ``topk`` by its activation function."""
    name = cfg.get("architecture")
    if name is None:
        name = "standard"
    activation = cfg.get("activation_fn") or cfg.get("activation_fn_str")
    if name == "standard" and activation == "topk":
        name = "topk"
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise WeightsError(f"{where}: SAE architecture {name!r}", "one of " + ", ".join(ARCHITECTURES))
    return name


def _width(value: Any, key: str, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_WIDTH:
        raise WeightsError(f"{where}: {key} is {value!r}", f"a whole number from 1 to {MAX_WIDTH}")
    return value


def _d_sae(cfg: dict[str, Any], d_in: int, where: str) -> int:
    """``d_sae``, or d_in times ``expansion_factor`` as the oldest configs have it."""
    value, factor = cfg.get("d_sae"), cfg.get("expansion_factor")
    if value is None and isinstance(factor, int) and not isinstance(factor, bool):
        value = d_in * factor
    return _width(value, "d_sae", where)


def _d_out(cfg: dict[str, Any], d_in: int, architecture: str, where: str) -> int:
    value = cfg.get("d_out")
    if architecture in TRANSCODERS:
        return _width(value, "d_out", where)
    if value is not None and value != d_in:
        raise WeightsError(f"{where}: d_out {value!r} with d_in {d_in} in a {architecture} SAE", "equal widths")
    return d_in


def _either(cfg: dict[str, Any], metadata: dict[str, Any], *keys: str) -> Any:
    """The first value that is there: in the metadata block, then at the top."""
    for table in (metadata, cfg):
        for key in keys:
            if table.get(key) is not None:
                return table[key]
    return None


def _hook_name(cfg: dict[str, Any], metadata: dict[str, Any], where: str) -> str:
    """The hook's name; ``{layer}`` in the oldest configs stands for ``hook_point_layer``."""
    found = [t[k] for t in (metadata, cfg) for k in ("hook_name", "hook_point") if t.get(k) is not None]
    if not found:
        raise WeightsError(f"{where}: no hook_name", f"the hook that the SAE was trained on: {_KNOWN}")
    if any(other != found[0] for other in found):
        raise WeightsError(f"{where}: two hooks, {found[0]!r} and {found[1]!r}", "one hook")
    name = found[0]
    if not isinstance(name, str) or len(name) > 200:
        raise WeightsError(f"{where}: hook_name {str(name)[:80]!r}", f"one of {_KNOWN}")
    return name.replace("{layer}", str(_either(cfg, metadata, "hook_layer", "hook_point_layer")))


def _place(
    cfg: dict[str, Any], metadata: dict[str, Any], hook_name: str, architecture: str, where: str
) -> tuple[str, int, str]:
    """(site, layer, what the encoder reads)."""
    transcoder = architecture in TRANSCODERS
    out = _either(cfg, metadata, "hook_name_out")
    if hook_name == "hook_embed" and not transcoder:
        layer, rest = 0, "hook_resid_pre"
    else:
        match = re.fullmatch(r"blocks\.(\d{1,5})\.(.+)", hook_name)
        block = _HF_BLOCK.fullmatch(hook_name)
        if match:
            layer, rest = int(match.group(1)), match.group(2)
        elif block:  # a Hugging Face block's output is the stream behind it
            layer, rest = int(block.group(1)), "hook_resid_post"
        else:
            raise WeightsError(f"{where}: hook {hook_name!r}", f"one of {_KNOWN}")
    if not transcoder:
        if rest not in _BLOCK_HOOKS:
            raise WeightsError(f"{where}: hook {hook_name!r} of a {architecture} SAE", f"one of {_KNOWN}")
        if out is not None and out != hook_name:
            raise WeightsError(
                f"{where}: a {architecture} SAE from {hook_name} to {out!r}", "the same hook, or a transcoder"
            )
        site, reads = _BLOCK_HOOKS[rest]
        return site, layer, reads
    if rest not in _TRANSCODER_HOOKS:
        raise WeightsError(f"{where}: hook {hook_name!r} of a {architecture}", f"one of {_KNOWN}")
    if out != f"blocks.{layer}.hook_mlp_out":
        raise WeightsError(
            f"{where}: a {architecture} from {hook_name} to {out!r}", f"hook_name_out blocks.{layer}.hook_mlp_out"
        )
    reads = _TRANSCODER_HOOKS[rest]
    kwargs = _either(cfg, metadata, "model_from_pretrained_kwargs")
    folded = isinstance(kwargs, dict) and kwargs.get("fold_ln") is True
    if reads == "gained_norm" and folded:  # trained on a model whose norms carry no gain any more
        reads = "plain_norm"
    hugging_face = _either(cfg, metadata, "hf_hook_name")
    if rest == "hook_mlp_in" and isinstance(hugging_face, str) and hugging_face.endswith("layernorm.output"):
        reads = "gained_norm"  # SAELens names the norm's output so, TransformerLens what goes into the norm
    return "mlp_in", layer, reads


def _flag(cfg: dict[str, Any], key: str, default: bool, where: str) -> bool:
    value = cfg.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise WeightsError(f"{where}: {key} is {value!r}", "true or false")
    return value


def _normalization(cfg: dict[str, Any], where: str) -> str:
    """The input convention; a boolean in old configs meant ``expected_average_only_in``."""
    value = cfg.get("normalize_activations")
    if value is None or value is False:
        return "none"
    if value is True:
        return "expected_average_only_in"
    if isinstance(value, str) and value in NORMALIZATIONS:
        return value
    do = ""
    if value == "covariance_whitening":
        do = "the whitening is not in the file; save the SAE with it folded into the weights"
    raise WeightsError(f"{where}: normalize_activations is {value!r}", "one of " + ", ".join(NORMALIZATIONS), do)
