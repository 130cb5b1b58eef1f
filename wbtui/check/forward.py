"""One forward pass of the real model, and everything of it that our formulas speak of.

The model is built by transformers in float32 with eager attention from the same files. Modules are found by the names
that the architecture table gives to their tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wbtui.catalog.tensors import tensor_files
from wbtui.errors import WeightsError
from wbtui.sources.checkpoint import Checkpoint
from wbtui.tensorfile import read_header

PROMPTS = (
    "The cat sat on the mat, and the dog ran over the hill in 2024.",
    "On Monday she said: the river is cold (but clear), isn't it?",
    'def add(a, b):\n    return a + b  # "sum"',
)
MAX_TOKENS = 48


@dataclass
class Seen:
    """One prompt through the real model; all tensors fp32 on the CPU.

    Attributes:
        ids: ``[n]``. streams: layer -> ``[n, D]`` what it reads.
        attention: layer -> ``[H, n, n]``. out: layer -> ``[n, D]`` what attention put out, in front of
            a norm behind it.
        behind: layer -> ``[n, D]`` what that norm put out, where there is one.
        last: ``[n, D]`` in front of the final norm. logits: ``[n, V]``.
    """

    ids: Tensor
    streams: dict[int, Tensor] = field(default_factory=dict)
    attention: dict[int, Tensor] = field(default_factory=dict)
    out: dict[int, Tensor] = field(default_factory=dict)
    behind: dict[int, Tensor] = field(default_factory=dict)
    last: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))


class RealModel:
    """The model as transformers builds it.

    Args:
        ckpt: the same model's checkpoint.
        device: a torch device.
        headless: layers without heads.

    Raises:
        WeightsError: transformers cannot load it.
    """

    def __init__(self, ckpt: Checkpoint, device: str, headless: tuple[int, ...]) -> None:
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        try:
            self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                ckpt.folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
            )
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            raise WeightsError(
                f"{ckpt.folder}: transformers cannot load it ({type(error).__name__}: {error})", "a complete checkpoint"
            ) from None
        self.model.eval().to(device)
        self.device = device
        self.layers = [layer for layer in range(ckpt.dims.n_layers) if layer not in headless]
        arch = ckpt.architecture
        self.outputs = {layer: self._named(arch.attention_out.format(l=layer)) for layer in self.layers}
        post = arch.post_attention_norm
        self.norms = {} if post is None else {layer: self._named(post.format(l=layer)) for layer in self.layers}
        self.final_norm = self._named(arch.final_norm)

    def _named(self, tensor: str) -> Any:
        """The module that holds a tensor of the table, behind whatever prefix."""
        suffix = tensor.removesuffix(".weight")
        found = [
            (name, module)
            for name, module in self.model.named_modules()
            if (name == suffix or name.endswith("." + suffix))
            and "vision" not in name
            and (".layers." not in f".{name}" or "layers." in suffix)
        ]
        if len(found) != 1:
            raise WeightsError(f"{len(found)} modules named {suffix} in the real model", "one")
        return found[0][1]

    @torch.no_grad()
    def run(self, ids: Tensor) -> Seen:
        """One prompt ``[n]`` through the model."""
        seen = Seen(ids)
        handles = [self.final_norm.register_forward_hook(lambda _m, args, _o: setattr(seen, "last", _plain(args[0])))]
        for kept, modules in ((seen.out, self.outputs), (seen.behind, self.norms)):
            for layer, module in modules.items():

                def keep(_m: Any, _args: Any, output: Tensor, to: dict[int, Tensor] = kept, layer: int = layer) -> None:
                    to[layer] = _plain(output)

                handles.append(module.register_forward_hook(keep))
        try:
            result = self.model(
                ids[None].to(self.device), output_attentions=True, output_hidden_states=True, use_cache=False
            )
        finally:
            for handle in handles:
                handle.remove()
        seen.logits = _plain(result.logits)
        for layer in self.layers:
            seen.streams[layer] = _plain(result.hidden_states[layer])
        if result.attentions is None or len(result.attentions) != len(self.layers):
            raise WeightsError("the real model gives no attention for every layer with heads", "eager attention")
        for layer, attention in zip(self.layers, result.attentions, strict=True):
            seen.attention[layer] = _plain(attention)
        return seen


def _plain(x: Tensor) -> Tensor:
    return x.detach()[0].float().cpu()


def bytes_needed(folder: Path) -> int:
    """What the real model takes in float32: four bytes a number of every tensor in the files."""
    files = set(tensor_files(folder).values())
    return 4 * sum(math.prod(t.shape) for file in files for t in read_header(file).tensors.values())


def bytes_available() -> int | None:
    """Memory that the machine can give without swapping; None where that is not told (off Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def prompt_ids(folder: Path, prompts: list[str], d_vocab: int) -> tuple[list[Tensor], str]:
    """Token ids of prompts, and in words where they come from; random ids where the folder has no tokenizer."""
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        found = [tokenizer(prompt)["input_ids"][:MAX_TOKENS] for prompt in prompts]
        if all(len(ids) > 1 and max(ids) < d_vocab for ids in found):
            return [torch.tensor(ids) for ids in found], f"{len(prompts)} prompts"
    except Exception:  # any fault of a tokenizer: the check needs ids, not words
        pass
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(0, d_vocab, (24,), generator=generator) for _ in prompts]
    return ids, f"{len(prompts)} sequences of random tokens (no usable tokenizer in the folder)"
