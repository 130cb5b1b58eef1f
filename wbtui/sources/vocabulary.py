"""Token strings of a model, read once from its tokenizer and written to the store for everyone who has no tokenizer.

``tokenizer.json`` is read as data. Two schemes are understood: byte-level (``Ġ``: each character stands for a byte) and
Metaspace (``▁`` is a space, ``<0xE2>`` a byte). Anything else is refused. Without a ``tokenizer.json``, transformers
converts what is there. Source: methods 3.3 (strings), 1.2 (``lev``, whole words).
"""

from __future__ import annotations

import codecs
import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wbtui import jsontext, schema
from wbtui.catalog.tokenizer import foreign
from wbtui.errors import WeightsError

MAX_TOKENIZER_BYTES = 500_000_000
PRIVATE_BYTE = 0xE000
"""A byte that is no UTF-8 stands in ``norm`` as the private character ``U+E000 + byte``: one character each."""

_MAX_ID = 1 << 31
_WORD_BEHIND_SPACE = schema.VOCAB_LEADING_SPACE | schema.VOCAB_WHOLE_WORD
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _private(error: UnicodeError) -> tuple[str, int]:
    """Decoding errors become private characters."""
    assert isinstance(error, UnicodeDecodeError)
    bad = error.object[error.start : error.end]
    return "".join(chr(PRIVATE_BYTE + byte) for byte in bad), error.end


codecs.register_error("wbtui-private", _private)


class Tokens(NamedTuple):
    """What a tokenizer says of its tokens."""

    raw: dict[int, bytes]
    """A token's own bytes by its id, a leading space included."""
    special: set[int]
    """Ids of control tokens: their text is their name."""


def read_vocabulary(model_folder: str | Path, d_vocab: int) -> dict[str, np.ndarray]:
    """The columns of a ``vocab`` product.

    Args:
        model_folder: folder with ``tokenizer.json`` (or other tokenizer files).
        d_vocab: rows of the model's token matrices; ids without a token are padding.

    Returns:
        dict: ``text_bytes`` u8 and ``text_offsets`` i64 ``[V + 1]`` (UTF-8 as a person reads it, leading space kept, a
        byte that is no UTF-8 as ``\\xe2``; a padded id is ``#`` and its number); ``raw_bytes``, ``raw_offsets`` (the
        token's own bytes; empty for padding); ``norm_bytes``, ``norm_offsets`` (for string similarity: leading spaces
        stripped, NFKC, casefold, a lone byte as one private character); ``word`` i32 ``[V]`` (smallest id of the tokens
        with an equal normalised string; padding and control tokens stand alone); ``flags`` u8 ``[V]``
        (``schema.VOCAB_*``).

    Raises:
        WeightsError: no tokenizer, one that is not understood, or one with more tokens than the model.
    """
    tokens, where = _tokens(Path(model_folder))
    return columns_of(tokens, d_vocab, where)


class FirstWords:
    """What a row asks of a vocabulary, for the few tokens that it names, before there is a ``vocab`` product: a
    quarter of a million strings read one and all take longer than the row.

    Args: as :func:`read_vocabulary`.

    Attributes:
        flags: u8 ``[V]``, special and padding alone.

    Raises:
        WeightsError: as :func:`read_vocabulary`.
    """

    def __init__(self, model_folder: str | Path, d_vocab: int) -> None:
        text, where = _document(Path(model_folder))
        entries = _entries(text, where)
        self._tokens = dict(zip(entries.ids, entries.tokens, strict=True))
        self._own_bytes = entries.own_bytes
        self._added = {i: content.encode("utf-8", "surrogatepass") for i, content, _ in entries.added}
        kinds = {i: special for i, _, special in entries.added}
        controls = {i for i, special in kinds.items() if special}
        ids = np.unique(np.array([*entries.ids, *kinds], np.int64))
        beyond = sorted(set(ids[ids >= d_vocab].tolist()) - controls)
        if beyond:
            raise foreign(where, len(beyond), beyond[-1], d_vocab)
        self.flags = np.full(d_vocab, schema.VOCAB_PADDED, np.uint8)
        self.flags[ids[ids < d_vocab]] = 0
        self.flags[[i for i in controls if i < d_vocab]] = schema.VOCAB_SPECIAL
        self._words: dict[str, int] = {}
        self.word = _Each(self._word, np.int64)
        """Equal for tokens with an equal normalised string: not the ids of the product's ``word``."""
        self.whole_word = _Each(lambda i: bool(self._read(i)[2] & schema.VOCAB_WHOLE_WORD) and not self.flags[i], bool)
        self.norms = _Each(lambda i: self._read(i)[1].decode("utf-8", "surrogatepass"), object)

    def _read(self, i: int) -> tuple[bytes, bytes, int]:
        if i in self._added:
            return _read(self._added[i])
        return _read(self._own_bytes([self._tokens[i]])[0] if i in self._tokens else b"")

    def _word(self, i: int) -> int:
        if self.flags[i]:
            return -1 - i
        return self._words.setdefault(self.norms.one(i), len(self._words))

    def text(self, i: int) -> str:
        """The token as :func:`read_vocabulary` has it: unsafe to print."""
        if self.flags[i] == schema.VOCAB_PADDED:
            return f"#{i}"
        return self._read(i)[0].decode("utf-8", "replace")


class _Each:
    """``array[ids]`` of a function of ids."""

    def __init__(self, one: Callable[[int], Any], dtype: Any) -> None:
        self.one, self._dtype = one, dtype

    def __getitem__(self, ids: np.ndarray) -> np.ndarray:
        out = np.empty(np.shape(ids), self._dtype)
        out.ravel()[:] = [self.one(i) for i in np.ravel(ids).tolist()]
        return out


def columns_of(tokens: Tokens, d_vocab: int, where: str) -> dict[str, np.ndarray]:
    """Columns from token bytes by id; see :func:`read_vocabulary`.

    ASCII tokens, nine in ten, are read all at once: a quarter of a million one by one cost a second.
    """
    ids = np.fromiter(tokens.raw, np.int64, len(tokens.raw))
    beyond = sorted(set(ids[ids >= d_vocab].tolist()) - tokens.special)
    if beyond:
        raise foreign(where, len(beyond), beyond[-1], d_vocab)
    there = np.zeros(d_vocab, bool)
    there[ids[ids < d_vocab]] = True
    raws = list(map(tokens.raw.get, range(d_vocab), itertools.repeat(b"")))
    norms, flags, others = _ascii(raws)
    texts = raws.copy()
    for i in others:
        texts[i], norms[i], flags[i] = _read(raws[i])
    special = np.array(sorted(i for i in tokens.special if i < d_vocab), np.int64)
    padded = np.flatnonzero(~there)
    for i in padded.tolist():
        texts[i] = f"#{i}".encode()
    flags[special] = flags[special] & ~np.uint8(schema.VOCAB_WHOLE_WORD) | schema.VOCAB_SPECIAL
    flags[padded] = schema.VOCAB_PADDED
    word = np.arange(d_vocab, dtype=np.int32)
    alone = np.zeros(d_vocab, bool)
    alone[special] = alone[padded] = True
    plain = np.flatnonzero(~alone)
    names = [norms[i] for i in plain.tolist()]
    first = dict(zip(reversed(names), reversed(plain.tolist()), strict=True))  # the smallest id is the last to be said
    word[plain] = np.fromiter(map(first.__getitem__, names), np.int32, len(names))
    out: dict[str, np.ndarray] = {"word": word, "flags": flags}
    for name, strings in (("text", texts), ("raw", raws), ("norm", norms)):
        out[f"{name}_bytes"] = np.frombuffer(b"".join(strings), np.uint8).copy()
        out[f"{name}_offsets"] = _offsets(strings)
    return out


def _offsets(strings: Sequence[bytes] | Sequence[str]) -> np.ndarray:
    """Where each string begins in all of them joined, and where the last ends: i64 ``[n + 1]``."""
    return np.concatenate([[0], np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)))])


def _ascii(raws: list[bytes]) -> tuple[list[bytes], np.ndarray, list[int]]:
    """(normalised texts, flags, tokens that hold other bytes and must be read one by one) by what :func:`_read` says
    of ASCII: NFKC leaves it as it is, and its casefold is its lower case."""
    n = len(raws)
    bare = [raw.lstrip(b" ") for raw in raws]
    length = np.fromiter(map(len, bare), np.int64, n)
    spaced = np.fromiter(map(len, raws), np.int64, n) > length
    whole = (length >= 3) & np.fromiter(map(bytes.isalpha, bare), bool, n)
    flags = np.zeros(n, np.uint8)
    flags[spaced] = schema.VOCAB_LEADING_SPACE
    flags[spaced & whole] = _WORD_BEHIND_SPACE
    ascii_ = np.fromiter(map(bytes.isascii, raws), bool, n)
    return list(map(bytes.lower, bare)), flags, np.flatnonzero(~ascii_).tolist()


def _read(raw: bytes) -> tuple[bytes, bytes, int]:
    """(text, normalised text, flags) of a token's bytes; texts in UTF-8."""
    bits = 0
    try:
        text = exact = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "backslashreplace")
        exact = raw.decode("utf-8", "wbtui-private")
        bits |= schema.VOCAB_PARTIAL_BYTES
    bare = exact.lstrip(" ")
    norm = unicodedata.normalize("NFKC", bare).casefold()
    if exact.startswith(" "):
        bits |= _WORD_BEHIND_SPACE if is_word(bare) else schema.VOCAB_LEADING_SPACE
    return text.encode("utf-8"), norm.encode("utf-8"), bits


def is_word(bare: str) -> bool:
    """Letters only (with their combining marks), at least three letters (methods 1.2, ``word_share``)."""
    if bare.isalpha():
        return len(bare) >= 3
    letters = 0
    for char in bare:
        kind = unicodedata.category(char)[0]
        if kind == "L":
            letters += 1
        elif kind != "M":
            return False
    return letters >= 3


def _tokens(folder: Path) -> tuple[Tokens, str]:
    """Token bytes by id, and the file they came from."""
    text, where = _document(folder)
    return parse_tokenizer(text, where), where


def _document(folder: Path) -> tuple[str, str]:
    """The text of a ``tokenizer.json``, and where it came from."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return _converted(folder), str(folder)
    try:
        size = path.stat().st_size
        if size > MAX_TOKENIZER_BYTES:
            raise WeightsError(f"{path}: {size} bytes", f"a tokenizer of at most {MAX_TOKENIZER_BYTES} bytes")
        return path.read_bytes().decode("utf-8"), str(path)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}", "a readable tokenizer.json") from None
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path}: not UTF-8 ({error.reason})", "a tokenizer.json") from None


def _converted(folder: Path) -> str:
    """The ``tokenizer.json`` that transformers makes of older tokenizer files; nothing is downloaded or executed."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        return str(tokenizer.backend_tokenizer.to_str())
    except Exception as error:  # transformers raises whatever its converters raise
        raise WeightsError(
            f"{folder}: no tokenizer.json, and the other tokenizer files cannot be read ({error})",
            "tokenizer.json",
            "save the tokenizer with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
        ) from None


def parse_tokenizer(text: str, where: str) -> Tokens:
    """Token bytes by id out of a ``tokenizer.json``.

    Raises:
        WeightsError: not JSON, malformed, or of a scheme that is not understood.
    """
    entries = _entries(text, where)
    raws = entries.own_bytes(entries.tokens)
    out = Tokens(dict(zip(entries.ids, raws, strict=True)), set())
    for i, content, special in entries.added:
        out.raw[i] = content.encode("utf-8", "surrogatepass")
        (out.special.add if special else out.special.discard)(i)
    return out


class _Entries(NamedTuple):
    """A ``tokenizer.json`` as it is written."""

    tokens: list[str]
    ids: list[int]
    added: list[tuple[int, str, bool]]
    """Id, text and whether it is a control token; these stand in front of the others."""
    own_bytes: Callable[[list[str]], list[bytes]]
    """From tokens as they are written to their own bytes."""


def _entries(text: str, where: str) -> _Entries:
    """See :func:`parse_tokenizer`."""
    try:
        data = jsontext.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{where}: not JSON ({error})", "a tokenizer.json") from None
    model = data.get("model") if isinstance(data, dict) else None
    if not isinstance(model, dict):
        raise WeightsError(f"{where}: no model", "a tokenizer.json with a model")
    scheme = _scheme(data, model, where)
    tokens, numbers = _vocab_items(model, where)
    if len(set(numbers)) < len(numbers):
        ids: dict[int, str] = {}
        for token, i in zip(tokens, numbers, strict=True):
            if i in ids:
                raise WeightsError(f"{where}: tokens {ids[i]!r} and {token!r} share id {i}", "one token for each id")
            ids[i] = token
    byte_tokens = scheme != "bytes" and (bool(model.get("byte_fallback")) or _decoder_has(data, "ByteFallback"))
    own_bytes = _byte_level if scheme == "bytes" else partial(_metaspace, byte_tokens=byte_tokens)
    return _Entries(tokens, numbers, _added_items(data, where), own_bytes)


_NO_BYTE = 0x100


def _byte_level(tokens: list[str]) -> list[bytes]:
    """The own bytes of byte-level vocabulary entries; one with another character stands for itself, as tokenizers
    decodes it. All are translated as one string: a quarter of a million one by one cost seconds."""
    table = np.full(512, _NO_BYTE, np.uint16)
    table[[ord(char) for char in byte_characters()]] = range(256)
    codes = np.frombuffer("".join(tokens).encode("utf-32-le", "surrogatepass"), "<u4")
    found = table[np.minimum(codes, len(table) - 1)]
    offsets = _offsets(tokens)
    data = found.astype(np.uint8).tobytes()
    out = [data[a:b] for a, b in itertools.pairwise(offsets.tolist())]
    for i in set((np.searchsorted(offsets, np.flatnonzero(found == _NO_BYTE), side="right") - 1).tolist()):
        out[i] = tokens[i].encode("utf-8", "surrogatepass")
    return out


def _metaspace(tokens: list[str], byte_tokens: bool) -> list[bytes]:
    """The own bytes of Metaspace vocabulary entries."""
    out = [token.replace("▁", " ").encode("utf-8", "surrogatepass") for token in tokens]
    if byte_tokens:
        for i, token in enumerate(tokens):
            if token.startswith("<0x") and (match := _BYTE_TOKEN.fullmatch(token)):
                out[i] = bytes([int(match.group(1), 16)])
    return out


def byte_characters() -> list[str]:
    """Byte -> the printable character that stands for it in byte-level vocabularies (GPT-2)."""
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    extra = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(extra)) for byte in range(256)]


def _scheme(data: dict[str, Any], model: dict[str, Any], where: str) -> str:
    """``bytes`` or ``metaspace``, by the decoder, which defines what tokens mean as text."""
    if model.get("type") not in (None, "BPE", "Unigram"):
        raise WeightsError(f"{where}: tokenizer model {model.get('type')!r}", "BPE or Unigram")
    if _decoder_has(data, "ByteLevel"):
        return "bytes"
    if _decoder_has(data, "Metaspace") or _replaces_metaspace(data):
        return "metaspace"
    raise WeightsError(
        f"{where}: decoder {_kind(data.get('decoder'))!r}",
        "ByteLevel, or Metaspace (▁), with or without byte fallback",
        "what its tokens mean as text is not known here, and wbtui does not guess",
    )


def _parts(item: Any) -> list[dict[str, Any]]:
    """A decoder and, if it is a sequence, its parts (one level, as tokenizers writes them)."""
    if not isinstance(item, dict):
        return []
    inner = item.get("decoders")
    return [item, *(part for part in inner if isinstance(part, dict))] if isinstance(inner, list) else [item]


def _decoder_has(data: dict[str, Any], kind: str) -> bool:
    return any(_kind(part) == kind for part in _parts(data.get("decoder")))


def _replaces_metaspace(data: dict[str, Any]) -> bool:
    """A ``Replace`` of ``▁`` by a space, as Llama's and Gemma's tokenizers have."""
    return any(
        _kind(part) == "Replace" and part.get("pattern") == {"String": "▁"} and part.get("content") == " "
        for part in _parts(data.get("decoder"))
    )


def _kind(item: Any) -> Any:
    return item.get("type") if isinstance(item, dict) else None


def _vocab_items(model: dict[str, Any], where: str) -> tuple[list[str], list[int]]:
    """Tokens and their ids, of BPE's object or Unigram's list."""
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        tokens, ids = list(vocab), list(vocab.values())
        if set(map(type, ids)) - {int} or (ids and not 0 <= min(ids) <= max(ids) < _MAX_ID):
            for token, i in vocab.items():
                _check_id(i, token, where)
        return tokens, ids
    if isinstance(vocab, list) and all(isinstance(e, list) and e and isinstance(e[0], str) for e in vocab):
        return [entry[0] for entry in vocab], list(range(len(vocab)))
    raise WeightsError(f"{where}: no vocab", "a vocabulary in the tokenizer's model")


def _added_items(data: dict[str, Any], where: str) -> list[tuple[int, str, bool]]:
    added = data.get("added_tokens")
    if added is None:
        return []
    out = []
    for item in added if isinstance(added, list) else [None]:
        if not isinstance(item, dict) or not isinstance(item.get("content"), str):
            raise WeightsError(f"{where}: malformed added_tokens", "a list of objects with id, content, special")
        _check_id(item.get("id"), item["content"], where)
        out.append((item["id"], item["content"], item.get("special") is True))
    return out


def _check_id(i: Any, token: str, where: str) -> None:
    if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < _MAX_ID:
        raise WeightsError(f"{where}: token {token[:40]!r} has id {i!r}", "a whole number")


def split(model_folder: str | Path, text: str) -> list[int]:
    """The token ids that the model's own tokenizer splits a text into, special tokens left out.

    Raises:
        WeightsError: no tokenizer that can be read.
    """
    from tokenizers import Tokenizer

    path = Path(model_folder) / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else Tokenizer.from_str(_converted(path.parent))
        return [int(i) for i in tokenizer.encode(text, add_special_tokens=False).ids]
    except Exception as error:  # the library raises plain Exceptions
        raise WeightsError(f"{path}: cannot split text ({error})", "a tokenizer.json that tokenizers reads") from None
