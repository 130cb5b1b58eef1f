"""A tile of scores: exponents, and the compiled way through it."""

from __future__ import annotations

import pytest
import torch

from wbtui.analysis import attention_tile, piece
from wbtui.analysis.attention_pairs import ColumnSums, query_pass
from wbtui.analysis.attention_tile import Softmax
from wbtui.analysis.power import DEEPEST
from wbtui.analysis.streaming import TileBuffer

CPU = torch.device("cpu")


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("partners", [False, True])
def test_exponents_below_what_fp32_holds_in_full_are_never_taken(
    partners: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores hundreds of powers of e below their row's peak, where a CPU's exponential is a hundred times slower."""
    lowest, real = [], attention_tile.power
    monkeypatch.setattr(attention_tile, "power", lambda y, out: lowest.append(float(y.min())) or real(y, out=out))
    q, k = random(70, 8, seed=1) * 60, random(3000, 8, seed=2)
    columns = ColumnSums(3000, CPU)
    zero = torch.zeros(3000)
    plain = Softmax(None, False)
    found = query_pass(q, zero[:70], k, zero, plain, TileBuffer(), columns=columns, partners=partners)
    logits = q.double() @ k.double().T
    assert (logits - logits.amax(1, keepdim=True)).min() < -500
    assert min(lowest) == pytest.approx(DEEPEST, rel=1e-6)
    torch.testing.assert_close(found["log_z"], logits.logsumexp(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(columns.received, logits.softmax(1).sum(0), rtol=1e-3, atol=1e-6)


def test_a_compiled_tile_is_the_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this torch compiles nothing the same source runs as it stands, to the same digits."""
    q, k, zero = random(150, 8, seed=1), random(1600, 8, seed=2), torch.zeros(1600)
    both = []
    for function in (piece.plain_piece, piece.plain_piece.__wrapped__):
        monkeypatch.setattr(attention_tile, "plain_piece", function)
        columns = ColumnSums(1600, CPU)
        found = query_pass(q, zero[:150], k, zero, Softmax(None, False), TileBuffer(), columns=columns, partners=False)
        both.append([*found.values(), columns.abs, columns.received, columns.max])
    assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))
