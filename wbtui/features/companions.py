"""What stands beside a tokens product: its origin, token strings, masks, nulls and checks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbtui.address import Address
from wbtui.definitions import TokensDefinition
from wbtui.errors import StoreError
from wbtui.features.derived import mask_counts
from wbtui.features.noise import NullSample
from wbtui.features.vocabulary import Vocabulary
from wbtui.schema import null_columns
from wbtui.store.keys import ProductSpec
from wbtui.store.products import Product

if TYPE_CHECKING:
    from wbtui.catalog.plan import TokensPlan


@dataclass(frozen=True)
class Origin:
    """What the rows belong to, for addresses and provenance; all plain JSON data."""

    model: dict[str, Any]
    sae: dict[str, Any]
    definition: TokensDefinition
    products: dict[str, str]
    """Role -> product key."""

    def address(self, row: int | None = None) -> str:
        """The address of the SAE, or of one feature."""
        return str(Address(str(self.model.get("name", "")), str(self.sae.get("name", "")), row))


def origin_of(plan: TokensPlan) -> Origin:
    """What a plan's rows belong to."""
    identity = plan.tokens.identity
    model, sae = plan.model, plan.sae
    return Origin(
        model={
            "name": model.name,
            "model_type": model.model_type,
            "fingerprint": identity.get("model", ""),
            "d_vocab": model.d_vocab,
        },
        sae={
            "name": sae.name,
            "hook_name": sae.hook_name,
            "layer": sae.layer,
            "site": sae.site,
            "architecture": sae.architecture,
            "d_sae": sae.d_sae,
            "conventions": sae.conventions,
            "fingerprint": (identity.get("sae") or {}).get("fingerprint", ""),
        },
        definition=plan.definition,
        products={
            "tokens": plan.tokens.key,
            "vocab": plan.vocab.key,
            **{f"mask.{side}": spec.key for side, spec in plan.masks.items()},
            **{f"null.{_null_of(spec)['kind']}": spec.key for spec in plan.nulls},
        },
    )


class Companions:
    """The products of a plan beside its tokens, each taken once it is complete."""

    def __init__(self, cache: Path, plan: TokensPlan) -> None:
        self._mask = plan.definition.mask
        self._vocab: Product | None = Product(cache, plan.vocab)
        self._masks = {side: Product(cache, spec) for side, spec in plan.masks.items()}
        self._nulls = [Product(cache, spec) for spec in plan.nulls]
        self._checks = [Product(cache, spec) for spec in plan.checks]
        self._counts: dict[str, dict[str, int]] = {}

    def arrived(self) -> tuple[Vocabulary | None, list[NullSample], list[NullSample]]:
        """Token strings, threshold nulls and checks that finished since the last call.

        Raises:
            StoreError: one of them is damaged.
        """
        vocab = None
        if self._vocab is not None and self._vocab.state == "complete":
            vocab, self._vocab = Vocabulary(self._vocab.columns()), None
        return vocab, _take(self._nulls), _take(self._checks)

    def masked(self, side: str, vocab: Vocabulary) -> dict[str, int] | None:
        """See :meth:`FeatureTable.masked_tokens`."""
        product = self._masks.get(side)
        if self._mask is None or product is None:
            return None
        if side not in self._counts:
            if product.state != "complete":
                return None
            self._counts[side] = mask_counts(product.columns()["neighbours"], vocab.flags, self._mask)
        return self._counts[side]


def _take(products: list[Product]) -> list[NullSample]:
    done = [product for product in products if product.state == "complete"]
    products[:] = [product for product in products if product not in done]
    return [_sample(product) for product in done]


def _sample(product: Product) -> NullSample:
    columns = product.columns()
    missing = sorted(set(null_columns()) - set(columns.names))
    if missing:
        raise StoreError(f"{product.path}: no column {missing[0]}", "the columns of this version", "compute it again")
    null = _null_of(product.spec)
    return NullSample(str(null["kind"]), int(null["seed"]), columns, product.spec.rows)


def _null_of(spec: ProductSpec) -> dict[str, Any]:
    return dict(spec.identity["null"])
