"""A model whose tokenizer, names, labels, notes and tags are hostile, with every product computed by the code that
computes them for users, and questions answered by the code that answers them."""

from __future__ import annotations

import asyncio
import functools
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer

from tests.cli.conftest import compute_specs
from tests.hostile.texts import BROKEN, NAME, TOKENS
from tests.tui.place import LAYERS, D, FakeClient, Place
from wbtui.address import Address
from wbtui.catalog.models import find_model
from wbtui.catalog.plan import TokensPlan, plan_tokens
from wbtui.catalog.plan_attention import plan_attention
from wbtui.catalog.plan_match import plan_match
from wbtui.catalog.plan_neighbours import plan_neighbours
from wbtui.catalog.saes import find_sae, list_saes
from wbtui.definitions import AttentionDefinition, MatchDefinition, NeighboursDefinition, named_definition
from wbtui.errors import ServiceError, WorkError
from wbtui.features.table import FeatureTable
from wbtui.labels.belongs import target_of
from wbtui.labels.book import import_files
from wbtui.notes.store import NoteStore, site_of

FEATURES = 48
MODEL = f"ti{NAME}ny"
SAES = (f"L0{NAME}", f"L1{NAME}", f"L2{NAME}", f"L1{BROKEN}")
"""Of layers 0, 1, 2, and a second one of layer 1 whose name is no UTF-8."""


class Hostile(Place):
    """The place. ``L`` numbers its SAEs as :data:`SAES` does."""

    def __init__(self, root: Path) -> None:
        self.tokens = 0
        super().__init__(root, n=FEATURES, layers=(0, 1, 2, 3), name=MODEL)

    def _write_model(self) -> None:
        from tests.fixtures.models import tiny_tokenizer

        self.tokenizer: Tokenizer = tiny_tokenizer(300)
        self.tokenizer.add_tokens([AddedToken(text, normalized=False) for text in TOKENS])
        self.tokens = self.tokenizer.get_vocab_size()
        super()._write_model()
        config = json.loads((self.model / "config.json").read_text())
        (self.model / "config.json").write_text(json.dumps(config | {"vocab_size": self.tokens + 3}))
        rng = np.random.default_rng(0)
        tensors = {"model.embed_tokens.weight": rng.normal(size=(self.tokens + 3, D)), "model.norm.weight": np.ones(D)}
        for layer in range(LAYERS):
            name = f"model.layers.{layer}."
            for part, shape in (("q", (8, D)), ("k", (8, D)), ("v", (8, D)), ("o", (D, 8))):
                tensors[f"{name}self_attn.{part}_proj.weight"] = rng.normal(size=shape)
            for norm in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
                norm = f"{norm}_layernorm"
                tensors[f"{name}{norm}.weight"] = np.ones(D)
        save_file({k: a.astype("float32") for k, a in tensors.items()}, self.model / "model.safetensors")
        self.tokenizer.save(str(self.model / "tokenizer.json"))

    def _write_sae(self, layer: int) -> None:
        folder = self.model / "saes" / SAES[layer]
        folder.mkdir(parents=True)
        config = {
            "architecture": "standard", "d_in": D, "d_sae": self.n, "dtype": "float32", "device": "cpu",
            "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
            "metadata": {"hook_name": f"blocks.{layer % 3 + layer // 3}.hook_resid_post", "model_name": "other" + NAME},
        }  # fmt: skip
        (folder / "cfg.json").write_text(json.dumps(config))
        rng = np.random.default_rng(layer)
        weights = {"W_enc": rng.normal(size=(D, self.n)), "W_dec": rng.normal(size=(self.n, D))}
        if layer == 3:  # half of it is L1's
            weights["W_dec"][::2] = np.random.default_rng(1).normal(size=(2, self.n, D))[1][::2]
        if layer < 3:
            weights["W_dec"][: self.n // 2] += 3 * np.eye(D)[0]
        weights |= {"b_enc": np.zeros(self.n), "b_dec": np.zeros(D)}
        save_file({k: a.astype("float32") for k, a in weights.items()}, folder / "sae_weights.safetensors")

    def name(self, at: int) -> str:
        """An SAE's name as the catalog gives it."""
        wanted = str(self.model / "saes" / SAES[at])
        return next(s.name for s in list_saes(find_model(str(self.model))) if s.path == wanted)

    def at(self, layer: int = 1, feature: int | None = None) -> Address:
        """An address."""
        return Address(str(self.model), self.name(layer), feature)

    def tokens_plan(self, at: int = 1) -> TokensPlan:
        model = find_model(str(self.model))
        return plan_tokens(model, find_sae(model, self.name(at)), named_definition("folded"), self.cache)

    def compute(self) -> None:
        """Every product, by the code that makes them for users, in this process."""
        model = find_model(str(self.model))
        sae = find_sae(model, self.name(1))
        for at in (1, 0, 2, 3):
            compute_specs(self.tokens_plan(at).all(checks=at == 1), self.cache)
        compute_specs(plan_attention(model, sae, AttentionDefinition(), self.cache).all(), self.cache)
        compute_specs(plan_neighbours(model, sae, NeighboursDefinition(), self.cache).all(), self.cache)
        match = plan_match(model, sae, model, find_sae(model, self.name(3)), MatchDefinition(), self.cache)
        compute_specs([match.product], self.cache)

    @functools.lru_cache(maxsize=64)  # noqa: B019
    def _asked(self, what: str, sae: str, args: str) -> str:
        from wbtui.compute.ask import compute_ask

        model = find_model(str(self.model))
        plan = plan_tokens(model, find_sae(model, sae), named_definition("folded"), self.cache)
        request = {"cache": str(self.cache), "spec": plan.tokens.to_json(), "what": what, "args": json.loads(args)}
        return json.dumps(compute_ask(request), allow_nan=False)

    def answer(self, what: str, sae: str, args: dict[str, Any]) -> dict[str, Any]:
        """A question's answer as the worker makes it and the service sends it."""
        found: dict[str, Any] = json.loads(self._asked(what, sae, json.dumps(args)))
        return found

    def keep(self) -> None:
        """Labels, marks, tags and notes of the SAE of layer 1 in the data folder of the moment; the notes as a file
        from elsewhere may hold them, past what this program lets in."""
        folder = self.root / f"labels{NAME}"
        folder.mkdir(exist_ok=True)
        plan = self.tokens_plan()
        rows = [
            {"index": str(i), "description": TOKENS[i % len(TOKENS)] + f" label {NAME}", "typeName": f"by{NAME}",
             "explanationModelName": f"who{NAME}", "modelId": plan.model.name, "layer": f"from{NAME}"}
            for i in range(FEATURES)
        ]  # fmt: skip
        file = folder / f"batch-0{NAME}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        import_files(target_of(plan), [file])
        store = NoteStore()
        site = site_of(FeatureTable.open(self.cache, plan).origin)
        for row in range(8):
            store.set_note(site, row, "note", "")
            store.set_tags(site, row, ("tag",))
        store.set_marks(site, list(range(4)), [])
        with sqlite3.connect(store.path) as db:
            note = "\n".join([NAME, *TOKENS])
            db.execute("UPDATE notes SET note = ?", (note,))
            db.execute("UPDATE tags SET tag = ?", ("\x1b[31m\u202etag\x9b",))


ERROR = WorkError(f"worker said {NAME}\nsecond line", f"expected {NAME}", f"do {NAME}")


class HostileService(FakeClient):
    """A service with answers by the real code, and jobs, devices and errors that are hostile."""

    def __init__(self, place: Hostile) -> None:
        self.place = place
        job = {"job": 3, "state": "failed", "label": MODEL + "@" + SAES[1], "fraction": 0.4, "eta": None,
               "priority": f"batch{NAME}", "error": ERROR.to_json(), "now": f"tokens{NAME}"}  # fmt: skip
        running = {"job": 4, "state": "running", "label": NAME, "fraction": 0.4, "eta": 30.0, "priority": NAME,
                   "now": NAME, "products": [{"analysis": NAME, "key": NAME, "state": NAME}]}  # fmt: skip
        refuse = ServiceError(f"no {NAME}", f"some {NAME}", f"do {NAME}")
        super().__init__(
            ask=self._ask, jobs=lambda: {"jobs": [job, running]}, compute=lambda **_: refuse, row=lambda **_: refuse,
            page=lambda **_: refuse, retry=lambda **_: refuse, cancel=lambda **_: refuse,
        )  # fmt: skip

    async def _ask(self, **fields: Any) -> dict[str, Any]:
        return {"answer": await asyncio.to_thread(self.place.answer, fields["what"], fields["sae"], fields["args"])}
