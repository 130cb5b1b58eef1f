"""Read a feature's word list from weights alone, and judge the lists without the model's own geometry."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from transformers import Gemma2ForCausalLM, PreTrainedTokenizerBase

TOP = 10
NULL = 2000
WHOLE_WORD = re.compile(r"Ġ[A-Za-z]{3,}")


@dataclass
class Readout:
    """The folded unembedding, the token mask and the names of the tokens."""

    unembedding: torch.Tensor  # D x V, the final norm's gain folded in
    keep: torch.Tensor  # V, False for special and under-trained tokens
    names: list[str]

    def logits(self, directions: torch.Tensor) -> torch.Tensor:
        unit = directions / directions.norm(dim=1, keepdim=True)
        return (unit @ self.unembedding).masked_fill(~self.keep, float("-inf"))

    def top(self, directions: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the ten largest logits, and z of the tenth over the kept tokens."""
        logits = self.logits(directions)
        kept = logits[:, self.keep]
        values, ids = logits.topk(TOP, dim=1)
        z10 = (values[:, -1] - kept.mean(1)) / kept.std(1, correction=0)
        return ids.numpy(), z10.numpy()


@torch.no_grad()
def make(model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerBase, cut: float = 0.7, count: int = 10) -> Readout:
    """The mask uses weights only: under-trained tokens sit in one tight cluster, so they have many neighbours."""
    embedding = model.model.embed_tokens.weight.detach().float()
    centred = embedding - embedding.mean(0)
    centred = centred / centred.norm(dim=1, keepdim=True)
    neighbours = (centred @ centred.T > cut).sum(1) - 1
    keep = neighbours < count
    keep[tokenizer.all_special_ids] = False
    gain = 1.0 + model.model.norm.weight.detach().float()
    return Readout(gain[:, None] * embedding.T, keep, tokenizer.convert_ids_to_tokens(range(len(embedding))))


def purity(names: list[str], senses: dict[str, set[str]]) -> tuple[int, str]:
    """How many of the tokens share one WordNet supersense, and which."""
    counts: dict[str, int] = {}
    for name in names:
        for sense in senses.get(name.lstrip("Ġ").lower(), ()) if WHOLE_WORD.fullmatch(name) else ():
            counts[sense] = counts.get(sense, 0) + 1
    return max(((n, s) for s, n in counts.items()), default=(0, ""))


def null_of(readout: Readout, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    return readout.top(torch.randn(NULL, readout.unembedding.shape[0], generator=generator))


def judge(readout: Readout, decoder: torch.Tensor, senses: dict[str, set[str]]) -> dict:
    """Rows in the order of the app's first view (z_10 in null units times word share), and the shares of pure lists."""
    null_ids, null_z10 = null_of(readout)
    low, high = np.median(null_z10), np.quantile(null_z10, 0.99)
    ids, z10 = readout.top(decoder)
    rows: list[dict] = []
    for feature, (row, z) in enumerate(zip(ids, z10, strict=True)):
        names = [readout.names[i] for i in row]
        words = sum(bool(WHOLE_WORD.fullmatch(n)) for n in names) / TOP
        same, sense = purity(names, senses)
        rows.append(
            {
                "feature": feature,
                "score": round(float((z - low) / (high - low) * words), 3),
                "words": words,
                "z10": round(float(z), 2),
                "same": same,
                "sense": sense,
                "top": names,
            }
        )
    noise = [purity([readout.names[i] for i in row], senses)[0] for row in null_ids]
    rows.sort(key=lambda r: -r["score"])
    return {
        "pure_share": round(float(np.mean([r["same"] >= 4 for r in rows])), 4),
        "pure_share_6": round(float(np.mean([r["same"] >= 6 for r in rows])), 4),
        "pure_share_noise": round(float(np.mean(np.array(noise) >= 4)), 4),
        "pure_share_6_noise": round(float(np.mean(np.array(noise) >= 6)), 4),
        "word_share": round(float(np.mean([r["words"] for r in rows])), 4),
        "above_null_p99_z10": round(float((z10 > high).mean()), 4),
        "rows": rows,
    }
