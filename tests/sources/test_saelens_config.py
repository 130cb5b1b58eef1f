"""SAELens configs as data: both layouts, every hook, and refusals with found and expected."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures import SAE_ARCHITECTURES, SITES
from wbtui.catalog.saelens_config import ARCHITECTURES, parse_saelens_config
from wbtui.errors import WeightsError

NEW: dict[str, Any] = {
    "architecture": "jumprelu",
    "d_in": 32,
    "d_sae": 64,
    "dtype": "float32",
    "apply_b_dec_to_input": False,
    "normalize_activations": "none",
    "metadata": {"hook_name": "blocks.5.hook_resid_post", "model_name": "gemma-2-2b"},
}
OLD: dict[str, Any] = {
    "hook_point": "blocks.7.hook_resid_pre",
    "hook_point_layer": 7,
    "d_in": 32,
    "d_sae": 64,
    "activation_fn_str": "relu",
    "normalize_activations": False,
}
TRANSCODER: dict[str, Any] = {
    **NEW,
    "architecture": "transcoder",
    "d_out": 32,
    "metadata": {"hook_name": "blocks.2.mlp.hook_in", "hook_name_out": "blocks.2.hook_mlp_out"},
}


def parse(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A config with changes; those named ``m_…`` go into its metadata."""
    inner = {k[2:]: v for k, v in changes.items() if k.startswith("m_")}
    cfg = {**base, **{k: v for k, v in changes.items() if not k.startswith("m_")}}
    if inner:
        cfg["metadata"] = {**cfg.get("metadata", {}), **inner}
    return parse_saelens_config(cfg, "cfg.json")


def test_both_layouts_give_the_same_fields() -> None:
    assert parse(NEW) == {
        "d_in": 32,
        "d_out": 32,
        "d_sae": 64,
        "architecture": "jumprelu",
        "hook_name": "blocks.5.hook_resid_post",
        "layer": 5,
        "site": "resid_post",
        "conventions": {
            "apply_b_dec_to_input": False,
            "normalize_activations": "none",
            "tied_encoder": False,
            "reads": "stream",
        },
    }
    old = parse(OLD)
    assert (old["architecture"], old["site"], old["layer"]) == ("standard", "resid_pre", 7)
    assert old["conventions"]["apply_b_dec_to_input"] is True
    assert old["conventions"]["normalize_activations"] == "none"
    named = parse(
        {k: v for k, v in OLD.items() if not k.startswith("hook")}, hook_name="blocks.7.hook_resid_pre", hook_layer=7
    )
    assert named == old


def test_oldest_spellings() -> None:
    assert parse(OLD, hook_point="blocks.{layer}.hook_resid_pre")["hook_name"] == "blocks.7.hook_resid_pre"
    assert parse(OLD, normalize_activations=True)["conventions"]["normalize_activations"] == "expected_average_only_in"
    assert parse(OLD, activation_fn_str="topk")["architecture"] == "topk"
    assert parse({k: v for k, v in OLD.items() if k != "d_sae"}, expansion_factor=8)["d_sae"] == 256


def test_conventions_are_plain_json() -> None:
    """They are part of a product's key."""
    for base in (NEW, OLD, TRANSCODER):
        conventions = parse(base)["conventions"]
        assert json.loads(json.dumps(conventions)) == conventions


@pytest.mark.parametrize("site", [s for s in SITES if s != "mlp_in"])
def test_every_site(site: str) -> None:
    parsed = parse(NEW, m_hook_name=SITES[site].format(l=4))
    assert (parsed["site"], parsed["layer"]) == (site, 4)
    assert parsed["conventions"]["reads"] == ("stream" if site.startswith("resid") else "off_stream")


@pytest.mark.parametrize(
    ("hook", "site", "layer"),
    [
        ("blocks.3.hook_in", "resid_pre", 3),
        ("blocks.3.hook_out", "resid_post", 3),
        ("model.layers.12", "resid_post", 12),
        ("model.language_model.layers.30", "resid_post", 30),
        ("transformer.h.0", "resid_post", 0),
        ("gpt_neox.layers.5", "resid_post", 5),
        ("hook_embed", "resid_pre", 0),
    ],
)
def test_other_names_of_the_stream(hook: str, site: str, layer: int) -> None:
    parsed = parse(NEW, m_hook_name=hook)
    assert (parsed["site"], parsed["layer"], parsed["hook_name"]) == (site, layer, hook)


@pytest.mark.parametrize(
    ("hook", "kwargs", "reads"),
    [
        ("mlp.hook_in", None, "gained_norm"),
        ("mlp.hook_in", {"fold_ln": False}, "gained_norm"),
        ("mlp.hook_in", {"fold_ln": True}, "plain_norm"),
        ("ln2.hook_normalized", None, "plain_norm"),
        ("ln2.hook_normalized", {"fold_ln": False}, "plain_norm"),
        ("ln2.hook_out", None, "gained_norm"),
        ("hook_resid_mid", None, "stream"),
        ("hook_mlp_in", None, "stream"),
    ],
)
def test_what_a_transcoder_reads(hook: str, kwargs: dict[str, bool] | None, reads: str) -> None:
    parsed = parse(TRANSCODER, m_hook_name=f"blocks.2.{hook}", m_model_from_pretrained_kwargs=kwargs)
    assert (parsed["site"], parsed["layer"], parsed["conventions"]["reads"]) == ("mlp_in", 2, reads)


def test_hook_mlp_in_that_means_the_norms_output() -> None:
    hf = "model.layers.2.pre_feedforward_layernorm.output"
    parsed = parse(TRANSCODER, m_hook_name="blocks.2.hook_mlp_in", m_hf_hook_name=hf)
    assert parsed["conventions"]["reads"] == "gained_norm"


def test_every_architecture_of_the_fixtures_is_known() -> None:
    assert set(SAE_ARCHITECTURES) == set(ARCHITECTURES)


def test_tied_encoders() -> None:
    assert parse(NEW, architecture="matching_pursuit")["conventions"]["tied_encoder"] is True
    assert parse(NEW, architecture="temporal")["conventions"]["tied_encoder"] is True
    assert parse(NEW, architecture="temporal", tied_weights=False)["conventions"]["tied_encoder"] is False


@pytest.mark.parametrize(
    ("base", "changes", "match"),
    [
        (NEW, {"architecture": "crosscoder"}, "crosscoder"),
        (NEW, {"architecture": 3}, "architecture 3"),
        (NEW, {"m_hook_name": "blocks.5.attn.hook_q"}, "hook_q"),
        (NEW, {"m_hook_name": "blocks.5.hook_mlp_in"}, "hook_mlp_in"),
        (NEW, {"m_hook_name": "blocks.five.hook_resid_post"}, "five"),
        (NEW, {"m_hook_name": "blocks.999999.hook_resid_post"}, "999999"),
        (NEW, {"m_hook_name": ["x"]}, "hook_name"),
        (NEW, {"metadata": {}}, "no hook_name"),
        (NEW, {"metadata": 5}, "metadata"),
        (NEW, {"hook_name": "blocks.6.hook_resid_post"}, "two hooks"),
        (NEW, {"hook_layer": 4}, "hook_layer 4"),
        (NEW, {"m_hook_head_index": 3}, "single attention head"),
        (NEW, {"d_in": 0}, "d_in"),
        (NEW, {"d_in": True}, "d_in"),
        (NEW, {"d_sae": 10**10}, "d_sae"),
        (NEW, {"d_sae": None}, "d_sae"),
        (NEW, {"d_out": 48}, "d_out"),
        (NEW, {"normalize_activations": "covariance_whitening"}, "covariance_whitening"),
        (NEW, {"normalize_activations": "batch"}, "batch"),
        (NEW, {"apply_b_dec_to_input": "yes"}, "apply_b_dec_to_input"),
        (NEW, {"reshape_activations": "hook_z"}, "reshape_activations"),
        (NEW, {"m_hook_name_out": "blocks.5.hook_mlp_out"}, "hook_mlp_out"),
        (TRANSCODER, {"d_out": None}, "d_out"),
        (TRANSCODER, {"m_hook_name_out": None}, "hook_mlp_out"),
        (TRANSCODER, {"m_hook_name_out": "blocks.3.hook_mlp_out"}, "blocks.3"),
        (TRANSCODER, {"m_hook_name": "blocks.2.hook_resid_post"}, "hook_resid_post"),
        (TRANSCODER, {"m_hook_name": "hook_embed"}, "hook_embed"),
    ],
)
def test_refused_with_found_and_expected(base: dict[str, Any], changes: dict[str, Any], match: str) -> None:
    with pytest.raises(WeightsError) as caught:
        parse(base, **changes)
    assert match in caught.value.line()
    assert caught.value.found.startswith("cfg.json: ")
    assert caught.value.expected


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**13) | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=5,
)
_KEYS = st.sampled_from(
    [
        *NEW,
        *OLD,
        "d_out",
        "hook_name",
        "hook_layer",
        "hook_head_index",
        "tied_weights",
        "expansion_factor",
        "activation_fn",
    ]
)
_META = st.sampled_from(["hook_name", "hook_name_out", "hook_layer", "model_from_pretrained_kwargs", "hf_hook_name"])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from([NEW, OLD, TRANSCODER, {}]),
    st.dictionaries(_KEYS, _VALUES, max_size=4),
    st.dictionaries(_META, _VALUES | st.from_regex(r"blocks\.\d{1,8}\.[a-z_.]{1,12}", fullmatch=True), max_size=2),
)
def test_any_config_parses_or_is_refused(base: dict[str, Any], changes: dict[str, Any], meta: dict[str, Any]) -> None:
    cfg = {**base, **changes}
    if isinstance(cfg.get("metadata"), dict):
        cfg["metadata"] = {**cfg["metadata"], **meta}
    with contextlib.suppress(WeightsError):
        parsed = parse_saelens_config(cfg, "cfg.json")
        assert parsed["site"] in SITES
        assert 0 < parsed["d_sae"] <= 100_000_000
