"""Find, edges, flow and directions on tiny random models of four architectures, against dense float64 products that
share no code with what is tested, and against the model's own linear path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.compute.test_whole_path import Truth, fill
from tests.fixtures.models import tiny_model
from tests.fixtures.saes import tiny_sae
from wbtui.catalog.models import find_model
from wbtui.catalog.plan import TokensPlan, plan_tokens
from wbtui.catalog.saes import find_sae
from wbtui.compute.ask import compute_ask
from wbtui.compute.work import compute_row
from wbtui.definitions import DEFINITIONS
from wbtui.errors import Cancelled, UsageError, WbtuiError, WeightsError
from wbtui.features.answers import left_out
from wbtui.features.vocabulary import Vocabulary
from wbtui.store.columns import Columns

KINDS = ("gemma2", "llama", "gpt2", "gpt_neox")
"""RMSNorm tied and untied, LayerNorm tied and untied (the last with its blocks side by side)."""
F = 40
ZERO, BAD = 3, 5


class Place:
    """A model with SAEs at three layers and a transcoder; products of ``L1`` planned, its vocabulary made. Weights are
    multiples of 2^-6, so that fp32 products are exact and ties are real."""

    def __init__(self, root: Path, kind: str, *, definition: str = "folded") -> None:
        self.model = tiny_model(root, kind, seed=3, quantized=True)
        self.cache = root / "cache"
        saes = self.model / "saes"
        for layer in range(3):
            tiny_sae(saes, self.model, layer=layer, d_sae=F, seed=layer, quantized=True, zero_rows=[ZERO],
                     nan_rows=[BAD], name=f"L{layer}")  # fmt: skip
        tiny_sae(saes, self.model, architecture="transcoder", layer=1, d_sae=F, seed=9, quantized=True, name="L1-tc")
        tiny_sae(saes, self.model, site="attn_out", layer=1, d_sae=F, seed=8, quantized=True, name="L1-attn")
        self.definition = DEFINITIONS[definition]
        self.plan = self.plan_of("L1")
        fill(self.cache, [self.plan.vocab])
        self.vocab = Vocabulary(Columns(self.cache / self.plan.vocab.relative / "columns.safetensors"))
        self.centre = kind in ("gpt2", "gpt_neox")
        self.kind = kind

    def plan_of(self, sae: str) -> TokensPlan:
        info = find_model(str(self.model))
        return plan_tokens(info, find_sae(info, sae), self.definition, self.cache)

    def ask(self, what: str, sae: str = "L1", stop: Any = None, progress: Any = None, **args: Any) -> dict[str, Any]:
        request = {"cache": str(self.cache), "spec": self.plan_of(sae).tokens.to_json(), "what": what, "args": args}
        return json.loads(json.dumps(compute_ask(request, stop=stop, progress=progress), allow_nan=False))

    def weights(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Decoder rows and encoder rows [F, D] fp64 as the stream sees them (no gains: see ``gained``)."""
        found = load_file(self.model / "saes" / name / "sae_weights.safetensors")
        d, e = found["W_dec"].astype(float), found["W_enc"].T.astype(float)
        return d, e - e.mean(1, keepdims=True) if self.centre else e

    def token(self, text: str) -> int:
        return next(i for i in range(self.vocab.n) if self.vocab.text(i) == text)


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp(request.param), request.param)


def unit(x: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)


def usable(x: np.ndarray) -> np.ndarray:
    return np.isfinite(x).all(1) & (x != 0).any(1)


def order(values: np.ndarray) -> np.ndarray:
    """Best first, equal ones by number, unusable ones left out."""
    found = np.argsort(np.where(np.isfinite(values), -values, np.inf), kind="stable")
    return found[np.isfinite(values[found])]


def dense_writes(place: Place, truth: Truth, sae: str, plus: list[list[int]], minus: list[list[int]]) -> np.ndarray:
    """Scores of every feature from the whole matrix of logits: word means, less the kept vocabulary's mean."""
    d, _ = place.weights(sae)
    x = d - d.mean(1, keepdims=True) if place.centre else d
    with np.errstate(invalid="ignore"):
        logits = (x * truth.gain) @ truth.w_u.T / np.linalg.norm(d, axis=1, keepdims=True)
    return _combined(place, logits, plus, minus)


def _combined(place: Place, scores: np.ndarray, plus: list[list[int]], minus: list[list[int]]) -> np.ndarray:
    keep = np.array([not place.vocab.is_special(i) and not place.vocab.is_padded(i) for i in range(place.vocab.n)])
    scores = scores - scores[:, keep].mean(1, keepdims=True)
    means = [np.mean([scores[:, ids].mean(1) for ids in words], axis=0) for words in (plus, minus) if words]
    return means[0] - means[1] if minus else means[0]


@pytest.mark.parametrize("side", ["writes", "reads"])
def test_every_score_is_the_dense_one(place: Place, side: str) -> None:
    truth = Truth(place.model)
    plus, minus = ["the", " cat"], [" dog"]
    query = f'{side[0]}:{{"{plus[0]}","{plus[1]}"}}-"{minus[0]}"'
    parts: list[dict[str, Any]] = []
    found = place.ask(
        "find",
        query=query,
        all_layers=True,
        top=500,
        progress=lambda s, part=None: parts.append(part) if part else None,
    )
    names = ["L0", "L1-tc", "L1", "L2"] if side == "reads" else ["L0", "L1-attn", "L1-tc", "L1", "L2"]
    assert sorted(s["sae"] for s in found["saes"]) == sorted(names)
    assert [p["sae"]["sae"] for p in parts] == [s["sae"] for s in found["saes"]]  # told layer by layer
    if side == "reads":
        assert [s["sae"] for s in found["skipped"]] == ["L1-attn"] and "attention" in found["skipped"][0]["why"]
    groups = [[place.token(t)] for t in plus], [[place.token(t)] for t in minus]
    for name in ["L0", "L1", "L2"]:
        if side == "writes":
            dense = dense_writes(place, truth, name, *groups)
            dense[~usable(place.weights(name)[0])] = np.nan
        else:
            e = place.weights(name)[1]
            dense = _combined(place, truth.scale * unit(e) @ truth.w_e.T, *groups)
        hits = [h for h in found["hits"] if h["sae"] == name]
        assert [h["feature"] for h in hits] == order(dense).tolist()
        size = np.nanmax(np.abs(dense))
        for h in hits:
            i = h["feature"]
            assert h["score"] == pytest.approx(dense[i], abs=1e-5 * size)
            assert h["z"] == pytest.approx((dense[i] - np.nanmean(dense)) / np.nanstd(dense), abs=1e-3)
            assert h["address"].endswith(f"@{name}#{i}")
    assert [h["score"] for h in found["hits"]] == sorted((h["score"] for h in found["hits"]), reverse=True)


def test_features_that_are_not_finite_are_named(place: Place, tmp_path: Path) -> None:
    """GIVEN an infinite row in one SAE and nothing else in another
    THEN a search of all layers names both and answers for the rest; of the second alone it is refused by name."""
    found = place.ask("find", query="w:the", all_layers=True)
    for sae in found["saes"]:
        bad = [] if sae["sae"].startswith("L1-") else [BAD]
        assert (sae["nonfinite"], sae["nonfinite_rows"]) == (len(bad), bad)
        assert left_out(sae) == (
            f"{sae['sae']}: 1 feature left out, weights that are not finite: #{BAD}" if bad else ""
        )
    own = Place(tmp_path, place.kind)
    path = own.model / "saes" / "L2" / "sae_weights.safetensors"
    weights = load_file(path)
    weights["W_dec"] = np.full_like(weights["W_dec"], np.inf)
    save_file(weights, path)
    found = own.ask("find", query="w:the", all_layers=True)
    assert [s["sae"] for s in found["skipped"]] == ["L2"]
    assert "L2: none of its decoder rows is finite and not zero" in found["skipped"][0]["why"]
    with pytest.raises(WeightsError, match=r"@L2: none of its decoder rows is finite and not zero .*saes/L2"):
        own.ask("find", "L2", query="w:the")


def test_ranks_and_words_are_those_of_the_record(place: Place) -> None:
    truth = Truth(place.model)
    found = place.ask("find", query='w:" cat"', top=6)
    plan = place.plan
    cat = place.token(" cat")
    d, _ = place.weights("L1")
    x = (d - d.mean(1, keepdims=True) if place.centre else d) * truth.gain
    logits = x @ truth.w_u.T
    keep = [i for i in range(place.vocab.n) if not place.vocab.is_special(i) and not place.vocab.is_padded(i)]
    for hit in found["hits"]:
        row = compute_row({"cache": str(place.cache), "spec": plan.tokens.to_json()}, hit["feature"])
        assert [w["id"] for w in hit["words"]] == row["writes.word_ids"][: len(hit["words"])]
        assert hit["z_max"] == pytest.approx(row["writes.z_max"], rel=1e-3)
        mine = logits[hit["feature"]]
        assert hit["rank"] == 1 + int((mine[keep] > mine[cat]).sum())
        assert place.vocab.word_ids[cat] not in [place.vocab.word_ids[w["id"]] for w in hit["others"]]


def test_a_word_is_the_mean_of_its_spellings(place: Place) -> None:
    truth = Truth(place.model)
    found = place.ask("find", query="w:angular", top=1)
    ids = [t["id"] for t in found["words"][0]["tokens"]]
    assert ids == [int(i) for i in place.vocab.find("angular")] and ids
    dense = dense_writes(place, truth, "L1", [ids], [])
    assert found["hits"][0]["score"] == pytest.approx(np.nanmax(dense), rel=1e-4)


def test_vectors_and_likes_are_cosines(place: Place, tmp_path: Path) -> None:
    d, e = place.weights("L1")
    v = np.random.default_rng(0).normal(size=d.shape[1]).astype("float32")
    np.save(tmp_path / "v.npy", v)
    save_file({"a": v, "b": v[::-1].copy()}, tmp_path / "v.safetensors")

    def centred(x: np.ndarray) -> np.ndarray:
        return x - x.mean(-1, keepdims=True) if place.centre else x

    dense = unit(centred(d)) @ unit(centred(v.astype(float)))
    for path in ("v.npy", "v.safetensors:a"):
        found = place.ask("find", query=f"dir:{tmp_path / path}@L1.resid_post", top=5)
        assert found["position"] == "L1.resid_post"
        assert [h["feature"] for h in found["hits"]] == order(dense)[:5].tolist()
        assert found["hits"][0]["score"] == pytest.approx(np.nanmax(dense), abs=1e-6)
    reads = place.ask("find", query=f"r:dir:{tmp_path / 'v.npy'}", at="L1.resid_post", top=3)
    dense = unit(e) @ unit(centred(v.astype(float)))
    assert [h["feature"] for h in reads["hits"]] == order(dense)[:3].tolist()
    like = place.ask("find", query=f"like:{place.model}@L1#7", all_layers=True, top=3)
    assert like["hits"][0]["address"].endswith("@L1#7") and like["hits"][0]["score"] == pytest.approx(1, abs=1e-6)
    other = place.ask("find", "L2", query=f"like:{place.model}@L1#7", top=F)["hits"]
    dense = unit(centred(place.weights("L2")[0])) @ unit(centred(d[7]))
    assert [h["feature"] for h in other] == order(dense).tolist()


def gained(place: Place, e: np.ndarray) -> np.ndarray:
    """A transcoder's encoder behind the MLP's norm, on the raw stream: its gain times the plain rows."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(place.model).double().eval()
    base = model.base_model
    block = (base.h if place.kind == "gpt2" else base.layers)[1]
    name = {"gpt2": "ln_2", "gemma2": "pre_feedforward_layernorm"}.get(place.kind, "post_attention_layernorm")
    gain = getattr(block, name).weight.detach().numpy() + (place.kind == "gemma2")
    rows = e * gain
    return rows - rows.mean(1, keepdims=True) if place.centre else rows


def check(edges: dict[str, Any], dense: dict[tuple[str, str], np.ndarray], top: int) -> None:
    """A list of edges is the strongest of the dense ones, with their shares."""
    total = sum(np.nansum(np.abs(w)) for w in dense.values())
    flat = [(abs(v), name, via, i, v) for (name, via), w in dense.items() for i, v in enumerate(w) if np.isfinite(v)]
    flat.sort(key=lambda t: -t[0])
    assert edges["total"] == pytest.approx(total, rel=1e-5) and edges["count"] == len(flat)
    assert len(edges["edges"]) == min(top, len(flat))
    for edge, (size, name, via, i, value) in zip(edges["edges"], flat, strict=False):
        assert (edge["sae"], edge["via"], edge["feature"]) == (name, via, i)
        assert edge["weight"] == pytest.approx(value, abs=1e-4 * flat[0][0])
        assert edge["share"] == pytest.approx(size / total, abs=1e-6)


def test_direct_edges_are_dense_products(place: Place) -> None:
    found = place.ask("edges", feature=7, top=30)
    d, e = place.weights("L1")
    up = {(name, ""): place.weights(name)[0] @ e[7] for name in ("L0", "L1-tc", "L1-attn")}
    up["L0", ""][~usable(place.weights("L0")[0])] = np.nan
    check(found["up"], up, 30)
    check(found["down"], {("L2", ""): place.weights("L2")[1] @ d[7]}, 30)
    assert {s["sae"] for s in found["down"]["saes"]} == {"L2"} and found["down"]["absent"] == ""


def test_a_transcoder_reads_behind_its_norm_and_writes_at_once(place: Place) -> None:
    """Down of L0: to L1, L2 and the transcoder of layer 1; the transcoder's own down: L1 (it has just joined), L2."""
    found = place.ask("edges", "L0", feature=7, top=20)
    d = place.weights("L0")[0][7]
    weights = load_file(place.model / "saes" / "L1-tc" / "sae_weights.safetensors")
    dense = {("L1", ""): place.weights("L1")[1] @ d, ("L2", ""): place.weights("L2")[1] @ d}
    dense["L1-tc", ""] = gained(place, weights["W_enc"].T.astype(float)) @ d
    check(found["down"], dense, 20)
    own = place.ask("edges", "L1-tc", feature=7, top=20)
    d = weights["W_dec"].astype(float)[7]
    check(own["down"], {("L1", ""): place.weights("L1")[1] @ d, ("L2", ""): place.weights("L2")[1] @ d}, 20)
    attn = place.ask("edges", "L1-attn", feature=7, top=5)
    assert attn["up"]["edges"] == [] and "not the residual stream" in attn["up"]["absent"]


class Linear:
    """One layer's attention of the saved model with its norms and pattern frozen: what a change of the stream at one
    token adds behind attention at another. Nothing of the code under test is used."""

    TOKENS, SOURCE, QUERY = 5, 1, 4

    def __init__(self, folder: Path, kind: str, layer: int) -> None:
        import transformers

        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        self.model, self.kind = model.double().eval(), kind
        base = self.model.base_model
        self.block = (base.h if kind == "gpt2" else base.layers)[layer]
        self.norm = self.block.ln_1 if kind == "gpt2" else self.block.input_layernorm
        self.attention = {"gpt2": "attn", "gpt_neox": "attention"}.get(kind, "self_attn")
        self.after = self.block.post_attention_layernorm if kind == "gemma2" else None
        self.heads = self.model.config.num_attention_heads
        self.ids = torch.arange(10, 10 + self.TOKENS)[None]

    def frozen(self, norm: torch.nn.Module, base: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """The norm with the scale that each token has in the base run, and those scales [tokens]."""
        layer = isinstance(norm, torch.nn.LayerNorm)
        x = base - base.mean(-1, keepdim=True) if layer else base
        eps = getattr(norm, "eps", getattr(norm, "variance_epsilon", 1e-6))
        scale = (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        zero = norm(torch.zeros_like(base[..., :1, :]))[0, 0]  # the bias
        gain = ((norm(base) - zero) / (x / scale))[0, self.QUERY]

        def forward(y: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            z = y - y.mean(-1, keepdim=True) if layer else y
            return z / scale * gain + zero

        return forward, scale[0, :, 0]

    @torch.no_grad()
    def writes(self, monkeypatch: pytest.MonkeyPatch, d: np.ndarray, head: int) -> np.ndarray:
        """What attending fully to a token that holds ``d`` more adds to the stream, times the frozen scales."""
        seen: dict[str, torch.Tensor] = {}
        outputs: list[torch.Tensor] = []
        pattern = torch.zeros(1, self.heads, self.TOKENS, self.TOKENS, dtype=torch.float64)
        pattern[0, head, self.QUERY, self.SOURCE] = 1.0
        shift = torch.zeros(1, self.TOKENS, len(d), dtype=torch.float64)
        amount = 0.0

        def push(_m: Any, args: Any, kwargs: Any) -> Any:
            states = args[0] if args else kwargs["hidden_states"]
            states = states + amount * shift
            seen.setdefault("stream", states)
            return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

        def before(_m: Any, args: Any) -> None:
            seen.setdefault("after", args[0])

        def catch(_m: Any, _a: Any, out: Any) -> None:
            outputs.append(out[0] if isinstance(out, tuple) else out)

        with monkeypatch.context() as patch:
            handles = [self.block.register_forward_pre_hook(push, with_kwargs=True)]
            handles.append((self.after or getattr(self.block, self.attention)).register_forward_hook(catch))
            if self.after is not None:
                handles.append(self.after.register_forward_pre_hook(before))
            patch.setattr(torch.nn.functional, "softmax", lambda *_, **__: pattern)
            self.model(self.ids)
            forward, scale = self.frozen(self.norm, seen["stream"])
            factor = scale[self.SOURCE]
            patch.setattr(self.norm, "forward", forward)
            if self.after is not None:
                # the base run attends with one head only, and so does the frozen scale
                forward, scale = self.frozen(self.after, seen["after"])
                patch.setattr(self.after, "forward", forward)
                factor = factor * scale[self.QUERY]
            outputs.clear()
            shift[0, self.SOURCE] = torch.from_numpy(d)
            self.model(self.ids)
            amount = 1.0
            self.model(self.ids)
            for handle in handles:
                handle.remove()
        return ((outputs[1] - outputs[0])[0, self.QUERY] * factor).numpy()


def test_edges_through_heads_are_the_models_own_linear_path(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    found = place.ask("edges", "L0", feature=7, top=500)
    layer = found["heads"]["layer"]
    assert layer == 1
    linear = Linear(place.model, place.kind, layer)
    d = place.weights("L0")[0][7]
    written = [linear.writes(monkeypatch, d, h) for h in range(linear.heads)]
    assert min(np.linalg.norm(o) for o in written) > 0
    dense = {}
    tc = gained(place, load_file(place.model / "saes" / "L1-tc" / "sae_weights.safetensors")["W_enc"].T.astype(float))
    for h, o in enumerate(written):
        for name in ("L1", "L2"):
            dense[name, f"L{layer}.H{h}"] = place.weights(name)[1] @ o
        if place.kind != "gpt_neox":  # there the MLP does not see its own layer's attention
            dense["L1-tc", f"L{layer}.H{h}"] = tc @ o
    check(found["heads"], dense, 500)


def test_the_last_layer_and_other_layers_heads(place: Place) -> None:
    last = place.ask("edges", "L2", feature=7, top=3)
    assert last["heads"]["edges"] == [] and "no head reads" in last["heads"]["absent"]
    assert last["down"]["edges"] == [] and last["down"]["absent"]
    later = place.ask("edges", "L0", feature=7, top=3, layer=2)
    assert later["heads"]["layer"] == 2 and {e["sae"] for e in later["heads"]["edges"]} == {"L2"}
    with pytest.raises(UsageError, match="heads of layer 0"):
        place.ask("edges", "L0", feature=7, layer=0)


def test_flow_follows_the_best_dense_cosines(place: Place) -> None:
    def centred(name: str) -> np.ndarray:
        d = place.weights(name)[0]
        d = d - d.mean(1, keepdims=True) if place.centre else d
        d[~usable(d)] = np.nan
        return unit(d)

    found = place.ask("flow", feature=7, thresholds={"r": 0.0, "m": 0.2, "a": None})
    rows = {name: centred(name) for name in ("L0", "L1", "L2", "L1-tc", "L1-attn")}

    def match(name: str, x: np.ndarray) -> tuple[int, float]:
        cosines = rows[name] @ x
        best = int(np.nanargmax(cosines))
        return best, float(cosines[best])

    (before, r), (after, forward) = match("L0", rows["L1"][7]), match("L2", rows["L1"][7])
    nodes = found["nodes"]
    assert [(n["sae"], n["feature"], n["step"]) for n in nodes] == [("L0", before, -1), ("L1", 7, 0), ("L2", after, 1)]
    assert nodes[0]["cosine"] == pytest.approx(r, abs=1e-6) and nodes[2]["cosine"] == pytest.approx(forward, abs=1e-6)
    mine = nodes[1]
    assert mine["r"]["cosine"] == pytest.approx(r, abs=1e-6)
    for name, sae in (("m", "L1-tc"), ("a", "L1-attn")):
        best, cosine = match(sae, rows["L1"][7])
        assert mine[name]["feature"] == best and mine[name]["cosine"] == pytest.approx(cosine, abs=1e-6)
    back, _ = match("L1", rows["L2"][after])
    assert nodes[2]["r"]["feature"] == back  # the best before need not be the one that led here
    assert (found["born"], found["gone"]) == (0, 2) and found["thresholds"] == {"r": 0.0, "m": 0.2, "a": 0.25}
    cut = place.ask("flow", feature=7, thresholds={"r": 0.999})
    assert (cut["born"], cut["gone"]) == (1, 1) and cut["ends"] == {"back": "cut", "forward": "cut"}


def test_a_direction_that_is_a_feature_has_its_record(place: Place, tmp_path: Path) -> None:
    d, _ = place.weights("L1")
    np.save(tmp_path / "v.npy", d[7].astype("float32"))
    found = place.ask("direction", path=str(tmp_path / "v.npy"), at="L1.resid_post", top=4)
    row = compute_row({"cache": str(place.cache), "spec": place.plan.tokens.to_json()}, 7)
    for name in ("writes.top_ids", "writes.word_ids", "writes.flags"):
        if name in row:
            assert found["columns"][name] == row[name]
    for name in ("writes.z_max", "writes.delta_h", "writes.cos_tok", "against.z_max"):
        assert found["columns"][name] == pytest.approx(row[name], rel=1e-4)
    assert found["sae"] == "L1" and found["neighbours"][0]["feature"] == 7
    assert found["neighbours"][0]["score"] == pytest.approx(1, abs=1e-6)
    assert found["heads"]["layer"] == 2 and len(found["heads"]["heads"]) == 4
    middle = place.ask("direction", path=str(tmp_path / "v.npy"), at="L1.resid_mid", top=4)
    assert middle["sae"] is None and middle["neighbours"] == [] and "no SAE" in middle["heads"]["absent"]


def bad_inputs(root: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(question, args, what the error must say)."""
    np.save(root / "short.npy", np.ones(7, "float32"))
    np.save(root / "zero.npy", np.zeros(32, "float32"))
    np.save(root / "nan.npy", np.full(32, np.nan, "float32"))
    np.save(root / "good.npy", np.ones(32, "float32") * np.arange(32))
    np.save(root / "flat.npy", np.ones(32, "float32"))
    np.save(root / "text.npy", np.array(["a"] * 32))
    np.save(root / "object.npy", np.array([{}] * 32, dtype=object), allow_pickle=True)
    (root / "junk.npy").write_bytes(b"junk")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }"
    for name, text in (("huge", header % 10**15), ("code", b"__import__('os')"), ("long", b" " * 60_000)):
        text = text.ljust(116) + b"\n"
        (root / f"{name}.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 64)
    np.save(root / "deep.npy", np.ones((2, 16), "float32"))
    np.save(root / "complex.npy", np.ones(32, "complex64"))
    np.save(root / "record.npy", np.zeros(32, [("a", "<f4")]))
    (root / "cut.npy").write_bytes((root / "good.npy").read_bytes()[:-8])
    (root / "absurd.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    whole = {"v": np.ones(32, "int32"), "wide": np.ones((3, 32), "float32")}
    save_file(whole, root / "kinds.safetensors")
    (root / "junk.safetensors").write_bytes(b"junk")
    save_file({"a": np.ones(32, "float32"), "b": np.ones(32, "float32")}, root / "two.safetensors")
    for name, says in (
        ("short", r"shape \[7\]; expected \[32\]"), ("zero", "zero vector"), ("nan", "32 values that are not finite"),
        ("text", "real numbers"), ("object", "not a .npy array"), ("junk", "not a .npy array"),
        ("gone", "no such file"), ("huge", "not a .npy array"), ("code", "not a .npy array"),
        ("cut", "not a .npy array"), ("long", "not a .npy array"), ("deep", r"shape \[2, 16\]"),
        ("complex", "complex64"), ("record", "real numbers"),
    ):  # fmt: skip
        yield "find", {"query": f"dir:{root}/{name}.npy@L1.resid_post"}, says
        yield "direction", {"path": f"{root}/{name}.npy", "at": "L1.resid_post"}, says
    yield "find", {"query": f"dir:{root}/two.safetensors@L1.resid_post"}, "2 tensors, and no name said"
    yield "find", {"query": f"dir:{root}/two.safetensors:c@L1.resid_post"}, "no tensor 'c'"
    yield "find", {"query": f"dir:{root}/junk.safetensors@L1.resid_post"}, "junk.safetensors"
    yield "find", {"query": f"dir:{root}/absurd.safetensors@L1.resid_post"}, "header length"
    yield "find", {"query": f"dir:{root}/kinds.safetensors:v@L1.resid_post"}, "values of type I32"
    yield "find", {"query": f"dir:{root}/kinds.safetensors:wide@L1.resid_post"}, r"shape \[3, 32\]"
    yield "find", {"query": f"dir:{root}/probe.bin@L1.resid_post"}, "FILE.npy or FILE.safetensors"
    yield "find", {"query": f"dir:{root}/good.npy:name@L1.resid_post"}, "without a name"
    yield "find", {"query": "w:"}, "no word"
    yield "find", {"query": 'w:"cat'}, "not closed"
    yield "find", {"query": "w:-cat"}, "no word"
    yield "find", {"query": "like:demo@L3"}, "like:demo@L3"
    yield "find", {"query": "w:{" + ",".join(["cat"] * 201) + "}"}, "201 words"
    yield "find", {"query": f"dir:{root}/good.npy"}, "no stream position"
    yield "find", {"query": f"dir:{root}/good.npy@L7.resid_post"}, "layer from 0 to 2"
    yield "find", {"query": f"dir:{root}/good.npy@here"}, "stream position 'here'"
    yield "direction", {"path": f"{root}/good.npy"}, "no stream position"
    yield "find", {"query": "w:antidisestablishment"}, 'splits into "'
    yield "find", {"query": 'w:"ANGULAR dog"'}, "no single token spells"
    yield "find", {"query": "w:cat-cat"}, "cancel"
    yield "find", {"query": "what"}, "one of"
    yield "find", {"query": "w:cat", "top": 0}, "top 0"
    yield "find", {"query": "w:cat", "top": 10**9}, "top 1000000000"
    yield "find", {"query": "like:demo@L3#1"}, "a feature of"
    yield "edges", {"feature": F}, f"0 to {F - 1}"
    yield "edges", {"feature": ZERO}, "decoder row is zero"
    yield "flow", {"feature": BAD}, "decoder row is not finite"
    yield "flow", {"feature": 7, "thresholds": {"r": 2}}, "cosine from 0 to 1"
    yield "riddle", {}, "question 'riddle'"


def test_what_cannot_be_asked_is_said_in_one_line(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    import re

    place = Place(tmp_path_factory.mktemp("bad"), "gpt2")
    for what, args, says in bad_inputs(tmp_path):
        with pytest.raises(WbtuiError) as error:
            place.ask(what, **args)
        line = error.value.line()
        assert re.search(says, line) and "\n" not in line, (what, args, line)
        assert error.value.found and error.value.expected and (error.value.do or what == "riddle"), line
    with pytest.raises(UsageError, match="constant over the width"):
        place.ask("find", query=f"dir:{tmp_path}/flat.npy@L1.resid_post")


def test_a_question_stops_between_blocks(place: Place) -> None:
    for what, args in (
        ("find", {"query": "w:cat", "all_layers": True}),
        ("edges", {"feature": 7}),
        ("flow", {"feature": 7}),
    ):
        polls = 0

        def stop() -> bool:
            nonlocal polls
            polls += 1
            return polls > 2

        with pytest.raises(Cancelled):
            place.ask(what, stop=stop, **args)
        assert polls == 3


def test_other_saes_are_kept_until_their_files_change(tmp_path: Path) -> None:
    """A question maps an SAE once, and sees files that were written anew since."""
    place = Place(tmp_path, "llama")

    def scores() -> dict[int, float]:
        hits = place.ask("find", query="w:cat", all_layers=True, top=500)["hits"]
        return {h["feature"]: h["score"] for h in hits if h["sae"] == "L0"}

    first = scores()
    assert scores() == first and len(first) > 10
    path = place.model / "saes" / "L0" / "sae_weights.safetensors"
    weights = load_file(path)
    save_file({**weights, "W_dec": weights["W_dec"][::-1].copy()}, path.with_name("new"))
    path.with_name("new").replace(path)
    assert scores() == {F - 1 - feature: pytest.approx(score) for feature, score in first.items()}
