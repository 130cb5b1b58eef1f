"""Train sparse autoencoders on the residual stream of the demo model.

BatchTopK by threshold: one running threshold per SAE is set so that about `k` features are active per token.
The gradients are written by hand; they are short and about twice as fast as autograd here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Gemma2ForCausalLM

WIDTH, K = 1024, 16
BATCH = 1524
LEARNING_RATE = 8e-3  # at 1e-3 and few steps the features stay near their random start
SILENT_AFTER = 100_000  # tokens


@dataclass
class Sae:
    """Weights on the raw residual stream: `relu`-like jump at `threshold`, decoder rows of unit norm."""

    W_enc: torch.Tensor
    W_dec: torch.Tensor
    b_enc: torch.Tensor
    b_dec: torch.Tensor
    threshold: torch.Tensor

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        pre = (x - self.b_dec) @ self.W_enc + self.b_enc
        return pre * (pre > self.threshold)

    def decode(self, f: torch.Tensor) -> torch.Tensor:
        return f @ self.W_dec + self.b_dec


@torch.no_grad()
def collect(model: Gemma2ForCausalLM, rows: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Residual stream after every layer in fp16, without the <bos> position, and the token that came next.

    Forward hooks, because the last entry of `hidden_states` is taken after the final norm.
    """
    layers = model.model.layers
    width, tokens = model.config.hidden_size, len(rows) * (rows.shape[1] - 2)
    store = [torch.empty(tokens, width, dtype=torch.float16) for _ in layers]
    at = 0

    def hook(index: int) -> Callable:
        def keep(_module: torch.nn.Module, _inputs: tuple, output: torch.Tensor | tuple) -> None:
            x = output[0] if isinstance(output, tuple) else output
            x = x[:, 1:-1].flatten(0, 1)
            store[index][at : at + len(x)] = x.half()

        return keep

    handles = [layer.register_forward_hook(hook(i)) for i, layer in enumerate(layers)]
    model.eval()
    for part in rows.split(32):
        with torch.autocast("cpu", torch.bfloat16, enabled=False):
            model.model(input_ids=part, use_cache=False)
        at += len(part) * (rows.shape[1] - 2)
    for handle in handles:
        handle.remove()
    return store, rows[:, 2:].flatten()


def _rate(step: int, steps: int) -> float:
    warm = min(50, max(1, steps // 10))
    if step < warm:
        return (step + 1) / warm
    done = step / steps
    return 1.0 if done < 0.6 else 1.0 - 0.98 * (done - 0.6) / 0.4


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-8)


@torch.no_grad()
def train(activations: torch.Tensor, steps: int, seed: int, frozen_decoder: bool = False) -> tuple[Sae, dict]:
    """One SAE. `frozen_decoder` keeps the random directions of the start: the control."""
    generator = torch.Generator().manual_seed(seed)
    sample = activations[torch.randperm(len(activations), generator=generator)[:20_000]].float()
    mean = sample.mean(0)
    width = activations.shape[1]
    scale = width**0.5 / (sample - mean).norm(dim=1).mean()
    W_dec = _unit(torch.randn(WIDTH, width, generator=generator))
    weights = {"W_enc": W_dec.T.clone(), "W_dec": W_dec, "b_enc": torch.zeros(WIDTH), "b_dec": mean * scale}
    first = {n: torch.zeros_like(w) for n, w in weights.items()}
    second = {n: torch.zeros_like(w) for n, w in weights.items()}
    last_fired = torch.zeros(WIDTH)
    threshold, started = None, time.perf_counter()
    order, at = torch.randperm(len(activations), generator=generator), 0
    for step in range(steps):
        if at + BATCH > len(order):
            order, at = torch.randperm(len(activations), generator=generator), 0
        x = activations[order[at : at + BATCH]].float() * scale
        at += BATCH
        W_enc, W_dec, b_enc, b_dec = (weights[n] for n in ("W_enc", "W_dec", "b_enc", "b_dec"))
        centred = x - b_dec
        pre = torch.addmm(b_enc, centred, W_enc)
        # The cut that leaves k per token, from 128 rows (they are in random order), smoothed over steps.
        cut = pre[:128].flatten().topk(128 * K).values[-1].clamp_min(0.0)
        threshold = cut if threshold is None else threshold + (0.3 if step < 50 else 0.03) * (cut - threshold)
        active = pre > threshold
        f = pre * active
        error = torch.addmm(b_dec, f, W_dec) - x
        last_fired = torch.where(active.any(0), 0.0, last_fired + BATCH)
        g_out = error * (2.0 / BATCH)
        g_pre = (g_out @ W_dec.T) * active
        g_dec = f.T @ g_out
        silent = (last_fired > SILENT_AFTER).nonzero().flatten()
        if len(silent):
            # Silent features learn to explain what the others leave over, on part of the batch.
            n = 512
            part = pre[:n, silent]
            top = part.topk(min(48, len(silent)), dim=1)
            h = torch.zeros_like(part).scatter_(1, top.indices, top.values.clamp_min(0.0))
            rest = (h @ W_dec[silent] + error[:n]) * (2.0 / n / 8.0)
            g_dec[silent] += h.T @ rest
            g_pre[:n, silent] += (rest @ W_dec[silent].T) * (h > 0)
        gradients = {
            "W_enc": centred.T @ g_pre,
            "b_enc": g_pre.sum(0),
            "b_dec": g_out.sum(0) - g_pre.sum(0) @ W_enc.T,
            # Only the part across the row: its length is fixed at one.
            "W_dec": g_dec - (g_dec * W_dec).sum(1, keepdim=True) * W_dec,
        }
        rate = LEARNING_RATE * _rate(step, steps)
        for name, gradient in gradients.items():
            if frozen_decoder and name == "W_dec":
                continue
            first[name].lerp_(gradient, 0.1)
            second[name].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            root = (second[name] / (1 - 0.999 ** (step + 1))).sqrt_().add_(1e-8)
            weights[name].addcdiv_(first[name], root, value=-rate / (1 - 0.9 ** (step + 1)))
        if not frozen_decoder:
            weights["W_dec"] = _unit(weights["W_dec"])
    sae = Sae(
        weights["W_enc"],
        weights["W_dec"],
        weights["b_enc"] / scale,
        weights["b_dec"] / scale,
        (threshold / scale).repeat(WIDTH),
    )
    return sae, {
        "steps": steps,
        "tokens": steps * BATCH,
        "seed": seed,
        "frozen_decoder": frozen_decoder,
        "seconds": round(time.perf_counter() - started, 1),
    }


@torch.no_grad()
def measure(encode: Callable, decode: Callable, held_out: torch.Tensor) -> dict[str, float]:
    """Explained variance, active features per token and silent features on held-out text."""
    total = ((held_out.float() - held_out.float().mean(0)) ** 2).sum().item()
    error, active, fired = 0.0, 0.0, torch.zeros(WIDTH, dtype=torch.long)
    for part in held_out.split(4096):
        x = part.float()
        f = encode(x)
        error += ((decode(f) - x) ** 2).sum().item()
        fired += (f > 0).sum(0)
        active += (f > 0).sum().item()
    return {
        "explained_variance": round(1 - error / total, 4),
        "L0": round(active / len(held_out), 2),
        "dead": int((fired == 0).sum()),
        "dead_share": round(float((fired == 0).float().mean()), 4),
        "firing_over_10_percent": int((fired > 0.1 * len(held_out)).sum()),
    }


def export(sae: Sae, folder: Path, layer: int, version: str, seed: int, note: str) -> None:
    """A SAELens folder in fp16, as `SAE.load_from_disk` accepts it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {n: getattr(sae, n).half().contiguous() for n in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}
    save_file(tensors, folder / "sae_weights.safetensors")
    config = {
        "architecture": "jumprelu",
        "d_in": sae.W_enc.shape[0],
        "d_sae": WIDTH,
        "dtype": "float16",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "model_name": "wbtui-demo",
            "hook_name": f"blocks.{layer}.hook_resid_post",
            "hf_hook_name": f"model.layers.{layer}",
            "context_size": 128,
            "prepend_bos": True,
            "sae_lens_version": version,
            "seed": seed,
            "note": note,
        },
    }
    (folder / "cfg.json").write_text(json.dumps(config, indent=2) + "\n")


def firing(sae_encode: Callable, activations: torch.Tensor) -> np.ndarray:
    """Dense activations of every feature on every token, in fp16 (for the lift table)."""
    with torch.no_grad():
        return torch.cat([sae_encode(p.float()).half() for p in activations.split(4096)]).numpy()


@torch.no_grad()
def spliced_loss(model: Gemma2ForCausalLM, rows: torch.Tensor, layer: int, through: Callable | None) -> float:
    """Nats per token with the stream after `layer` replaced by `through(stream)`; <bos> stays as it is."""
    from .language_model import validation_loss

    if through is None:
        return validation_loss(model, rows)

    def replace(_module: torch.nn.Module, _inputs: tuple, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
        x = (output[0] if isinstance(output, tuple) else output).clone()
        x[:, 1:] = through(x[:, 1:].flatten(0, 1)).view_as(x[:, 1:])
        return (x, *output[1:]) if isinstance(output, tuple) else x

    handle = model.model.layers[layer].register_forward_hook(replace)
    try:
        return validation_loss(model, rows)
    finally:
        handle.remove()


@torch.no_grad()
def agreement(one: torch.Tensor, two: torch.Tensor) -> dict[str, float]:
    """Share of decoder rows whose mutual nearest row in the other SAE is closer than a cosine."""
    cosine = _unit(one) @ _unit(two).T
    best, there = cosine.max(1)
    mutual = cosine.max(0).indices[there] == torch.arange(len(one))
    return {f"mutual_cosine_above_{cut}": round(float((mutual & (best > cut)).float().mean()), 4) for cut in (0.7, 0.9)}
