"""Train the demo's language model: a Gemma-2 of four million parameters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import Gemma2Config, Gemma2ForCausalLM

from .tokenizer import BOS, EOS

WINDOW = 127  # tokens after <bos>
BATCH = 32


@dataclass
class Settings:
    """What the caller may choose; `compiled` and `bf16` of None mean "measure"."""

    steps: int
    seed: int = 0
    bf16: bool | None = None
    compiled: bool = True
    validate_every: int = 200
    checkpoint: Path | None = None


def build_model(vocabulary: int) -> Gemma2ForCausalLM:
    config = Gemma2Config(
        vocab_size=vocabulary,
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=48,
        query_pre_attn_scalar=48,
        intermediate_size=512,
        sliding_window=64,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=EOS,
        bos_token_id=BOS,
    )
    config._attn_implementation = "eager"  # Gemma-2's soft cap excludes the fused kernels
    return Gemma2ForCausalLM(config)


def windows(stream: np.ndarray, offset: int = 0) -> torch.Tensor:
    """The stream cut into rows of <bos> + 127 tokens."""
    body = stream[offset:]
    body = body[: len(body) // WINDOW * WINDOW].reshape(-1, WINDOW).astype(np.int64)
    return torch.from_numpy(np.concatenate([np.full((len(body), 1), BOS, np.int64), body], axis=1))


def loss_of(model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=rows[:, :-1], use_cache=False).logits.float()
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


@torch.no_grad()
def validation_loss(model: torch.nn.Module, rows: torch.Tensor, most: int | None = None) -> float:
    rows = rows[:most]
    total = sum(loss_of(model, part).item() * len(part) for part in rows.split(BATCH))
    return total / len(rows)


def _optimizers(model: torch.nn.Module) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=0.02, momentum=0.95, nesterov=True, weight_decay=0.05, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def _factor(step: int, steps: int) -> float:
    """Learning rate: short warm-up, constant to 30 %, then linear to 2 %."""
    warm = min(100, max(1, steps // 10))
    if step < warm:
        return (step + 1) / warm
    done = step / steps
    return 1.0 if done < 0.3 else 1.0 - 0.98 * (done - 0.3) / 0.7


def faster_in_bf16(vocabulary: int, rows: torch.Tensor, probe: int = 4) -> tuple[bool, dict[str, float]]:
    """Time a few steps either way: with AVX512-BF16 it wins, with AVX2 alone it is four times slower."""
    seconds = {}
    for name in ("fp32", "bf16"):
        torch.manual_seed(0)
        model = build_model(vocabulary)
        started = 0.0
        for i in range(probe + 1):
            if i == 1:
                started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16) if name == "bf16" else nullcontext():
                loss = loss_of(model, rows[:BATCH])
            loss.backward()
        seconds[name] = round((time.perf_counter() - started) / probe, 3)
    return seconds["bf16"] < seconds["fp32"], seconds


def train(
    stream: np.ndarray, held_out: np.ndarray, vocabulary: int, settings: Settings, say: Callable[[str], None] = print
) -> tuple[Gemma2ForCausalLM, dict]:
    """Train for a fixed number of steps (never by the clock: the result must not depend on the load)."""
    validation = windows(held_out)
    rows = windows(stream)
    bf16 = settings.bf16
    probe: dict[str, float] = {}
    if bf16 is None:
        bf16, probe = faster_in_bf16(vocabulary, rows)
        say(f"seconds per step: {probe}; bf16: {bf16}")
    torch.manual_seed(settings.seed)
    model = build_model(vocabulary)
    loss_function = torch.compile(loss_of) if settings.compiled else loss_of
    optimizers = _optimizers(model)
    base = [[g["lr"] for g in o.param_groups] for o in optimizers]
    generator = np.random.default_rng(settings.seed)
    order, at, epoch, curve = generator.permutation(len(rows)), 0, 0, []
    started = time.perf_counter()
    for step in range(settings.steps):
        if at + BATCH > len(order):
            # Another cut of the stream each epoch, so that no token always sits at the start of a window.
            epoch += 1
            rows = windows(stream, int(generator.integers(WINDOW)))
            order, at = generator.permutation(len(rows)), 0
        batch = rows[torch.from_numpy(order[at : at + BATCH])]
        at += BATCH
        factor = _factor(step, settings.steps)
        for optimizer, rates in zip(optimizers, base, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            try:
                loss = loss_function(model, batch)
            except Exception as error:  # no compiler, or one that fails: slower, but the same training
                if loss_function is loss_of:
                    raise
                say(f"torch.compile failed ({type(error).__name__}), going on without")
                loss_function = loss_of
                loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if not math.isfinite(loss.item()):
            raise RuntimeError(f"the loss is not finite at step {step}")
        if (step + 1) % 50 == 0 or step == 0:
            speed = (step + 1) * BATCH * WINDOW / (time.perf_counter() - started)
            say(f"step {step + 1}/{settings.steps} loss {loss.item():.3f} {speed / 1000:.1f} k tokens/s")
        if (step + 1) % settings.validate_every == 0 or step + 1 == settings.steps:
            value = validation_loss(model, validation, 128)
            curve.append([step + 1, round(loss.item(), 4), round(value, 4)])
            say(f"  validation {value:.3f}")
            if settings.checkpoint:
                model.save_pretrained(settings.checkpoint)
    seconds = time.perf_counter() - started
    final = validation_loss(model, validation)
    record = {
        "steps": settings.steps,
        "tokens": settings.steps * BATCH * WINDOW,
        "seed": settings.seed,
        "epochs": round(settings.steps * BATCH * WINDOW / len(stream), 3),
        "seconds": round(seconds, 1),
        "tokens_per_second": round(settings.steps * BATCH * WINDOW / seconds),
        "bf16_autocast": bf16,
        "probe_seconds_per_step": probe,
        "compiled": loss_function is not loss_of,
        "parameters": sum(p.numel() for p in model.parameters()),
        "validation_nats_per_token": round(final, 4),
        "curve_step_train_validation": curve,
    }
    return model, record
