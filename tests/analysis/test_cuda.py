"""E1 on a CUDA device, where there is one: the CPU's numbers, whatever the product's bits. Never run without a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.analysis.helpers import dyadic, table, vocabulary
from wbtui.analysis.features import feature_rows, instant_row
from wbtui.analysis.rounded import DTYPES, fast_matmul
from wbtui.analysis.tokens import token_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.mark.parametrize("product", ["fp32", *DTYPES])
def test_lists_are_those_of_the_cpu_to_the_bit_where_sums_are_exact(product):
    rng = np.random.default_rng(5)
    tokens, directions = dyadic(rng, 9000, 64, span=30), dyadic(rng, 200, 64, span=60)
    keep = np.arange(9000) % 11 != 0
    vocab = vocabulary(9000)
    plain = token_rows(directions, table(tokens, vocab, keep=keep))
    side = table(tokens, vocab, keep=keep, product=product, device="cuda")
    for tile in (16, 128, 1024):
        found = token_rows(directions, side, tile=tile)
        for name in ("top_ids", "bottom_ids", "top_values", "bottom_values", "n_masked_above", "word_ids"):
            np.testing.assert_array_equal(found[name], plain[name], err_msg=name)


@pytest.mark.parametrize("product", ["fp32", *DTYPES])
def test_all_columns_are_near_those_of_the_cpu(product):
    rng = torch.Generator().manual_seed(0)
    tokens, d, e = (torch.randn((n, 128), generator=rng) for n in (70_000, 140, 140))
    vocab = vocabulary(70_000)
    keep = np.arange(70_000) % 13 != 0
    plain_side, side = (
        [table(tokens, vocab, keep=keep, centre_values=c, device=device, product=bits) for c in (False, True)]
        for device, bits in (("cpu", "fp32"), ("cuda", product))
    )
    norm = {"gain": torch.ones(128), "centre": False}
    plain, found = (feature_rows(d, e, *pair, **norm) for pair in (plain_side, side))
    for name in ("writes.mean", "writes.std", "writes.z_max", "reads.z_max", "writes.h_kappa", "reads.top_cos"):
        np.testing.assert_allclose(found[name], plain[name], rtol=5e-3, atol=5e-3, err_msg=name)
    if product == "fp32":
        one = instant_row(d[0], e[0], *side, **norm)
        np.testing.assert_allclose(one["writes.z_max"], plain["writes.z_max"][:1], rtol=1e-4)


def test_switches_are_put_back():
    matmul = torch.backends.cuda.matmul
    before = (matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_reduced_precision_reduction)
    for kind in DTYPES:
        with fast_matmul(kind):
            assert not matmul.allow_bf16_reduced_precision_reduction
    assert before == (matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_reduced_precision_reduction)


def test_memory_that_runs_out_is_said_as_such():
    from wbtui.service.worker import reason_of

    free, _ = torch.cuda.mem_get_info()
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2 * free, dtype=torch.uint8, device="cuda")
    assert reason_of(caught.value) == "memory"
