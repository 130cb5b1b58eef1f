"""Bad SAE files: one clear line each, in bounded memory and time, and nothing of a file is ever run.

Containers are attacked by hand first, then by hypothesis: any bytes in any reader are read or refused by name.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests.catalog.conftest import D, write_model, write_sae
from wbtui.address import parse_address
from wbtui.catalog.formats import FORMATS, read_candidate, recognise
from wbtui.catalog.formats.base import read_yaml
from wbtui.catalog.models import find_model
from wbtui.catalog.saes import find_sae, list_saes
from wbtui.cli.compute import plan_of
from wbtui.errors import UsageError, WbtuiError, WeightsError
from wbtui.tensorfile import read_header
from wbtui.tui.draw.card import sae_notes

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CAMPAIGN = settings(FUZZ, max_examples=4000)


def npz(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """A zip file of raw members."""
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def npy(text: str, data: bytes = b"", version: int = 1) -> bytes:
    """An array as NumPy writes it, with any header text."""
    head = text.encode("latin-1")
    length = struct.pack("<H" if version == 1 else "<I", len(head))
    return b"\x93NUMPY" + bytes([version, 0]) + length + head + data


def refused(path: Path, match: str) -> None:
    """Refused by name, in one line, with little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=match) as caught:
            read_header(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in caught.value.line()
    assert str(path) in caught.value.line()
    assert peak < 30_000_000, f"{peak} bytes"


# -- zip and npz -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000000)}", "says F32"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}", "malformed array header"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (10**9, 10**9)}", "malformed array header"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "pickled objects"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "dtype"),
        ("{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}", "dtype '>f4'"),
        ("{'descr': '<f4', 'shape': (1,)}", "malformed array header"),
        ("__import__('os').system('touch /tmp/wbtui-was-here')", "malformed array header"),
        ("(" * 4000, "malformed array header"),
        ("9" * 9000, "malformed array header"),
    ],
)
def test_absurd_npz_headers(text: str, match: str, tmp_path: Path) -> None:
    refused(npz(tmp_path / "params.npz", {"W_dec.npy": npy(text, b"\0" * 4)}), match)
    assert not Path("/tmp/wbtui-was-here").exists()


def test_array_headers_that_are_too_long_or_of_no_version(tmp_path: Path) -> None:
    good = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}"
    refused(npz(tmp_path / "a.npz", {"W.npy": npy(good + " " * 20_000, b"\0" * 4, 2)}), "array header of")
    refused(npz(tmp_path / "b.npz", {"W.npy": npy(good, b"\0" * 4).replace(b"NUMPY\x01", b"NUMPY\x09")}), "version 9")
    refused(npz(tmp_path / "c.npz", {"W.npy": b"nothing of the kind"}), "no NumPy array")
    refused(npz(tmp_path / "d.npz", {"readme.txt": b"hello"}), "no arrays")
    (tmp_path / "e.npz").write_bytes(b"hello")
    refused(tmp_path / "e.npz", "not a zip file")


def test_zip_bombs(tmp_path: Path) -> None:
    """A member that unpacks to far more than it says, one that says more than deflate can do, and a thousand of
    them."""
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (100,)}"
    path = npz(tmp_path / "lie.npz", {"W.npy": npy(text, b"\0" * 400)}, zipfile.ZIP_DEFLATED)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\x01\x02") + 24
    for place in (at, raw.index(b"PK\x03\x04") + 22):
        raw[place : place + 4] = struct.pack("<I", 0xFFFFFF00)
    huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (1073741728,)}".ljust(len(text))
    assert len(huge) > 0
    path.write_bytes(raw)
    refused(path, "says F32|unpack to|zip bomb")

    # a true bomb: honest header, 40 MB of zeros behind it in 40 kB
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    header = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (10000000,)}")
    body = stream.compress(header) + b"".join(stream.compress(b"\0" * 1_000_000) for _ in range(40)) + stream.flush()
    refused(_raw_zip(tmp_path / "bomb.npz", "W.npy", body, 500), "says F32")

    # and one that keeps its word: 80 MB of zeros in 80 kB would be read, and so would 8 GB
    header = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (20000000,)}")
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = stream.compress(header) + b"".join(stream.compress(b"\0" * 1_000_000) for _ in range(80)) + stream.flush()
    refused(_raw_zip(tmp_path / "true.npz", "W.npy", body, len(header) + 80_000_000), "unpack to 80.*zip bomb")

    refused(npz(tmp_path / "many.npz", {f"{i}.npy": b"" for i in range(10_001)}), "10001 members")


def _raw_zip(path: Path, name: str, body: bytes, size: int) -> Path:
    """One deflated member with any declared size."""
    encoded = name.encode()
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 0, 0, len(body), size, len(encoded), 0)
    central = struct.pack(
        "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 8, 0, 0, 0, len(body), size, len(encoded), 0, 0, 0, 0, 0, 0
    )
    start = len(local) + len(encoded) + len(body)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(central) + len(encoded), start, 0)
    path.write_bytes(local + encoded + body + central + encoded + end)
    return path


def test_overlapping_and_outside_members(tmp_path: Path) -> None:
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}"
    path = npz(tmp_path / "a.npz", {"A.npy": npy(text, b"\0" * 4), "B.npy": npy(text, b"\0" * 4)})
    raw = bytearray(path.read_bytes())
    second = raw.rindex(b"PK\x01\x02")
    raw[second + 42 : second + 46] = struct.pack("<I", 0)  # B points at A's bytes
    path.write_bytes(raw)
    refused(path, "overlap")
    raw[second + 42 : second + 46] = struct.pack("<I", 0x7FFFFFFF)
    path.write_bytes(raw)
    refused(path, "no member where")
    path.write_bytes(raw[: len(raw) // 2])
    refused(path, "not a zip file")


# -- pt ----------------------------------------------------------------------------------------------------------------


class Evil:
    """Leaves a mark if it is ever unpickled."""

    mark = "/tmp/wbtui-unpickled"

    def __reduce__(self) -> Any:
        return (open, (self.mark, "w"))


def pt(path: Path, raw: bytes) -> Path:
    return npz(path, {"archive/data.pkl": raw, "archive/version": b"3\n"})


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_pickled_objects_are_refused_and_never_run(protocol: int, tmp_path: Path) -> None:
    refused(pt(tmp_path / "a.pt", pickle.dumps({"encoder.weight": Evil()}, protocol)), "its pickle holds")
    assert not Path(Evil.mark).exists()


def test_names_behind_the_known_ones_are_refused(tmp_path: Path) -> None:
    for name in ("posix\nsystem", "builtins\neval", "torch\nload", "torch.storage\n_load_from_bytes", "os\nsystem"):
        raw = b"\x80\x02c" + name.encode() + b"\n(X\x04\x00\x00\x00echotR."
        refused(pt(tmp_path / "a.pt", raw), "its pickle holds " + name.replace("\n", "."))


def test_pickles_that_would_eat_memory(tmp_path: Path) -> None:
    """A memo index of four thousand million, a long byte array that is not there, endless nesting."""
    for i, raw in enumerate(
        (
            b"\x80\x02}r\xff\xff\xff\xff.",
            b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
            b"\x80\x02" + b"]" * 100_000 + b".",
            b"\x80\x02(" + b"K\x01" * 100_000 + b"t.",
            b"\x80\x02X" + struct.pack("<I", 0xFFFFFFFF) + b"a.",
        )
    ):
        refused(pt(tmp_path / f"{i}.pt", raw), "pickle|holds a")


def test_old_and_alien_pt_files(tmp_path: Path) -> None:
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"a": 1}, 2))
    refused(tmp_path / "old.pt", "before 1.6")
    refused(npz(tmp_path / "none.pt", {"archive/version": b"3"}), "without data.pkl")
    refused(pt(tmp_path / "list.pt", pickle.dumps([1, 2], 2)), "holds a list")
    refused(pt(tmp_path / "empty.pt", pickle.dumps({}, 2)), "no tensor in it")


# -- safetensors -------------------------------------------------------------------------------------------------------


def with_header(path: Path, table: dict[str, Any], size: int = 64) -> Path:
    raw = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * size)
    return path


def test_offsets_of_sae_files(tmp_path: Path, model_folder: Path) -> None:
    folder = write_sae(tmp_path / "sae")
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    for table, match in (
        ({"W_dec": entry, "W_enc": {**entry, "data_offsets": [8, 24]}}, "overlap"),
        ({"W_dec": {**entry, "data_offsets": [1000, 1016]}}, "ends at byte"),
        ({"W_dec": {**entry, "shape": [10**18]}}, "spans 16 bytes"),
        ({"W_dec": {**entry, "data_offsets": [16, 0]}}, "spans -16"),
    ):
        file = with_header(folder / "sae_weights.safetensors", table)
        refused(file, match)


# -- catalog -----------------------------------------------------------------------------------------------------------


def gemma_scope(folder: Path, w_enc: np.ndarray, w_dec: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", W_enc=w_enc, W_dec=w_dec)
    return folder


def test_orientation_that_nothing_declares_is_refused(tmp_path: Path) -> None:
    square = np.zeros((D, D), np.float32)
    folder = gemma_scope(tmp_path / "gemma-scope-2b-pt-res" / "layer_1" / "w" / "k", square, square)
    with pytest.raises(WeightsError, match="square, and nothing says"):
        read_candidate(recognise(folder))
    turned = gemma_scope(
        tmp_path / "gemma-scope-2b-pt-res" / "layer_2" / "w" / "k",
        np.zeros((20, D), np.float32),
        np.zeros((20, D), "f4"),
    )
    with pytest.raises(WeightsError, match="one number of features"):
        read_candidate(recognise(turned))


def test_a_bare_file_needs_a_hint(tmp_path: Path, model_folder: Path) -> None:
    folder = gemma_scope(tmp_path / "somewhere", np.zeros((D, 20), np.float32), np.zeros((20, D), np.float32))
    with pytest.raises(WeightsError, match=r"nothing says which hook.*wbtui\.json"):
        read_candidate(recognise(folder))
    (folder / "wbtui.json").write_text('{"hook_name": "blocks.1.hook_resid_post", "model_name": "tiny"}')
    sae = find_sae(find_model(str(model_folder)), str(folder))
    assert (sae.layer, sae.site, sae.model_name) == (1, "resid_post", "tiny")
    (folder / "wbtui.json").write_text('{"hook": "blocks.1.hook_resid_post"}')
    with pytest.raises(WeightsError, match="'hook'.*expected some of"):
        read_candidate(recognise(folder))


def test_an_sae_of_another_model_is_named(tmp_path: Path, model_folder: Path) -> None:
    """Equal widths prove nothing: it opens, and says whose it is; it is never listed as the model's own."""
    folder = write_sae(tmp_path / "theirs", model_name="google/gemma-2-2b")
    model = find_model(str(model_folder))
    sae = find_sae(model, str(folder))
    assert any("google/gemma-2-2b" in note and model.name in note for note in sae.notes)
    ours = find_sae(model, str(write_sae(tmp_path / "ours", model_name="org/tiny")))
    assert ours.notes == []
    assert list_saes(model) == []


def test_the_warning_is_said_by_the_command_line_and_on_the_card(
    tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_sae(tmp_path / "theirs", model_name="google/gemma-2-2b")
    address = parse_address(f"{model_folder}@{folder}")
    plan, _ = plan_of(address, "folded")
    err = capsys.readouterr().err
    assert "trained on google/gemma-2-2b" in err and str(model_folder) in err
    lines = sae_notes(SimpleNamespace(plan=plan), 70)  # type: ignore[arg-type]
    assert "trained on google/gemma-2-2b" in "".join(part[0] for part in lines[0])


def test_nothing_known_names_what_would_be(tmp_path: Path, model_folder: Path) -> None:
    (tmp_path / "stuff").mkdir()
    with pytest.raises(WeightsError, match=r"no SAE of a known format.*Gemma Scope"):
        find_sae(find_model(str(model_folder)), str(tmp_path / "stuff"))
    with pytest.raises(UsageError, match="no SAE folder"):
        find_sae(find_model(str(model_folder)), str(tmp_path / "nowhere"))


def test_symlink_loops_and_deep_trees_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "models" / "tiny")
    root = tmp_path / "roots"
    write_sae(root / "a", layer=0)
    (root / "self").symlink_to(root)
    (root / "b").symlink_to(root / "c")
    (root / "c").symlink_to(root / "b")
    (root / "a" / "up").symlink_to(root)
    deep = root
    for _ in range(40):
        deep = deep / "d"
        deep.mkdir()
    monkeypatch.setenv("WBTUI_SAE_ROOTS", str(root))
    monkeypatch.setenv("WBTUI_MODEL_ROOTS", str(tmp_path / "models"))
    assert [sae.layer for sae in list_saes(find_model("tiny"))] == [0]


# -- any bytes at all --------------------------------------------------------------------------------------------------


def _good_npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, W_enc=np.ones((4, 6), "f4"), W_dec=np.ones((6, 4), "f4"))
    return out.getvalue()


def _good_pt() -> bytes:
    out = io.BytesIO()
    raw = pickle.dumps({"a": {"b": 1.5, "c": ["x", None, True]}}, 2)
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", raw)
        file.writestr("archive/data/0", b"\0" * 96)
    return out.getvalue()


GOOD = {".npz": _good_npz(), ".pt": _good_pt()}
DAMAGE = (st.sampled_from(sorted(GOOD)), st.binary(max_size=40), st.integers(0, 1500), st.booleans())


def damage(folder: Path, suffix: str, junk: bytes, at: int, cut: bool) -> None:
    data = GOOD[suffix]
    at %= len(data)
    path = folder / f"f{suffix}"
    path.write_bytes(data[:at] + junk + (b"" if cut else data[at + len(junk) :]))
    with contextlib.suppress(WeightsError):
        header = read_header(path)
        assert all(0 <= t.begin <= t.end <= header.size for t in header.tensors.values())


@FUZZ
@given(*DAMAGE)
def test_any_damage_to_a_container(tmp_path: Path, suffix: str, junk: bytes, at: int, cut: bool) -> None:
    damage(tmp_path, suffix, junk, at, cut)


@pytest.mark.faults
@CAMPAIGN
@given(*DAMAGE)
def test_any_damage_to_a_container_campaign(tmp_path: Path, suffix: str, junk: bytes, at: int, cut: bool) -> None:
    damage(tmp_path, suffix, junk, at, cut)


PICKLE_BYTES = st.lists(
    st.sampled_from([bytes([op]) for op in b"()}]{K\x01\x02tR.QbuseaX\x00\x00\x00\x00cNI01\n\x85\x86\x87\x94hqrj\x8a"])
    | st.binary(max_size=3),
    max_size=40,
).map(lambda parts: b"\x80\x02" + b"".join(parts) + b".")


def any_pickle(folder: Path, raw: bytes) -> None:
    with contextlib.suppress(WeightsError):
        read_header(pt(folder / "f.pt", raw))


@FUZZ
@given(PICKLE_BYTES)
def test_any_pickle(tmp_path: Path, raw: bytes) -> None:
    any_pickle(tmp_path, raw)


@pytest.mark.faults
@CAMPAIGN
@given(PICKLE_BYTES)
def test_any_pickle_campaign(tmp_path: Path, raw: bytes) -> None:
    any_pickle(tmp_path, raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from((
    "architecture", "d_in", "d_sae", "hook_name", "metadata", "trainer", "dict_class", "activation_dim", "dict_size",
    "layer", "lm_name", "submodule_name", "num_latents", "expansion_factor", "transcode", "d_model", "hook_point_in",
    "hook_point_out", "dataset_average_activation_norm", "model_name", "hf_hook_point_in", "act_size", "act_name",
    "normalize_activations", "apply_b_dec_to_input",
))  # fmt: skip
LAYOUTS: dict[str, tuple[str, str]] = {
    "saelens": ("cfg.json", "sae_weights.safetensors"),
    "sparsify": ("cfg.json", "sae.safetensors"),
    "llama_scope": ("config.json", "sae_weights.safetensors"),
    "gemma_scope_2": ("config.json", "params.safetensors"),
    "hook_z_kk": ("run_cfg.json", "run.pt"),
    "dictionary_learning": ("config.json", "ae.pt"),
}
CONFIGS = (st.sampled_from(sorted(LAYOUTS)), JSON | st.dictionaries(KEYS, JSON, max_size=5))


def any_config(folder: Path, kind: str, config: Any) -> None:
    config_name, weights_name = LAYOUTS[kind]
    place = folder / kind
    place.mkdir(exist_ok=True)
    (place / config_name).write_text(json.dumps(config))
    weights = place / weights_name
    if not weights.exists():
        if weights.suffix == ".pt":
            weights.write_bytes(GOOD[".pt"])
        else:
            names = {"saelens": ("W_enc", "W_dec"), "gemma_scope_2": ("w_enc", "w_dec")}.get(
                kind, ("encoder.weight", "decoder.weight")
            )
            arrays = {
                names[0]: np.ones((20, D), "f4"),
                names[1]: np.ones((D, 20), "f4"),
                "W_dec": np.ones((20, D), "f4"),
            }
            save_file(arrays, weights)
    target = weights if kind == "hook_z_kk" else place
    with contextlib.suppress(WbtuiError):
        fields = FORMATS[kind].read(recognise(target))
        json.dumps(fields)


@settings(FUZZ, max_examples=30)
@given(*CONFIGS)
def test_any_config(tmp_path: Path, kind: str, config: Any) -> None:
    any_config(tmp_path, kind, config)


@pytest.mark.faults
@CAMPAIGN
@given(*CONFIGS)
def test_any_config_campaign(tmp_path: Path, kind: str, config: Any) -> None:
    any_config(tmp_path, kind, config)


@FUZZ
@given(st.text(alphabet="abc: \n-'\"#1.{}[]&*|>", max_size=120))
def test_any_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert isinstance(read_yaml(tmp_path / "x.yaml"), dict)
