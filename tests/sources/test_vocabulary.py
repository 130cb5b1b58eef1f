"""Token strings: byte-level and Metaspace, hostile and partial ones, against the tokenizers library."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from tests.fixtures import SPECIAL_TOKENS, tiny_model, tiny_tokenizer
from wbtui import schema
from wbtui.catalog.models import DEMO_DIR
from wbtui.errors import WeightsError
from wbtui.sources.vocabulary import FirstWords, byte_characters, is_word, parse_tokenizer, read_vocabulary

HOSTILE = [
    '"quoted"',
    "a\nb",
    "\x1b[31mred",
    "\x00",
    "\u202e\u200b",
    "=1+1",
    "🙂",
    "\U0001f468\u200d\U0001f469",
    "  two",
    " ",
    "\t",
    "\\xe2",
    "[/b]",
    "\ufb01",
]


def strings(columns: dict[str, np.ndarray], name: str) -> list[bytes]:
    data, ends = columns[f"{name}_bytes"].tobytes(), columns[f"{name}_offsets"].tolist()
    return [data[a:b] for a, b in itertools.pairwise(ends)]


def texts(columns: dict[str, np.ndarray], name: str = "text") -> list[str]:
    return [s.decode("utf-8") for s in strings(columns, name)]


def has(columns: dict[str, np.ndarray], bit: int) -> set[int]:
    return set(np.flatnonzero(columns["flags"] & bit).tolist())


def save(tokenizer: Tokenizer, folder: Path) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def byte_level(tokens: list[bytes], specials: tuple[str, ...] = ()) -> Tokenizer:
    """A byte-level tokenizer of exactly these tokens."""
    char = byte_characters()
    vocab = {"".join(char[b] for b in token): i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(specials))
    return tokenizer


def metaspace(vocab: list[str], kind: str) -> Tokenizer:
    """A Gemma-like (Replace) or Metaspace tokenizer with byte fallback."""
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(vocab)}, merges=[], byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    if kind == "replace":
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    else:
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    return tokenizer


def test_byte_characters_are_gpt2s() -> None:
    """The mapping equals the alphabet that tokenizers itself uses."""
    assert sorted(byte_characters()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert byte_characters()[ord(" ")] == "Ġ"
    assert byte_characters()[ord("\n")] == "Ċ"
    assert byte_characters()[0xE2] == "â"


def test_whole_tokens_equal_the_tokenizers_decoding(tmp_path: Path) -> None:
    """GIVEN a real byte-level tokenizer THEN the text of every token of whole characters is what decode gives."""
    tokenizer = tiny_tokenizer()
    columns = read_vocabulary(save(tokenizer, tmp_path), tokenizer.get_vocab_size() + 5)
    partial, special = has(columns, schema.VOCAB_PARTIAL_BYTES), has(columns, schema.VOCAB_SPECIAL)
    compared = 0
    for i, text in enumerate(texts(columns)[: tokenizer.get_vocab_size()]):
        decoded = tokenizer.decode([i], skip_special_tokens=False)
        assert (i in partial) == ("\ufffd" in decoded)
        if i not in partial:
            assert text == decoded
            compared += 1
    assert compared > 200
    assert len(partial) > 100
    assert special == {tokenizer.token_to_id(t) for t in SPECIAL_TOKENS}


@pytest.mark.parametrize("text", ["the cat sat", "naïve café", "東京 привет 🙂🙃", "a\n\n  b\t¡\x00", "x" * 50])
def test_raw_bytes_concatenate_to_the_text(text: str, tmp_path: Path) -> None:
    """Any encoding's raw bytes joined are the text's bytes, partial tokens included."""
    tokenizer = tiny_tokenizer()
    raw = strings(read_vocabulary(save(tokenizer, tmp_path), 400), "raw")
    assert b"".join(raw[i] for i in tokenizer.encode(text).ids) == text.encode()


def test_hostile_tokens(tmp_path: Path) -> None:
    """Quotes, newlines, escape sequences, NUL, bidi marks, markup: text and raw hold them unchanged."""
    tokens = [t.encode() for t in HOSTILE]
    columns = read_vocabulary(save(byte_level(tokens), tmp_path), len(tokens))
    assert strings(columns, "raw") == tokens
    assert texts(columns) == HOSTILE
    assert has(columns, schema.VOCAB_PARTIAL_BYTES) == set()
    assert has(columns, schema.VOCAB_LEADING_SPACE) == {HOSTILE.index("  two"), HOSTILE.index(" ")}
    norm = texts(columns, "norm")
    assert norm[HOSTILE.index("\ufb01")] == "fi"
    assert norm[HOSTILE.index("  two")] == "two"
    assert norm[HOSTILE.index(" ")] == ""


def test_partial_bytes_escape_in_text_and_are_one_character_in_norm(tmp_path: Path) -> None:
    """Two lone bytes differ wholly in norm: as ``\\xe2`` and ``\\xe3`` they would look three quarters alike."""
    tokens = [b"\xe2", b"\xe3", b" \xf0\x9f", b"a\xc3", "é".encode(), b"\xff\xfe"]
    columns = read_vocabulary(save(byte_level(tokens), tmp_path), len(tokens))
    assert texts(columns) == ["\\xe2", "\\xe3", " \\xf0\\x9f", "a\\xc3", "é", "\\xff\\xfe"]
    assert texts(columns, "norm") == ["\ue0e2", "\ue0e3", "\ue0f0\ue09f", "a\ue0c3", "é", "\ue0ff\ue0fe"]
    assert strings(columns, "raw") == tokens
    assert has(columns, schema.VOCAB_PARTIAL_BYTES) == {0, 1, 2, 3, 5}
    assert has(columns, schema.VOCAB_LEADING_SPACE) == {2}


def test_words_group_spellings(tmp_path: Path) -> None:
    """Space marker, case and width are one word; the id is the smallest; control and padded tokens stand alone."""
    tokens = [t.encode() for t in ["cat", " cat", " Cat", "CAT", "ｃａｔ", "cats", " ", "  ", "<bos>x"]]
    columns = read_vocabulary(save(byte_level(tokens, ("<BOS>", "<bos>")), tmp_path), 13)
    assert columns["word"].tolist() == [0, 0, 0, 0, 0, 5, 6, 6, 8, 9, 10, 11, 12]
    assert columns["word"].dtype == np.int32
    assert has(columns, schema.VOCAB_SPECIAL) == {9, 10}
    assert has(columns, schema.VOCAB_PADDED) == {11, 12}
    assert texts(columns)[9:] == ["<BOS>", "<bos>", "#11", "#12"]
    assert strings(columns, "raw")[11:] == [b"", b""]


def test_whole_words(tmp_path: Path) -> None:
    """Start of a word, letters only, three or more (methods 1.2)."""
    tokens = [" cat", "cat", " at", " cat5", " don't", " naïve", " привет", " 東京都", "  cat", " c-t", " हिन्दी", " "]
    columns = read_vocabulary(save(byte_level([t.encode() for t in tokens]), tmp_path), len(tokens))
    assert has(columns, schema.VOCAB_WHOLE_WORD) == {0, 5, 6, 7, 8, 10}
    assert is_word("cat")
    assert not is_word("ca\u0301")


@pytest.mark.parametrize("kind", ["replace", "metaspace"])
def test_metaspace_and_byte_fallback(kind: str, tmp_path: Path) -> None:
    """``▁`` is a space, ``<0xE2>`` is a byte; checked against decode where that keeps the space."""
    vocab = ["<unk>", "<0x0A>", "<0xE2>", "▁the", "the", "▁▁", "é", "a▁b", "<0xZZ>", "▁The", "<0x41>"]
    tokenizer = metaspace(vocab, kind)
    tokenizer.add_special_tokens(["<unk>"])
    columns = read_vocabulary(save(tokenizer, tmp_path), 13)
    assert texts(columns) == [
        "<unk>",
        "\n",
        "\\xe2",
        " the",
        "the",
        "  ",
        "é",
        "a b",
        "<0xZZ>",
        " The",
        "A",
        "#11",
        "#12",
    ]
    assert strings(columns, "raw")[:4] == [b"<unk>", b"\n", b"\xe2", b" the"]
    assert has(columns, schema.VOCAB_PARTIAL_BYTES) == {2}
    assert has(columns, schema.VOCAB_SPECIAL) == {0}
    assert has(columns, schema.VOCAB_LEADING_SPACE) == {3, 5, 9}
    assert columns["word"][[3, 4, 9]].tolist() == [3, 3, 3]
    if kind == "replace":
        for i, text in enumerate(texts(columns)[:11]):
            if i != 2:
                assert tokenizer.decode([i], skip_special_tokens=False) == text


def test_unigram_vocabulary(tmp_path: Path) -> None:
    """Unigram models list their tokens with scores."""
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("b", -2.0)], unk_id=0))
    tokenizer.decoder = decoders.Metaspace()
    columns = read_vocabulary(save(tokenizer, tmp_path), 3)
    assert texts(columns) == ["<unk>", " a", "b"]


def test_added_tokens_are_literal(tmp_path: Path) -> None:
    """Added tokens stand for their own characters, also ``Ġ`` or spaces, in either scheme; they need not be special."""
    tokenizer = byte_level([b"a", b" b"])
    tokenizer.add_tokens(["    ", "é", "Ġx"])
    columns = read_vocabulary(save(tokenizer, tmp_path), 5)
    assert texts(columns) == ["a", " b", "    ", "é", "Ġx"]
    assert has(columns, schema.VOCAB_SPECIAL) == set()


def test_lone_surrogates_do_no_harm(tmp_path: Path) -> None:
    """JSON can hold half a surrogate pair; its bytes are no UTF-8, so it shows as such."""
    text = '{"model": {"type": "BPE", "vocab": {"\\ud800": 0, "a": 1}}, "decoder": {"type": "ByteLevel"}}'
    (tmp_path / "tokenizer.json").write_text(text)
    columns = read_vocabulary(tmp_path, 2)
    assert texts(columns) == ["\\xed\\xa0\\x80", "a"]
    assert has(columns, schema.VOCAB_PARTIAL_BYTES) == {0}


def test_offsets_and_dtypes(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, "llama")
    columns = read_vocabulary(folder, 396)
    assert set(columns) == {
        *(f"{name}_{part}" for name in ("text", "raw", "norm") for part in ("bytes", "offsets")),
        "word",
        "flags",
    }
    for name in ("text", "raw", "norm"):
        offsets = columns[f"{name}_offsets"]
        assert (offsets.dtype, offsets.shape, offsets[0]) == (np.int64, (397,), 0)
        assert columns[f"{name}_bytes"].dtype == np.uint8
        assert offsets[-1] == len(columns[f"{name}_bytes"])
        assert (np.diff(offsets) >= 0).all()
    assert columns["flags"].dtype == np.uint8
    assert has(columns, schema.VOCAB_PADDED) == set(range(387, 396))
    assert has(columns, schema.VOCAB_SPECIAL) == {0, 1, 2}


def test_older_tokenizer_files_are_converted(tmp_path: Path) -> None:
    """GIVEN vocab.json and merges.txt alone THEN transformers' conversion gives the same strings."""
    tokenizer = tiny_tokenizer()
    tokenizer.model.save(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    old = read_vocabulary(tmp_path, 500)
    new_folder = tmp_path / "new"
    new_folder.mkdir()
    new = read_vocabulary(save(tokenizer, new_folder), 500)
    n = tokenizer.get_vocab_size()
    assert strings(old, "raw")[:n] == strings(new, "raw")[:n]


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no tokenizer\.json") as caught:
        read_vocabulary(tmp_path, 10)
    assert caught.value.do


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    folder, size = save(tiny_tokenizer(), tmp_path), tiny_tokenizer().get_vocab_size()
    assert len(read_vocabulary(folder, size)["flags"]) == size
    for d_vocab in (100, size - 1):
        with pytest.raises(WeightsError, match="no row in the model"):
            read_vocabulary(folder, d_vocab)


def test_special_tokens_beyond_the_model_are_left_out(tmp_path: Path) -> None:
    """Some tokenizers have more control tokens than the model has rows; no product can ever show them."""
    tokenizer = byte_level([b"a", b"b"], ("<x>", "<y>"))
    assert texts(read_vocabulary(save(tokenizer, tmp_path), 3)) == ["a", "b", "<x>"]


GOOD: dict[str, Any] = {
    "added_tokens": [{"id": 2, "content": "<s>", "special": True}],
    "model": {"type": "BPE", "vocab": {"a": 0, "Ġb": 1}},
    "decoder": {"type": "ByteLevel"},
}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": None}, "no model"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "WordPiece"),
        ({"decoder": None}, "decoder None"),
        ({"decoder": {"type": "WordPiece"}}, "WordPiece"),
        ({"model": {"type": "BPE"}}, "no vocab"),
        ({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}}}, "share id 0"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}}}, "id -1"),
        ({"model": {"type": "BPE", "vocab": {"a": "0"}}}, "id '0'"),
        ({"model": {"type": "BPE", "vocab": {"a": 10**30}}}, "id 10000"),
        ({"added_tokens": {}}, "added_tokens"),
        ({"added_tokens": [{"id": 3}]}, "added_tokens"),
        ({"added_tokens": [{"id": None, "content": "x"}]}, "id None"),
    ],
)
def test_malformed_tokenizers_are_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(WeightsError, match=match) as caught:
        parse_tokenizer(json.dumps({**GOOD, **change}), "tokenizer.json")
    assert caught.value.expected


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**40) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.sampled_from(["model", "decoder", "added_tokens"]), _JSON, max_size=2),
    st.dictionaries(st.sampled_from(["type", "vocab", "byte_fallback"]), _JSON, max_size=2),
)
def test_any_tokenizer_reads_or_is_refused(change: dict[str, Any], inner: dict[str, Any]) -> None:
    data = {**GOOD, "model": {**GOOD["model"], **inner}, **change}
    with contextlib.suppress(WeightsError):
        tokens = parse_tokenizer(json.dumps(data), "tokenizer.json")
        assert all(isinstance(raw, bytes) for raw in tokens.raw.values())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_any_file_reads_or_is_refused(data: bytes) -> None:
    with contextlib.suppress(WeightsError):
        parse_tokenizer(data.decode("utf-8", "surrogateescape"), "tokenizer.json")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=12, unique=True))
def test_any_bytes_survive(tokens: list[bytes]) -> None:
    """Whatever bytes tokens are made of: raw is exact, text and norm are valid UTF-8."""
    from wbtui.sources.vocabulary import columns_of

    char = byte_characters()
    data = {**GOOD, "added_tokens": [], "model": {"type": "BPE", "vocab": {}}}
    data["model"]["vocab"] = {"".join(char[b] for b in token): i for i, token in enumerate(tokens)}
    columns = columns_of(parse_tokenizer(json.dumps(data), "x"), len(tokens), "x")
    assert strings(columns, "raw") == tokens
    assert len(texts(columns)) == len(texts(columns, "norm")) == len(tokens)
    assert (columns["word"] <= np.arange(len(tokens))).all()


@pytest.mark.parametrize("where", ["demo", "bytes", "metaspace"])
def test_first_words_are_those_of_the_whole_vocabulary(where: str, tmp_path: Path) -> None:
    """What a first look reads of few tokens is what the product has of all."""
    folder = DEMO_DIR / "model"
    d_vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    if where != "demo":
        folder = tmp_path
        tokens = ["<bos>", "Ġthe", "the", "Thé", "â", "Ċ", "Ġ", "ab", "Ġfoo"]
        if where == "metaspace":
            tokens = ["<bos>", "▁the", "the", "ＴＨＥ", "<0xE2>", "▁", "▁▁x", "ab", "\ud800"]
        decoder = {"type": "ByteLevel"} if where == "bytes" else {"type": "Metaspace"}
        model = {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "byte_fallback": where == "metaspace"}
        added = [{"id": 0, "content": "<bos>", "special": True}, {"id": 10, "content": " plain", "special": False},
                 {"id": 99, "content": "<far>", "special": True}]  # fmt: skip
        text = json.dumps({"model": model, "decoder": decoder, "added_tokens": added})
        (folder / "tokenizer.json").write_text(text)
        d_vocab = 12
    whole, first = read_vocabulary(folder, d_vocab), FirstWords(folder, d_vocab)
    ids = np.arange(d_vocab)[:, None]
    alone = schema.VOCAB_SPECIAL | schema.VOCAB_PADDED
    np.testing.assert_array_equal(first.flags, whole["flags"] & alone)
    np.testing.assert_array_equal(first.whole_word[ids][:, 0], (whole["flags"] & schema.VOCAB_WHOLE_WORD) != 0)
    same = dict(zip(first.word[ids][:, 0].tolist(), whole["word"].tolist(), strict=True))
    assert [same[w] for w in first.word[ids][:, 0].tolist()] == whole["word"].tolist()
    assert len(same) == len(set(whole["word"].tolist()))
    for name, found in (("norm", [s.encode("utf-8", "surrogatepass") for s in first.norms[ids][:, 0]]),
                        ("text", [first.text(i).encode("utf-8", "replace") for i in range(d_vocab)])):  # fmt: skip
        at = whole[f"{name}_offsets"]
        texts = [whole[f"{name}_bytes"][a:b].tobytes() for a, b in itertools.pairwise(at.tolist())]
        plain = [i for i in range(d_vocab) if b"\xed" not in texts[i]]
        assert [found[i] for i in plain] == [texts[i] for i in plain]


def test_first_words_refuse_what_the_vocabulary_refuses(tmp_path: Path) -> None:
    model = {"type": "BPE", "vocab": {f"t{i}": i for i in range(40)}}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "decoder": {"type": "ByteLevel"}}))
    for read in (read_vocabulary, FirstWords):
        with pytest.raises(WeightsError, match="vocabulary of 40, of which 8 tokens .* ids below 32"):
            read(tmp_path, 32)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        FirstWords(tmp_path, 32)
