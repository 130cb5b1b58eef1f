"""Questions about every feature at once: find, edges, flow, a direction of the user's. Answered now, kept nowhere.

A question is plain JSON, ``{cache, spec: a tokens product's JSON, what, args}``; the product names the model, the
anchor SAE and the definition, and need not be computed. Answers are plain JSON too, at most a few thousand rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wbtui.analysis.nulls import NoRows
from wbtui.analysis.score_pass import score_columns, score_rows
from wbtui.analysis.scores import Lengths, Scores
from wbtui.analysis.streaming import Stop, TileBuffer, poll
from wbtui.analysis.tokens import output_directions, reduce_tile, score_tile
from wbtui.catalog.models import find_model
from wbtui.catalog.saes import SaeInfo, find_sae, list_saes
from wbtui.catalog.stream import identity, is_parallel, label, one_per_hook, writes_at
from wbtui.compute.lengths import place, remember, remembered
from wbtui.compute.weights import _RESIDENT, Weights
from wbtui.errors import UsageError, WeightsError, WorkError
from wbtui.features.vocabulary import Vocabulary
from wbtui.sources.sae import SaeSource
from wbtui.store.columns import Columns
from wbtui.store.keys import ProductSpec

Progress = Callable[..., None]
"""``progress(share, part)``: what is done, and what of the answer is there already (None: nothing new)."""
WORDS = 6
MAX_TOP = 500
MAPPING_BYTES = 8_000_000
"""What a kept SAE counts for: its pages are the system's, but it holds two open files."""
TILE = 64


class Question:
    """What the questions share: the model's weights and words, its SAEs in the order of the stream.

    Args:
        request: see the module.
        device: a torch device.
        stop: polled everywhere; True abandons the question.
        progress: told the share that is done and parts of the answer.
    """

    def __init__(self, request: dict[str, Any], device: str, stop: Stop | None, progress: Progress | None) -> None:
        spec = ProductSpec.from_json(request["spec"])
        self.args: dict[str, Any] = dict(request.get("args") or {})
        self.cache = Path(request["cache"])
        self.weights = Weights(self.cache, spec, device)
        self.device = torch.device(device)
        self.stop = stop
        self._progress = progress
        self.model = find_model(spec.model["name"])
        assert spec.sae is not None
        self.anchor = SaeInfo(**spec.sae)
        self.parallel = is_parallel(self.model)
        self.centre: bool = self.weights.output.centre
        self._sources: dict[tuple[str, str], SaeSource] = {}
        self._buffer = TileBuffer(self.device)
        self._fresh: dict[Path, tuple[Lengths, SaeInfo]] = {}

    @property
    def definition(self) -> Any:
        """What the numbers mean."""
        return self.weights.definition

    @property
    def vocab(self) -> Vocabulary:
        """Token strings."""
        return Vocabulary(Columns(self.cache / self.weights.spec.model["vocab"] / "columns.safetensors"))

    def poll(self) -> None:
        """Raise Cancelled where the question is not wanted any more."""
        poll(self.stop)

    def tell(self, share: float, part: dict[str, Any] | None = None) -> None:
        """Say how far it is, and what is known by now."""
        if self._progress is None:
            return
        if part is None:
            self._progress(share)
        else:
            self._progress(share, part)

    def dictionaries(self) -> list[SaeInfo]:
        """One SAE for each hook of the model, the anchor among them."""
        return one_per_hook([*list_saes(self.model), self.anchor], self.anchor)

    def named(self, name: str) -> SaeInfo:
        """An SAE of the model by name."""
        return self.anchor if name == self.anchor.name else find_sae(self.model, name)

    def source(self, sae: SaeInfo) -> SaeSource:
        """An SAE's weights."""
        key = identity(sae)
        if key not in self._sources:
            mine = key == identity(self.anchor)
            self._sources[key] = self.weights.sae if mine else self._kept_source(sae)
        return self._sources[key]

    def _kept_source(self, sae: SaeInfo) -> SaeSource:
        """Another SAE than the product's, kept between questions with what it has mapped while its files stay."""
        spec = self.weights.spec
        key = ("question sae", identity(sae), _stamps(sae), str(spec.identity.get("model")), spec.model["path"])
        found: SaeSource = _RESIDENT.get(key, lambda: SaeSource(sae, self.weights.checkpoint), lambda _: MAPPING_BYTES)
        return found

    def rows(self, sae: SaeInfo, features: Sequence[int], side: str = "writes") -> Tensor:
        """Some decoder rows (or encoder columns) ``[n, d_model]``."""
        source = self.source(sae)
        get = source.decoder_rows if side == "writes" else source.encoder_rows
        parts = [part for f in features if (part := get(int(f), int(f) + 1)) is not None]
        if len(parts) != len(features):
            raise UsageError(
                f"{sae.name}: {source.reads_absent}", "an SAE whose encoder reads the stream", "ask for what it writes"
            )
        return torch.cat(parts) if parts else torch.zeros(0, self.weights.checkpoint.dims.d_model)

    def scored(self, sae: SaeInfo, side: str, queries: Tensor, *, centre: bool) -> Scores:
        """Every row of an SAE's side against queries ``[K, D]``, in one read of its weights."""
        source, queries = self.source(sae), queries.to(self.device)
        key = ("lengths", identity(sae), _stamps(sae), self.weights.spec.model["path"], side, centre, str(self.device))
        where = place(self.cache, sae, side, centre, self.weights.spec.identity.get("model"))

        def known() -> list[Lengths]:
            found = remembered(where, source.n)
            return [] if found is None else [found]

        kept: list[Lengths] = _RESIDENT.get(key, known, lambda _: sae.d_sae * 9)  # filled below, by the first question
        lengths = kept[0] if kept else None
        columns = source.columns(side)
        try:
            if columns is not None:
                scores = score_columns(columns, queries, centre=centre, lengths=lengths, stop=self.stop)
            else:
                blocks = partial(source.blocks, side)
                scores = score_rows(blocks, queries, centre=centre, n=source.n, lengths=lengths, stop=self.stop)
        except NoRows:
            what = "decoder rows" if side == "writes" else "encoder columns"
            raise WeightsError(
                f"{self.model.name}@{sae.name}: none of its {what} is finite and not zero ({sae.path})",
                "rows to score",
                "copy or download the file again",
            ) from None
        if lengths is None:
            kept[:] = [scores.lengths]
            self._fresh[where] = scores.lengths, sae
        return scores

    def feature_row(self, sae: SaeInfo, feature: int, side: str = "writes") -> Tensor:
        """One row ``[d_model]``, finite and not zero.

        Raises:
            UsageError: no such feature, or no such side.
            WeightsError: a row that is not finite, or zero.
        """
        if not 0 <= feature < sae.d_sae:
            raise UsageError(
                f"feature {feature} of {self.model.name}@{sae.name}", f"0 to {sae.d_sae - 1}", "take one that it has"
            )
        row = self.rows(sae, [feature], side)[0]
        what = "decoder row" if side == "writes" else "encoder column"
        if not bool(torch.isfinite(row).all()) or not bool(row.any()):
            state = "zero" if bool(torch.isfinite(row).all()) else "not finite"
            raise WeightsError(
                f"{self.model.name}@{sae.name}#{feature}: its {what} is {state}", "a direction", "take another feature"
            )
        return row

    def address(self, sae: SaeInfo, feature: int) -> str:
        """A feature's address."""
        from wbtui.address import Address

        return str(Address(self.model.name, sae.name, feature))

    def close(self) -> None:
        """Have what later questions need written down."""
        if self._fresh:
            remember(self._fresh)
            self._fresh = {}

    def place(self, sae: SaeInfo) -> dict[str, Any]:
        """An SAE in an answer."""
        return {
            "sae": sae.name, "layer": sae.layer, "site": sae.site, "d_sae": sae.d_sae,
            "position": label(writes_at(sae, self.parallel)),
        }  # fmt: skip

    def lists(
        self, sae: SaeInfo, features: Sequence[int], side: str = "writes", wanted: Sequence[Sequence[int]] = ()
    ) -> list[dict[str, Any]]:
        """Features' own lists through the code that makes their records.

        Args:
            side: ``writes`` or ``reads``.
            wanted: groups of tokens whose place in each feature's list is asked for.

        Returns:
            One a feature: {words: [{id, text, z}…], z_max, ranks: [place of each group's best token among the kept
            ones, from 1; None where a group is masked or the row has no list]}.
        """
        return self.direction_lists(self.rows(sae, features, side), side, wanted)

    def direction_lists(self, rows: Tensor, side: str, wanted: Sequence[Sequence[int]] = ()) -> list[dict[str, Any]]:
        """:meth:`lists` of any directions ``[n, d_model]``."""
        table = self.weights.tables(lazy=True)[0 if side == "writes" else 1]
        if side == "writes":
            norm = self.weights.norm
            directions, lengths = output_directions(rows, norm["gain"], norm["centre"], self.definition.unembed)
        else:
            directions, lengths = rows, None
        place = torch.empty_like(table.ids)
        place[table.ids] = torch.arange(len(table.ids), device=table.ids.device)
        vocab = self.vocab
        out: list[dict[str, Any]] = []
        for start in range(0, len(directions), TILE):
            self.poll()
            block = directions[start : start + TILE].to(self.device)
            scores, norm_, exponent = score_tile(block, table, self._buffer, stop=self.stop)
            over = None if lengths is None else lengths[start : start + TILE]
            want: Any = "pos"
            found = reduce_tile(
                scores, norm_, exponent, table, self._buffer, lengths=over, want=want, top_cos=False, stop=self.stop
            )
            kept = scores[: len(block), : table.n_kept]
            ranks = np.full((len(block), len(wanted)), -1, dtype=np.int64)
            for g, group in enumerate(wanted):
                columns = place[torch.as_tensor(list(group), device=place.device)]
                columns = columns[columns < table.n_kept]
                if len(columns):
                    best = kept[:, columns].amax(1, keepdim=True)
                    ranks[:, g] = ((kept > best).sum(1) + 1).cpu().numpy()
            for i in range(len(block)):
                fine = bool(torch.isfinite(norm_[i]) and norm_[i] > 0) and math.isfinite(float(found["z_max"][i]))
                words = [
                    {"id": int(t), "text": vocab.word(int(t)), "z": round(float(z), 3)}
                    for t, z in zip(found["word_ids"][i], found["word_z"][i], strict=True)
                    if fine and t >= 0 and math.isfinite(float(z))
                ]
                out.append(
                    {
                        "words": words,
                        "z_max": float(found["z_max"][i]) if fine else None,
                        "ranks": [int(r) if fine and r > 0 else None for r in ranks[i]],
                    }
                )
        return out

    def top(self, default: int = 20) -> int:
        """How many rows are asked for.

        Raises:
            UsageError: none, or absurdly many.
        """
        top = self.args.get("top", default)
        if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= MAX_TOP:
            raise UsageError(f"top {top!r}", f"a number from 1 to {MAX_TOP}", "filter or export for more")
        return top


def _stamps(sae: SaeInfo) -> tuple[tuple[str, int, int], ...]:
    """Another value once an SAE's files are others."""
    return tuple((str(f), (stat := f.stat()).st_size, stat.st_mtime_ns) for f in sae.files)


def number(value: float) -> float | None:
    """A number as JSON has it."""
    value = float(value)
    return value if math.isfinite(value) else None


def compute_ask(
    request: dict[str, Any],
    device: str = "cpu",
    *,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Answer one question.

    Raises:
        Cancelled: ``stop`` said so.
        UsageError, WeightsError: what was asked for cannot be.
        WorkError: no such question.
    """
    from wbtui.compute import edges, find, flow, probe, together

    what = request.get("what")
    answers = {"find": find.find, "edges": edges.edges, "flow": flow.flow, "direction": probe.direction}
    answers["set"] = together.together
    if what not in answers:
        raise WorkError(f"question {what!r}", "one of " + ", ".join(answers))
    question = Question(request, device, stop, progress)
    try:
        answer = answers[what](question)
    finally:
        question.close()
    answer["unmasked"] = question.weights.unmasked
    if progress is not None:
        progress(1.0)
    return answer
