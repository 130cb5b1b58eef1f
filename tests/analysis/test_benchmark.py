"""The E1 benchmark runs whole at a toy size; its figures are not judged here."""

from __future__ import annotations

import json

import torch

from benchmarks import e1


def test_benchmark_runs(tmp_path, capsys):
    out, threads = tmp_path / "e1.json", torch.get_num_threads()
    size = ["--d-model", "16", "--vocab", "700", "--features", "9", "--repeat", "1", "--threads", str(threads)]
    assert e1.main([*size, "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["writes_both_signs"]["ratio"] > 0
    assert found["lone_feature_tied_bf16"]["median_ms"] > 0
    assert "aim 1.15" in capsys.readouterr().out
