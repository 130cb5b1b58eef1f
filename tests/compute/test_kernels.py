"""The choice of kernels: measured once per machine, read back, overridden, never a product that is not fp32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from wbtui.compute import kernels
from wbtui.compute.kernels import FOLDER, Kernels, kernels_for, probe
from wbtui.errors import WorkError

BIG = kernels.LEAST
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch):
    """A measurement of milliseconds, nothing known, and the process as it was afterwards."""
    monkeypatch.setattr(kernels, "TOKENS", 1024)
    monkeypatch.setattr(kernels, "DIM", 64)
    monkeypatch.setattr(kernels, "_known", {})
    monkeypatch.setattr(kernels, "_threads_at_first", 0)
    monkeypatch.delenv("WBTUI_PRODUCT", raising=False)
    threads = torch.get_num_threads()
    yield
    kernels.apply(Kernels())
    torch.set_num_threads(threads)


def test_measured_once_said_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    first = kernels_for(tmp_path, "cpu", BIG)
    assert "kernels on cpu" in capsys.readouterr().err
    [file] = (tmp_path / FOLDER).iterdir()
    assert json.loads(file.read_text())["gflops"]["fp32"] > 0
    monkeypatch.setattr(kernels, "_known", {})
    monkeypatch.setattr(kernels, "probe", lambda device: pytest.fail("measured again"))
    assert kernels_for(tmp_path, "cpu", BIG) == first


@pytest.mark.parametrize("content", ["", "[]", '{"product": "fp8", "onednn": false, "threads": 0, "gflops": {}}'])
def test_a_file_that_says_nothing_is_measured_again(tmp_path: Path, content: str) -> None:
    path = tmp_path / FOLDER / kernels._name(torch.device("cpu"))
    path.parent.mkdir()
    path.write_text(content)
    assert kernels_for(tmp_path, "cpu", BIG).gflops
    assert json.loads(path.read_text())["gflops"]


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    assert kernels_for(tmp_path, "cpu", BIG).gflops


def test_small_work_and_a_lone_feature_measure_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "probe", lambda device: pytest.fail("measured"))
    assert kernels_for(tmp_path, "cpu", BIG - 1) == Kernels()
    assert kernels_for(tmp_path, "cpu", BIG, measure=False) == Kernels()


def test_the_setting_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "probe", lambda device: Kernels("bf16"))
    assert kernels_for(tmp_path, "cpu", BIG).product == "bf16"
    for chosen in ("tf32", "fp32"):
        monkeypatch.setenv("WBTUI_PRODUCT", chosen)
        assert kernels_for(tmp_path, "cpu", BIG).product == chosen
    monkeypatch.setenv("WBTUI_PRODUCT", "bf16")
    assert kernels_for(tmp_path, "cpu", 10).product == "bf16"
    assert kernels_for(tmp_path, "cpu", 10).dtype == "bf16, lists in float32"


def test_the_faster_is_taken_only_by_a_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are given, not measured: what runs second is bf16 with its lists settled."""
    for seconds, want in ((0.5, "bf16"), (0.9, "fp32"), (3.0, "fp32")):
        monkeypatch.setattr(
            kernels, "_timed", lambda run, device, s=seconds: s if "_settled" in run.__qualname__ else 1
        )
        assert probe("cpu").product == want


def test_fp32_that_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = kernels.streaming.product

    def short(directions, tokens, out, buffer, **more):
        return real(directions.bfloat16().float(), tokens, out, buffer, **more)

    monkeypatch.setattr(kernels.streaming, "product", short)
    with pytest.raises(WorkError, match="fp32 products on cpu are off"):
        probe("cpu")


def test_threads_and_kernel_are_put_back_for_small_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.setattr(kernels, "probe", lambda device: Kernels(onednn=True, threads=1))
    kernels_for(tmp_path, "cpu", BIG)
    assert torch.get_num_threads() == 1
    kernels_for(tmp_path, "cpu", 10)
    assert torch.get_num_threads() == 2
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    assert matmul is None or matmul.fp32_precision == "none"


def test_cores_are_those_of_the_control_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, *a: "150000 50000" if self.name == "cpu.max" else read(self, *a)
    )
    assert kernels.available() == 3
    monkeypatch.setattr(Path, "read_text", lambda self, *a: "max 100000")
    assert kernels.available() == 64


@CUDA
@pytest.mark.gpu
def test_cuda_fp32_is_fp32_even_where_a_container_allows_tf32(tmp_path: Path) -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    kernels.strict(torch.device("cuda"))
    a, b = torch.randn((128, 2048), device="cuda"), torch.randn((2048, 4096), device="cuda")
    truth = a.double() @ b.double()
    assert float(((a @ b).double() - truth).abs().max() / truth.abs().max()) < kernels.CLOSE
    assert probe("cuda").gflops
