"""A lone feature with numpy: against the float64 reference and torch's rows, for every dtype and layout."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from tests.analysis import reference
from tests.analysis.helpers import assert_columns, dyadic, table, vocabulary
from wbtui.analysis import lone
from wbtui.analysis.features import instant_row
from wbtui.analysis.lone import Centre, LoneTable, Matrix, lone_feature, token_order
from wbtui.definitions import TokensDefinition
from wbtui.errors import Cancelled, WeightsError, WorkError
from wbtui.floats import widened

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def raw(tokens: torch.Tensor) -> np.ndarray:
    return (tokens.view(torch.uint16) if tokens.dtype == torch.bfloat16 else tokens).numpy()


def tables(tokens, vocab, keep, definition=None, scale=1.0):
    """(numpy's sides, torch's sides) of a tied model."""
    writes = table(tokens, vocab, definition, keep=keep)
    order, mean = token_order(keep), Centre()
    ours = LoneTable(
        Matrix(raw(tokens)), order, int(keep.sum()), 1.0, False, vocab["word"], vocab["whole_word"], writes.norms,
        writes.definition, False, mean,
    )  # fmt: skip
    values = {"scale": scale, "centre_values": True}
    return (ours, dataclasses.replace(ours, **values)), (writes, writes.shared(**values))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "dim", "masked"), [(37, 24, 0.2), (1000, 24, 0.0), (9001, 24, 0.2), (4000, 25, 0.2)])
def test_every_number_and_every_tie(dtype, n, dim, masked, monkeypatch):
    """GIVEN weights whose products are exact, so that ties are real
    THEN every list is the reference's, however rows are cut into blocks; an odd width takes the other way in."""
    for name in ("BLOCK_BYTES", "BLOCK_BYTES_ALONE"):
        monkeypatch.setattr(lone, name, 1 << 13)
    rng = np.random.default_rng(n)
    tokens, d, e = (dyadic(rng, k, dim, span=3) for k in (n, 4, 4))
    keep = rng.random(n) >= masked
    vocab = vocabulary(n)
    small = TokensDefinition(k_show=12, k_sem=10, k_words=20)
    sides, _ = tables(tokens.to(DTYPES[dtype]), vocab, keep, small, 6.5)
    one = [lone_feature(d[i].numpy(), e[i].numpy(), *sides, gain=None, centre=False) for i in range(4)]
    found = {name: np.concatenate([row[name] for row in one]) for name in one[0]}
    length = np.linalg.norm(d.double().numpy(), axis=1)
    for side, rows, more in (("writes", d, {}), ("reads", e, {"scale": 6.5, "centre_values": True})):
        expected = reference.side(rows, tokens, keep, vocab, small, **more)
        if side == "writes":
            for name in ("top_values", "bottom_values", "mean", "std", "masked_best_value"):
                expected[name] = expected[name] / length.reshape((-1,) + (1,) * (expected[name].ndim - 1))
        mine = {k.removeprefix(f"{side}."): v for k, v in found.items() if k.startswith(f"{side}.")}
        assert_columns(mine, expected, int(keep.sum()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_row_as_torch_gives(dtype):
    """Folded, under a LayerNorm, bad rows too: seen lone, then from the product, nothing visibly changes."""
    n, dim = 1500, 32
    rng = torch.Generator().manual_seed(3)
    tokens = (torch.randn((n, dim), generator=rng) + 0.3).to(DTYPES[dtype])
    d, e = torch.randn((6, dim), generator=rng), torch.randn((6, dim), generator=rng)
    gain = torch.rand(dim, generator=rng) + 0.5
    d[1], d[2], e[3], d[4] = float("nan"), 0.0, float("inf"), 1.0  # the last: nothing is left of it when centred
    ours, theirs = tables(tokens, vocabulary(n), np.arange(n) % 11 != 0, scale=5.0)
    for i in range(6):
        for sides in ((0, 1), (0,)):
            mine = [ours[k] for k in sides] + [None] * (2 - len(sides))
            other = [theirs[k] for k in sides] + [None] * (2 - len(sides))
            encoder = e[i] if len(sides) == 2 else None
            a = lone_feature(
                d[i].numpy(), None if encoder is None else encoder.numpy(), *mine, gain=gain.numpy(), centre=True
            )
            b = instant_row(d[i], encoder, *other, gain=gain, centre=True)
            for name, values in b.items():
                assert a[name].dtype == values.dtype, name
                if values.dtype.kind in "iu":
                    np.testing.assert_array_equal(a[name], values, err_msg=name)
                else:
                    np.testing.assert_allclose(a[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("where", [3, 4])
def test_a_token_matrix_with_nan_is_refused_masked_or_not(where):
    n = 400
    tokens = torch.randn((n, 16), generator=torch.Generator().manual_seed(1))
    tokens[where, 5] = float("nan")
    ours, _ = tables(torch.nan_to_num(tokens), vocabulary(n), np.arange(n) != 4)
    sides = [dataclasses.replace(s, rows=Matrix(raw(tokens)), mean=Centre()) for s in ours]
    with pytest.raises(WeightsError, match="NaN or infinite"):
        lone_feature(np.ones(16, np.float32), None, sides[0], None, gain=None, centre=False)


def test_no_token_kept_and_a_dtype_that_is_none():
    with pytest.raises(WorkError, match="drops every token"):
        token_order(np.zeros(5, bool))
    with pytest.raises(TypeError):
        Matrix(np.zeros((2, 2), np.int64))


@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_pass_can_be_stopped_and_asked_for_again(threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    n = 20_000
    tokens = torch.randn((n, 16), generator=torch.Generator().manual_seed(1)).bfloat16()
    ours, _ = tables(tokens, vocabulary(n), np.ones(n, bool))
    seen, lock = [], threading.Lock()

    def stop():
        with lock:
            seen.append(1)
            return len(seen) > 3

    d = np.random.default_rng(0).standard_normal(16).astype(np.float32)
    with pytest.raises(Cancelled):
        lone_feature(d, d, *ours, gain=None, centre=False, stop=stop)
    assert ours[0].mean.value is None
    row = lone_feature(d, d, *ours, gain=None, centre=False)
    wide = tokens.double().numpy()
    assert row["reads.top_ids"][0, 0] == int(np.argmax(wide @ d.astype(np.float64)))
    np.testing.assert_allclose(ours[0].mean.value, wide.mean(0), atol=1e-6)
    assert ours[0].mean is ours[1].mean, "a tied model's sides share the pass"


def test_promotion_is_exact():
    every = np.arange(1 << 16, dtype=np.uint16)
    there = torch.from_numpy(every.copy()).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(widened(every).view(np.uint32), there.view(np.uint32))


def test_no_torch_on_the_way():
    """What a worker loads before its first row, in a process of its own."""
    code = "import sys, wbtui.compute.work; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
