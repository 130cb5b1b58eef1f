"""Whether a tokenizer can be the model's, before anything large is read. Standard library only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wbtui import jsontext
from wbtui.errors import WeightsError


def foreign(where: str, beyond: int, highest: int, d_vocab: int) -> WeightsError:
    """The refusal of a tokenizer with more ids than the model has rows.

    Args:
        where: the tokenizer's file.
        beyond: ordinary tokens without a row.
        highest: the largest id among them.
        d_vocab: rows of the model.
    """
    return WeightsError(
        f"{where}: a vocabulary of {highest + 1:,}, of which {beyond:,} tokens have no row in the model",
        f"ids below {d_vocab:,}, the model's vocab_size",
        "the tokenizer is of another model",
    )


def refuse_foreign(folder: Path, d_vocab: int) -> None:
    """Refuse a ``tokenizer.json`` with ordinary tokens beyond the model's rows (control tokens may be). What cannot be
    read is left to the reader of the vocabulary, which says what is wrong with it.

    Raises:
        WeightsError: the tokenizer is of another model.
    """
    path = folder / "tokenizer.json"
    try:
        data = jsontext.loads(path.read_bytes())
        ids = _ids(data["model"]["vocab"])
        added = data.get("added_tokens") or []
        special = {item["id"] for item in added if item.get("special") is True}
        ids += [item["id"] for item in added]
        beyond = {i for i in ids if i >= d_vocab} - special
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return
    if beyond:
        raise foreign(str(path), len(beyond), max(beyond), d_vocab)


def _ids(vocab: Any) -> list[int]:
    """Ids of BPE's object or Unigram's list."""
    return list(vocab.values()) if isinstance(vocab, dict) else list(range(len(vocab)))
