"""Places along the residual stream."""

from __future__ import annotations

import pytest

from wbtui.catalog.saes import SaeInfo
from wbtui.catalog.stream import at_position, feeds, label, one_per_hook, parse_position, read_position, write_position
from wbtui.errors import UsageError


def sae(name: str, site: str, layer: int, d_sae: int = 64) -> SaeInfo:
    return SaeInfo(name, f"/{name}", "saelens", "standard", f"blocks.{layer}.hook_{site}", layer, site, 8, 8, d_sae)


def test_the_same_stream_has_one_position() -> None:
    assert write_position("resid_post", 3) == write_position("resid_pre", 4) == 8
    sites = ("resid_pre", "attn_out", "hook_z", "resid_mid", "mlp_out", "resid_post")
    assert [write_position(s, 2) for s in sites] == [4, 5, 5, 5, 6, 6]
    assert [read_position(s, 2) for s in ("resid_pre", "resid_mid", "mlp_in", "resid_post", "mlp_out")] == [
        4, 5, 5, 6, None,
    ]  # fmt: skip
    assert write_position("attn_out", 2, parallel=True) == 6 and read_position("mlp_in", 2, parallel=True) == 4
    for p in range(12):
        assert parse_position(label(p), 6) == p
    assert parse_position("blocks.3.hook_resid_post", 6) == parse_position("4.resid_pre", 6) == 8


@pytest.mark.parametrize("text", ["", "L3", "L3.mlp_out", "L9.resid_post", "resid_post", "L-1.resid_pre"])
def test_no_position(text: str) -> None:
    with pytest.raises(UsageError):
        parse_position(text, 6)


def test_who_feeds_whom() -> None:
    early, late, twin = sae("L1", "resid_post", 1), sae("L2", "resid_post", 2), sae("L2b", "resid_pre", 3)
    transcoder, mlp = sae("T2", "mlp_in", 2), sae("M2", "mlp_out", 2)
    assert feeds(early, late) and not feeds(late, early)
    assert not feeds(late, twin) and not feeds(twin, late)  # one stream described twice
    assert feeds(transcoder, late) and not feeds(late, transcoder)  # its output has just joined what `late` reads
    assert feeds(early, transcoder) and feeds(mlp, late)
    assert not feeds(early, mlp)  # that encoder reads no stream
    assert feeds(sae("mid", "resid_mid", 2), transcoder)
    assert not feeds(sae("A2", "attn_out", 2), transcoder, parallel=True)


def test_one_dictionary_a_hook() -> None:
    saes = [sae("L3", "resid_post", 3), sae("L3-seed2", "resid_post", 3), sae("L1-wide", "resid_post", 1, 512),
            sae("L1", "resid_post", 1), sae("L1-mlp", "mlp_out", 1)]  # fmt: skip
    assert [s.name for s in one_per_hook(saes)] == ["L1-mlp", "L1", "L3"]
    assert [s.name for s in one_per_hook(saes, saes[1])] == ["L1-mlp", "L1", "L3-seed2"]
    assert [s.name for s in one_per_hook(saes, saes[2])] == ["L1-mlp", "L1-wide", "L3"]
    assert [s.name for s in at_position(saes, 8)] == ["L3", "L3-seed2"]
