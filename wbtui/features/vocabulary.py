"""Token strings out of a ``vocab`` product: numpy views, decoded when asked for, searched as one block of bytes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from wbtui.display import safe_token_text, word_text
from wbtui.errors import StoreError
from wbtui.schema import VOCAB_PADDED, VOCAB_PARTIAL_BYTES, VOCAB_SPECIAL, VOCAB_WHOLE_WORD

_SEPARATOR = 0xFF  # never a byte of UTF-8
_DRAWN = re.compile(r"[⏎⇥␍␀␛␡␣∅]|\\x|\\u\{")
"""What only the shown form of a token can hold."""
_CACHED_SEARCHES = 64


class Vocabulary:
    """All tokens of a model.

    Args:
        columns: the vocab product's columns (``Columns`` or plain arrays): ``text_bytes`` u8[], ``text_offsets``
            i64[V + 1], ``raw_bytes``, ``raw_offsets``, ``norm_bytes``, ``norm_offsets``, ``word`` i32[V], ``flags``
            u8[V].

    Raises:
        StoreError: a column is missing or the offsets do not fit the bytes.
    """

    def __init__(self, columns: Any) -> None:
        try:
            self._text, self._text_at = columns["text_bytes"], columns["text_offsets"]
            self._raw, self._raw_at = columns["raw_bytes"], columns["raw_offsets"]
            self._norm, self._norm_at = columns["norm_bytes"], columns["norm_offsets"]
            self.word_ids: np.ndarray = columns["word"]
            self.flags: np.ndarray = columns["flags"]
        except KeyError as error:
            raise StoreError(f"vocabulary without {error}", "a complete vocab product", "compute it again") from None
        self.n = len(self.flags)
        for data, at in ((self._text, self._text_at), (self._raw, self._raw_at), (self._norm, self._norm_at)):
            if len(at) != self.n + 1 or int(at[0]) != 0 or int(at[-1]) != len(data) or bool((np.diff(at) < 0).any()):
                raise StoreError(
                    "vocabulary offsets that do not fit its bytes", "a complete vocab product", "compute it again"
                )
        if len(self.word_ids) != self.n:
            raise StoreError(f"{len(self.word_ids)} word ids for {self.n} tokens", "one each", "compute it again")
        self._folded: tuple[np.ndarray, np.ndarray] | None = None
        self._folded_shown: tuple[np.ndarray, np.ndarray] | None = None
        self._texts: list[str] | None = None
        self._searches: dict[tuple[str, str], np.ndarray] = {}
        self._ranks: np.ndarray | None = None
        self.text = lru_cache(maxsize=65_536)(self._decode)
        """Token id -> exact decoded text, UNSAFE to print. An id outside the vocabulary gives ``#id``."""

    @classmethod
    def from_texts(cls, texts: Sequence[str], *, flags: Sequence[int] | None = None) -> Vocabulary:
        """A vocabulary from plain strings, normalised as the vocab product is (for tests and benchmarks)."""
        norms = [normalise(text) for text in texts]
        first: dict[str, int] = {}
        word = np.array([first.setdefault(norm, i) for i, norm in enumerate(norms)], dtype=np.int32)
        columns: dict[str, np.ndarray] = {"word": word}
        columns["flags"] = np.zeros(len(texts), np.uint8) if flags is None else np.asarray(flags, np.uint8)
        for name, strings in (("text", texts), ("raw", texts), ("norm", norms)):
            parts = [s.encode("utf-8", "surrogatepass") for s in strings]
            columns[f"{name}_bytes"] = np.frombuffer(b"".join(parts), dtype=np.uint8)
            columns[f"{name}_offsets"] = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return cls(columns)

    def _decode(self, token: int) -> str:
        if not 0 <= token < self.n:
            return f"#{token}"
        return _utf8(self._text[int(self._text_at[token]) : int(self._text_at[token + 1])].tobytes())

    def shown(self, token: int) -> str:
        """The token as it may be shown, its leading space kept."""
        return safe_token_text(self.text(int(token)))

    def word(self, token: int) -> str:
        """The token as it stands in lists of words: safe, no leading space."""
        return word_text(self.text(int(token)))

    def texts(self, tokens: Iterable[int]) -> list[str]:
        """:meth:`text` of several."""
        return [self.text(int(token)) for token in tokens]

    def raw(self, token: int) -> bytes:
        """The token's own bytes; empty outside the vocabulary."""
        if not 0 <= token < self.n:
            return b""
        return self._raw[int(self._raw_at[token]) : int(self._raw_at[token + 1])].tobytes()

    def norm(self, token: int) -> str:
        """The normalised string that the Levenshtein measure sees; empty outside the vocabulary."""
        if not 0 <= token < self.n:
            return ""
        return _utf8(self._norm[int(self._norm_at[token]) : int(self._norm_at[token + 1])].tobytes())

    def _flag(self, token: int, bit: int) -> bool:
        return 0 <= token < self.n and bool(int(self.flags[token]) & bit)

    def is_special(self, token: int) -> bool:
        """A special token such as ``<eos>``."""
        return self._flag(token, VOCAB_SPECIAL)

    def is_padded(self, token: int) -> bool:
        """An id beyond the tokenizer's own, there only to pad the matrix."""
        return self._flag(token, VOCAB_PADDED)

    def is_whole_word(self, token: int) -> bool:
        """Start of a word, letters only, at least three."""
        return self._flag(token, VOCAB_WHOLE_WORD)

    def is_partial(self, token: int) -> bool:
        """Bytes that are not whole UTF-8 by themselves."""
        return self._flag(token, VOCAB_PARTIAL_BYTES)

    def same_word(self, token: int) -> np.ndarray:
        """Ids of every spelling (space marker, case, width) of a token's word, ascending."""
        if not 0 <= token < self.n:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(self.word_ids == self.word_ids[token])

    def find(self, text: str) -> np.ndarray:
        """Ids of all single-token spellings of a word: those whose normalised string is that of ``text``."""
        want = np.frombuffer(normalise(text).encode("utf-8", "surrogatepass"), dtype=np.uint8)
        if not len(want):
            return np.empty(0, dtype=np.int64)
        candidates = np.flatnonzero(np.diff(self._norm_at) == len(want))
        if not len(candidates):
            return candidates
        spans = self._norm_at[candidates][:, None] + np.arange(len(want))[None, :]
        return candidates[(self._norm[spans] == want).all(axis=1)]

    def matching(self, text: str) -> np.ndarray:
        """Which tokens hold ``text``, case folded, exactly or as shown (``⏎``): bool [V], read-only."""
        return self._cached(("text", text), lambda: self._search(text))

    def matching_regex(self, pattern: re.Pattern[str]) -> np.ndarray:
        """Which tokens the pattern is found in (the first 64 characters of each): bool [V], read-only."""

        def search() -> np.ndarray:
            look = pattern.search
            return np.fromiter((look(text) is not None for text in self._all()), dtype=bool, count=self.n)

        return self._cached((f"re{pattern.flags}", pattern.pattern), search)

    def ranks(self) -> np.ndarray:
        """Each token's place in alphabetical order of its word text, case folded: int32 [V], equal words equal."""
        if self._ranks is None:
            keys = [text.lstrip(" ").casefold() for text in self._all()]
            place = {key: i for i, key in enumerate(sorted(set(keys)))}
            self._ranks = np.array([place[key] for key in keys], dtype=np.int32)
        return self._ranks

    def _all(self) -> list[str]:
        """The first 64 characters of every token's text."""
        if self._texts is None:
            self._texts = [self._decode(token)[:64] for token in range(self.n)]
        return self._texts

    def _cached(self, key: tuple[str, str], compute: Any) -> np.ndarray:
        hit = self._searches.pop(key, None)
        if hit is None:
            hit = compute()
            hit.flags.writeable = False
            while len(self._searches) >= _CACHED_SEARCHES:
                self._searches.pop(next(iter(self._searches)))
        self._searches[key] = hit
        return hit

    def _search(self, text: str) -> np.ndarray:
        """Scan one block of case-folded bytes; a hit's place gives the token."""
        needle = np.frombuffer(text.casefold().encode("utf-8", "surrogatepass"), dtype=np.uint8)
        if not len(needle):
            return np.ones(self.n, dtype=bool)
        if self._folded is None:
            block = np.insert(self._text, self._text_at[1:-1], _SEPARATOR).tobytes() if self.n else b""
            self._folded = _fold(block)
        out = self._scan(self._folded, needle)
        if _DRAWN.search(text):
            if self._folded_shown is None:
                separator = bytes([_SEPARATOR])
                self._folded_shown = _fold(separator.join(self.shown(i).encode() for i in range(self.n)))
            out |= self._scan(self._folded_shown, needle)
        return out

    def _scan(self, folded: tuple[np.ndarray, np.ndarray], needle: np.ndarray) -> np.ndarray:
        block, token_at = folded
        places = np.flatnonzero(block[: max(0, len(block) - len(needle) + 1)] == needle[0])
        for i in range(1, len(needle)):
            places = places[block[places + i] == needle[i]]
        out = np.zeros(self.n, dtype=bool)
        out[token_at[places]] = True
        return out


def normalise(text: str) -> str:
    """A word's normalised string: without leading spaces, NFKC, case folded, as in the vocab product (methods 1.2)."""
    return unicodedata.normalize("NFKC", text.lstrip(" ")).casefold()


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "backslashreplace")


def _fold(block: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Case-folded bytes u8[], and the token at each, int32 (a separator belongs to the token before it)."""
    folded = block.decode("utf-8", "surrogateescape").casefold().encode("utf-8", "surrogateescape")
    data = np.frombuffer(folded, dtype=np.uint8)
    ends = data == _SEPARATOR
    return data, np.cumsum(ends, dtype=np.int32) - ends
