"""Bad models: configs and files that lie. A one-line error each, little memory, no long wait; then by hypothesis.

The campaign of many inputs is ``pytest -m slow tests/catalog/test_bad_models.py``; a small seeded part runs always.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.catalog.conftest import write_model
from wbtui.catalog.architectures import ARCHITECTURES, dimensions, effective_config
from wbtui.catalog.attention import attention_facts, headless_layers, rotary_frequencies
from wbtui.catalog.models import find_model, list_models
from wbtui.catalog.tensors import tensor_files
from wbtui.errors import UsageError, WbtuiError, WeightsError
from wbtui.tensorfile import read_header

FEW = 150
MANY = 10_000


def one_line(error: WbtuiError) -> None:
    line = error.line()
    assert "\n" not in line and len(line) < 2000, line[:200]


@pytest.fixture(autouse=True)
def bounded(request: pytest.FixtureRequest) -> Any:
    """A bounded wait and 300 MB more at most, whatever the file claims."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 300, f"{grown:.0f} MB"
    if request.node.get_closest_marker("slow") is None:
        assert time.monotonic() - start < 60  # generous: a shared machine; what hangs takes for ever


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 10**9},
        {"hidden_size": 10**12},
        {"vocab_size": 2**70},
        {"head_dim": 10**7},
        {"num_attention_heads": 10**6},
        {"hidden_size": 64.5},
        {"hidden_size": "64" * 10**5},
        {"tie_word_embeddings": "perhaps"},
        {"model_type": "x" * 10**6},
        {"model_type": ["gemma2"]},
        {"model_type": "gemma3"},
        {"model_type": "gemma3", "text_config": [1]},
        {"model_type": "gemma3", "text_config": {"model_type": "clip"}},
        {"use_bidirectional_attention": True},
    ],
)
def test_absurd_configs(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = write_model(tmp_path / "bad", **change)
    with pytest.raises(WeightsError) as caught:
        find_model(str(folder))
    assert "config.json" in caught.value.line()
    one_line(caught.value)


@pytest.mark.parametrize("where", ["hidden_size", "text_config", "layers"])
def test_a_number_without_end_is_named(tmp_path: Path, where: str) -> None:
    """GIVEN a number of 100,000 digits, which Python does not read THEN the error names its key and how long it is."""
    folder = write_model(tmp_path / "bad")
    number = "9" * 100_000
    inner = {"hidden_size": number, "text_config": f'{{"vocab_size": -{number}}}', "layers": f"[1, {number}]"}[where]
    (folder / "config.json").write_text(f'{{"model_type": "gemma2", "eos": 12345, "{where}": {inner}}}')
    named = {"hidden_size": "hidden_size is a number of 100,000", "text_config": "vocab_size is a number of 100,000"}
    with pytest.raises(WeightsError, match=rf"config\.json: .*{named.get(where, 'a number too long')}") as caught:
        find_model(str(folder))
    one_line(caught.value)


def test_a_number_without_end_in_a_header_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    raw = f'{{"w": {{"dtype": "F32", "shape": [{"9" * 100_000}], "data_offsets": [0, 4]}}}}'.encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(4))
    with pytest.raises(WeightsError, match="header is not JSON .*shape is a number of 100,000 digits"):
        read_header(path)


def test_a_number_in_quotes_is_shown_in_quotes(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "bad", num_hidden_layers="2")
    with pytest.raises(WeightsError, match="num_hidden_layers is '2'; expected a whole number"):
        find_model(str(folder))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10**5,
        "{" * 10**5,
        '{"a":' * 10**4,
        "1" * 10**5,
        "\0",
        "nan",
        '{"model_type": "llama", "hidden_size": 1e999}',
    ],
)
def test_configs_that_are_not_json(tmp_path: Path, text: str) -> None:
    folder = write_model(tmp_path / "bad")
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError) as caught:
        find_model(str(folder))
    one_line(caught.value)


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("trick", [_loop, _pipe, _endless])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_links_that_lead_nowhere(
    tmp_path: Path, name: str, trick: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to itself, a pipe that nobody writes to, a device without end: refused at once, and left out of lists."""
    folder = write_model(tmp_path / "roots" / "bad")
    trick(folder / name)
    with pytest.raises(WeightsError) as caught:
        find_model(str(folder)) if name == "config.json" else tensor_files(folder)
    one_line(caught.value)
    monkeypatch.setenv("WBTUI_MODEL_ROOTS", str(tmp_path / "roots"))
    assert list_models()[0].name == "demo"
    if name == "model.safetensors":
        with pytest.raises(WeightsError):
            read_header(folder / name)


def test_a_folder_that_is_a_loop(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError) as caught:
        find_model(str(tmp_path / "loop"))
    one_line(caught.value)


def raw(path: Path, text: bytes, data: bytes = b"", length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [10**4000] * 60, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2] * 10**6, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**4000]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4] * 1000},
        {"dtype": "F32", "shape": {"1": 1}, "data_offsets": [0, 4]},
        {"dtype": "F" * 10**6, "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
    ],
)
def test_entries_that_lie(tmp_path: Path, entry: dict[str, Any]) -> None:
    with pytest.raises(WeightsError) as caught:
        read_header(raw(tmp_path / "x", json.dumps({"a" * 10**5: entry}).encode(), b"\0" * 8))
    one_line(caught.value)


def test_a_huge_header(tmp_path: Path) -> None:
    """A sparse file of 100 MB whose header fills it: refused by its length alone."""
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 90_000_000))
        file.truncate(100_000_000)
    with pytest.raises(WeightsError, match="header length"):
        read_header(path)


def test_many_tensors_are_read_in_time(tmp_path: Path) -> None:
    names = {f"layers.{i}.w": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(50_000)}
    assert len(read_header(raw(tmp_path / "x", json.dumps(names).encode(), bytes(50_000))).tensors) == 50_000


# --- hypothesis -------------------------------------------------------------------------------------------------------

_NUMBERS = st.one_of(
    st.integers(), st.integers(0, 12), st.floats(), st.booleans(), st.none(), st.just(10**30), st.text(max_size=4)
)
_JSON = st.recursive(
    _NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_ENTRY = st.one_of(
    _JSON,
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "BF16", "U8", "BOOL", "F99", 3]),
            "shape": st.one_of(st.lists(st.integers(-1, 4), max_size=3), _JSON),
            "data_offsets": st.one_of(st.tuples(st.integers(-2, 40), st.integers(-2, 40)), _JSON),
        }
    ),
)


def check_header(tmp_path: Path, table: Any, data: bytes, flips: list[tuple[int, int]], length: int | None) -> None:
    """Whatever the bytes: a header whose tensors lie inside the file and apart, or a refusal in one line."""
    path = raw(tmp_path / "x", json.dumps(table).encode(), data, length)
    content = bytearray(path.read_bytes())
    for place, value in flips:
        content[place % len(content)] = value
    path.write_bytes(content)
    try:
        header = read_header(path)
    except WeightsError as error:
        one_line(error)
        return
    spans = sorted((t.begin, t.end) for t in header.tensors.values())
    assert all(header.data_start <= a <= b <= len(content) for a, b in spans)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans) if b[0] < b[1])


_HEADERS: Any = {
    "table": st.one_of(_JSON, st.dictionaries(st.text(max_size=8), _ENTRY, max_size=4)),
    "data": st.binary(max_size=40),
    "flips": st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3),
    "length": st.one_of(st.none(), st.none(), st.integers(0, 2**64 - 1)),
}
_quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@given(**_HEADERS)
@settings(max_examples=FEW, suppress_health_check=_quiet, deadline=None, derandomize=True)
def test_any_header(tmp_path: Path, table: Any, data: bytes, flips: Any, length: int | None) -> None:
    check_header(tmp_path, table, data, flips, length)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(**_HEADERS)
@settings(max_examples=MANY, suppress_health_check=_quiet, deadline=None)
def test_any_header_many_times(tmp_path: Path, table: Any, data: bytes, flips: Any, length: int | None) -> None:
    check_header(tmp_path, table, data, flips, length)


_ROPE = st.dictionaries(
    st.sampled_from(
        ["rope_type", "type", "factor", "rope_theta", "attention_factor", "mscale", "mscale_all_dim", "beta_fast",
         "beta_slow", "short_factor", "original_max_position_embeddings", "partial_rotary_factor", "truncate",
         "low_freq_factor", "high_freq_factor", "full_attention", "sliding_attention"]
    ),
    st.one_of(_JSON, st.sampled_from(["yarn", "longrope", "llama3", "linear", "dynamic", "su"]), st.floats(0, 100)),
    max_size=6,
)  # fmt: skip
_FIELDS = sorted(
    {key for arch in ARCHITECTURES.values() for key in (*arch.defaults, *arch.must, "head_dim")}
    | {"sliding_window", "use_sliding_window", "layer_types", "sliding_window_pattern", "full_attention_interval",
       "max_window_layers", "attn_logit_softcapping", "rope_theta", "rope_local_base_freq", "partial_rotary_factor",
       "rotary_pct", "rotary_emb_base", "qk_layernorm", "scale_attn_by_inverse_layer_idx", "query_pre_attn_scalar"}
)  # fmt: skip
_CONFIGS: Any = {
    "model_type": st.sampled_from(sorted(ARCHITECTURES)),
    "fields": st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=5),
    "rope": st.one_of(st.none(), _ROPE, _JSON),
    "scaling": st.one_of(st.none(), st.none(), _ROPE),
    "inner": st.one_of(st.just(True), st.just(True), _JSON),
}


def check_config(model_type: str, fields: dict[str, Any], rope: Any, scaling: Any, inner: Any) -> None:
    """Whatever the config: facts that are finite numbers, or a refusal in one line."""
    config: dict[str, Any] = fields | {"model_type": model_type}
    if rope is not None:
        config["rope_parameters"] = rope
    if scaling is not None:
        config["rope_scaling"] = scaling
    if ARCHITECTURES[model_type].text_configs and inner is not None:
        config["text_config"] = {k: v for k, v in config.items() if k != "model_type"} if inner is True else inner
    config = json.loads(json.dumps(config))
    try:
        flat = effective_config(config, "config.json")
        dims = dimensions(flat, "config.json")
        layout = ARCHITECTURES[model_type].attention
        headless_layers(flat, layout, min(dims.n_layers, 100), "config.json")
        for layer in range(min(dims.n_layers, 3)):
            facts = attention_facts(flat, layout, dims.n_heads, dims.d_head, layer, "config.json")
            assert 0 < facts.scale < float("inf") and 0 < facts.rotary_gain < float("inf")
            assert dims.n_heads % facts.n_kv_heads == 0
            if facts.rope is not None:
                angles = rotary_frequencies(facts.rope, facts.d_head)
                assert len(angles) <= facts.d_head and all(0 <= a < float("inf") for a in angles)
    except WbtuiError as error:
        one_line(error)


@given(**_CONFIGS)
@settings(max_examples=FEW, suppress_health_check=_quiet, deadline=None, derandomize=True)
def test_any_config(model_type: str, fields: Any, rope: Any, scaling: Any, inner: Any) -> None:
    check_config(model_type, fields, rope, scaling, inner)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(**_CONFIGS)
@settings(max_examples=MANY, suppress_health_check=_quiet, deadline=None)
def test_any_config_many_times(model_type: str, fields: Any, rope: Any, scaling: Any, inner: Any) -> None:
    check_config(model_type, fields, rope, scaling, inner)
