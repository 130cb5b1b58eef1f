"""Which file of a checkpoint folder holds which tensor, and which tensors an analysis needs. Headers only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wbtui.catalog.architectures import Architecture
from wbtui.catalog.models import read_json
from wbtui.errors import WeightsError
from wbtui.tensorfile import read_header


def tensor_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> safetensors file of a Hugging Face folder, single or sharded.

    Raises:
        WeightsError: no safetensors file, a shard is missing or damaged.
    """
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if index.is_file():
        table = read_json(index, "a safetensors index").get("weight_map")
        if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
            raise WeightsError(f"{index}: no weight_map", "a map from tensor names to file names")
        for file in sorted(set(table.values())):
            if Path(file).name != file:
                raise WeightsError(f"{index}: file name {file!r}", "a plain file name in the same folder")
        return {str(name): folder / file for name, file in table.items()}
    if single.is_file():
        return dict.fromkeys(read_header(single).tensors, single)
    if any(folder.glob("*.bin")):
        raise WeightsError(
            f"{folder}: only pickled weights (*.bin)",
            "model.safetensors",
            "convert them: load with transformers and save_pretrained(safe_serialization=True)",
        )
    raise WeightsError(f"{folder}: no weights", "model.safetensors or model.safetensors.index.json")


def resolve(names: dict[str, Path], arch: Architecture, name: str, where: str) -> str:
    """The full name of a tensor: ``name`` behind whichever prefix the checkpoint uses.

    Raises:
        WeightsError: no such tensor under any prefix.
    """
    for prefix in (*arch.prefixes, ""):
        if prefix + name in names:
            return prefix + name
    raise WeightsError(f"{where}: no tensor {name}", " or ".join(p + name for p in arch.prefixes))


def tokens_tensors(names: dict[str, Path], arch: Architecture, tied: bool, where: str) -> dict[str, str]:
    """The model tensors of E1 by role: ``embedding``, ``unembedding``, ``final_norm``.

    Raises:
        WeightsError: one is missing.
    """
    embedding = resolve(names, arch, arch.embedding, where)
    out = {"embedding": embedding, "final_norm": resolve(names, arch, arch.final_norm, where)}
    if tied:
        out["unembedding"] = embedding
    else:
        if not any(prefix + arch.unembedding in names for prefix in (*arch.prefixes, "")):
            raise WeightsError(
                f"{where}: no tensor {arch.unembedding}, and the config says that embeddings are not tied",
                f"{arch.unembedding} [d_vocab, d_model]",
            )
        out["unembedding"] = resolve(names, arch, arch.unembedding, where)
    return out


def site_tensors(
    names: dict[str, Path],
    arch: Architecture,
    site: str,
    layer: int,
    where: str,
    conventions: dict[str, Any] | None = None,
) -> list[str]:
    """Model tensors that map a site's directions into the residual stream (methods 3.6); empty on the stream itself.

    Args:
        conventions: of the SAE; ``writes: module_output`` is a sublayer's own output, in front of a norm behind it.
    """
    wanted: list[str] = []
    if site == "hook_z":
        wanted = [arch.attention_out] + ([arch.post_attention_norm] if arch.post_attention_norm else [])
    elif site == "mlp_post":
        if arch.experts and not any(p + arch.mlp_out.format(l=layer) in names for p in (*arch.prefixes, "")):
            raise WeightsError(
                f"{where}: the MLP of layer {layer} is a mixture of experts",
                "an SAE on the stream or on what the MLP puts out: no one matrix leads from its neurons there",
            )
        wanted = [arch.mlp_out] + ([arch.post_mlp_norm] if arch.post_mlp_norm else [])
    elif site == "mlp_in":
        wanted = [arch.mlp_norm] if arch.mlp_norm is not None else []
    post = module_norm(arch, site, conventions or {})
    if post is not None:
        wanted.append(post)
    return [resolve(names, arch, name.format(l=layer), where) for name in wanted]


def module_norm(arch: Architecture, site: str, conventions: dict[str, Any]) -> str | None:
    """The norm through which a module's own output reaches the stream, where an SAE was trained in front of it."""
    if conventions.get("writes") != "module_output":
        return None
    return {"attn_out": arch.post_attention_norm, "mlp_out": arch.post_mlp_norm, "mlp_in": arch.post_mlp_norm}.get(site)
