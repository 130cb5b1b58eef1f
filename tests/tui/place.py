"""A small model folder with SAEs and finished, partial or absent products, made with numpy; and a fake service."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from textual.pilot import Pilot

from tests.features import make
from wbtui import __version__
from wbtui.address import Address
from wbtui.catalog.models import find_model
from wbtui.catalog.plan import TokensPlan, plan_tokens
from wbtui.catalog.saes import find_sae
from wbtui.definitions import TokensDefinition
from wbtui.errors import ServiceError, UsageError, WbtuiError
from wbtui.features.vocabulary import Vocabulary, normalise
from wbtui.store.io import make_folders
from wbtui.store.keys import ProductSpec
from wbtui.store.places import COLUMNS
from wbtui.store.products import Product
from wbtui.store.writer import write_columns
from wbtui.tui.app import WbtuiApp
from wbtui.tui.screens.main import MainScreen

D, V, LAYERS = 8, 200, 4
WITHIN = 30.0
HOSTILE = [
    "\x1b[31mred", "\x1b]0;title\x07", "\0", "\n", "\t\t", "\r", "\u202egnp", "\u200b", "a\u0301\u0301\u0301",
    "e\u0301",
    "\ud800", "[bold]x[/bold]", "[/]", "[@click=app.quit]q[/]", "東京", "👩‍👩‍👧", "🇩🇪", "ﷺ", "x" * 400, " ", "   ", "",
    "\u3000", "\x9b31m", "\ue000", "=SUM(A1)", "\\xe2", "ก็็็็็็", "\u2028", "\u00ad",
]  # fmt: skip
"""Tokens that break screens: escapes, controls, bidi, zero width, stacked marks, wide, markup, nothing."""


class Place:
    """A folder of everything a test needs. ``n`` features in each SAE, one SAE a layer."""

    def __init__(self, root: Path, n: int = 600, layers: tuple[int, ...] = (0, 1, 2), name: str = "tiny") -> None:
        self.root = root
        self.n = n
        self.cache = root / "cache"
        self.model = root / "models" / name
        self.definition = TokensDefinition()
        self._write_model()
        for layer in layers:
            self._write_sae(layer)

    def _write_model(self) -> None:
        self.model.mkdir(parents=True)
        config = {
            "model_type": "gemma2", "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
            "num_key_value_heads": 2, "head_dim": 4, "intermediate_size": 16, "vocab_size": V,
            "tie_word_embeddings": True,
        }  # fmt: skip
        (self.model / "config.json").write_text(json.dumps(config))
        rng = np.random.default_rng(0)
        tensors = {
            "model.embed_tokens.weight": rng.normal(size=(V, D)).astype("float32"),
            "model.norm.weight": rng.normal(size=D).astype("float32"),
        }
        for layer in range(LAYERS):
            name = f"model.layers.{layer}."
            for part, shape in (("q", (8, D)), ("k", (8, D)), ("v", (8, D)), ("o", (D, 8))):
                tensors[f"{name}self_attn.{part}_proj.weight"] = rng.normal(size=shape).astype("float32")
            for norm in ("input_layernorm", "post_attention_layernorm"):
                tensors[f"{name}{norm}.weight"] = rng.normal(size=D).astype("float32")
        save_file(tensors, self.model / "model.safetensors")
        (self.model / "tokenizer.json").write_text("{}")

    def _write_sae(self, layer: int) -> None:
        folder = self.model / "saes" / f"L{layer}"
        folder.mkdir(parents=True)
        config = {
            "architecture": "standard", "d_in": D, "d_sae": self.n, "dtype": "float32", "device": "cpu",
            "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
            "metadata": {"hook_name": f"blocks.{layer}.hook_resid_post", "model_name": "tiny"},
        }  # fmt: skip
        (folder / "cfg.json").write_text(json.dumps(config))
        rng = np.random.default_rng(layer)
        weights = {"W_enc": rng.normal(size=(D, self.n)), "W_dec": rng.normal(size=(self.n, D))}
        weights |= {"b_enc": np.zeros(self.n), "b_dec": np.zeros(D)}
        save_file({k: a.astype("float32") for k, a in weights.items()}, folder / "sae_weights.safetensors")

    def address(self, sae: str = "L1", feature: int | None = None) -> Address:
        """Where a test opens."""
        return Address(str(self.model), sae, feature)

    def plan(self, sae: str = "L1") -> TokensPlan:
        """The products of an SAE."""
        model = find_model(str(self.model))
        return plan_tokens(model, find_sae(model, sae), self.definition, self.cache)

    def fill(
        self,
        sae: str = "L1",
        *,
        columns: dict[str, np.ndarray] | None = None,
        shards: int | None = None,
        texts: list[str] | None = None,
        nulls: bool = True,
        vocab: bool = True,
    ) -> TokensPlan:
        """Write products: ``shards`` of the tokens product, all and assembled by default."""
        plan = self.plan(sae)
        if vocab:
            Product(self.cache, plan.vocab).write_whole(vocabulary_columns(texts))
        for spec in {s.relative: s for s in plan.masks.values()}.values():
            write_rows(self.cache, spec, {"neighbours": np.where(np.arange(V) % 50 == 49, 99, 0).astype(np.int32)})
        if nulls:
            for spec in (*plan.nulls, *plan.checks):
                null = spec.identity["null"]
                write_rows(self.cache, spec, _null_columns(str(null["kind"]), int(null["seed"]), spec.rows))
        self.columns = columns if columns is not None else make.columns(self.n, V, seed=1)
        if shards is None:
            write_rows(self.cache, plan.tokens, self.columns)
            return plan
        product = Product(self.cache, plan.tokens)
        product.begin()
        for start, stop in product.missing()[:shards]:
            self.land(plan, start, stop)
        return plan

    def land(self, plan: TokensPlan, start: int, stop: int) -> None:
        """Write one shard of the tokens product."""
        part = {name: array[start:stop] for name, array in self.columns.items()}
        Product(self.cache, plan.tokens).write_shard(start, stop, part)

    def app(self, address: Address | None, client: FakeClient | None = None, **more: Any) -> WbtuiApp:
        """The app on this place, its service faked (none runs unless a client says so)."""
        fake = client or FakeClient(refuse=ServiceError("no service is running"))
        more.setdefault("color_system", "truecolor")
        return WbtuiApp(
            address, cache=self.cache, definition=self.definition, make_client=fake.made, remember=False, **more
        )


def write_rows(cache: Path, spec: ProductSpec, columns: dict[str, np.ndarray]) -> None:
    """Write a product of rows, complete: its columns file first, which the product then finds and finishes, as it does
    after a crash between the two."""
    product = Product(cache, spec)
    if product.state != "complete":
        make_folders(product.path)
        about = {"analysis": spec.analysis, "key": spec.key, "rows": str(spec.rows), "wbtui_version": __version__}
        write_columns(product.path / COLUMNS, columns, about)
        product.begin()
    assert product.state == "complete"


@functools.lru_cache(maxsize=32)
def _null_columns(kind: str, seed: int, rows: int) -> dict[str, np.ndarray]:
    sample = make.null(kind, seed, 200, V)
    return {name: np.resize(a, (rows, *a.shape[1:])) for name, a in sample._columns.items()}


def vocabulary_columns(texts: list[str] | None = None) -> dict[str, np.ndarray]:
    """The vocab product's columns: the given tokens first, plain words after."""
    all_texts = ((texts or []) + [f" word{i}" for i in range(V)])[:V]
    built = Vocabulary.from_texts(all_texts)
    out = {"word": built.word_ids, "flags": built.flags}
    for name, strings in (("text", all_texts), ("raw", all_texts), ("norm", [normalise(t) for t in all_texts])):
        parts = [s.encode("utf-8", "surrogatepass") for s in strings]
        out[f"{name}_bytes"] = np.frombuffer(b"".join(parts), dtype=np.uint8)
        out[f"{name}_offsets"] = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return out


class FakeClient:
    """A service that answers from a table of functions and sends the events it is told to."""

    def __init__(self, refuse: WbtuiError | None = None, **answers: Callable[..., Any]) -> None:
        self.refuse = refuse
        self.answers = answers
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.autostart = False
        self.started: list[bool] = []
        self.connected = False
        self.queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def made(self, autostart: bool) -> FakeClient:
        """What the desk calls for a client."""
        self.autostart = autostart
        self.started.append(autostart)
        return self

    async def connect(self) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.connected = True
        self.queue.put_nowait({"event": "connected", "jobs": []})

    async def call(self, op: str, timeout: float | None = None, **fields: Any) -> Any:
        self.calls.append((op, fields))
        if op not in self.answers:
            raise UsageError(f"operation {op!r}", "one of " + ", ".join(self.answers))
        answer = self.answers[op](**fields)
        if isinstance(answer, WbtuiError):
            raise answer
        return await answer if asyncio.iscoroutine(answer) else answer

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        while (event := await self.queue.get()) is not None:
            yield event

    async def close(self) -> None:
        self.connected = False
        self.queue.put_nowait(None)

    def ops(self) -> list[str]:
        """What was asked, in order, the nearest features that the app asks for by itself left out."""
        return [op for op, fields in self.calls if fields.get("analysis") != "neighbours"]


async def until(pilot: Pilot[Any], condition: Callable[[], object], what: str = "") -> None:
    """Wait for a condition, letting the app work; fails after a deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WITHIN
    while not condition():
        assert loop.time() < deadline, f"waited {WITHIN:g} s for {what or condition}"
        await pilot.pause()


async def settled(pilot: Pilot[Any]) -> MainScreen:
    """Wait until the main screen shows all there is."""
    await until(pilot, lambda: pilot.app.main is not None and pilot.app.main.settled, "the main screen to settle")
    await pilot.pause()
    main = pilot.app.main
    assert main is not None
    return main


def screen_text(app: WbtuiApp) -> str:
    """What is on screen, as plain lines."""
    height = app.size.height
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(seg.text for seg in strip) for strip in strips[:height])


def columns_with(n: int = 600, **changes: Any) -> dict[str, np.ndarray]:
    """Columns of :func:`tests.features.make.columns` with some set: ``flags={5: 1}``."""
    out = make.columns(n, V, seed=1, bad=changes.pop("bad", ()))
    for row, flags in changes.pop("flags", {}).items():
        out["flags"][row] = flags
    return out
