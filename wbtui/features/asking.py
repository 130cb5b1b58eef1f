"""What can be asked of every feature at once, as text: ``w:``, ``r:``, ``dir:``, ``like:``. No torch.

w:London                 writes the word: the mean of all its single-token spellings
w:" London"              writes exactly this token (quotes: spaces and case count)
w:{London,Paris}         a set: the mean of its words
w:{" he"}-{" she"}       a difference of two sets; + joins
r:London                 reads it: the same with encoders and embeddings
dir:probe.npy@L3.resid_post          decoders along a vector that lives at that place of the stream
dir:probes.safetensors:name@L3.resid_mid     a named tensor;   r:dir:… encoders along it
like:demo@L3#120         decoders like that feature's;   r:like:… encoders like its encoder
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wbtui.address import Address, parse_address
from wbtui.display import safe_token_text
from wbtui.errors import UsageError
from wbtui.features.vocabulary import Vocabulary

SIDES = {"w": "writes", "r": "reads"}
EXAMPLES = (
    'w:London, w:" London", w:{London,Paris}, w:{" he"}-{" she"}, r:London, dir:v.npy@L3.resid_post, like:demo@L3#7'
)
MAX_WORDS = 200
_DOUBLED = re.compile(r"\s*(?:[wr]\s*:\s*(?=[wr]\s*:))*", re.IGNORECASE)
_START = re.compile(_DOUBLED.pattern + r"(?:(w|r)\s*:\s*)?(?:(dir|like)\s*:)?", re.IGNORECASE)
"""Of ``w:r:London`` the last side counts: the bar begins with ``w:``, and one types what the manual says."""


@dataclass(frozen=True)
class Wanted:
    """One word or token of a query."""

    text: str
    exact: bool
    """Quoted: this very token."""
    sign: int = 1

    def shown(self) -> str:
        """As it is typed."""
        return f'"{self.text}"' if self.exact else self.text


@dataclass(frozen=True)
class Asked:
    """A query as read from text; what words mean is looked up later (:func:`tokens_of`)."""

    text: str
    side: str
    """``writes``: decoders are scored; ``reads``: encoders."""
    kind: str
    """``tokens``, ``vector`` or ``like``."""
    words: tuple[Wanted, ...] = ()
    path: str = ""
    tensor: str = ""
    position: str = ""
    address: Address | None = field(default=None)

    @property
    def sets(self) -> dict[int, list[Wanted]]:
        """Words by sign, +1 and -1."""
        return {sign: [w for w in self.words if w.sign == sign] for sign in (1, -1)}


def is_asked(text: str) -> bool:
    """Whether text that was typed is such a query rather than a filter."""
    match = _START.match(text)
    return match is not None and bool(match[1] or match[2])


def parse(text: str) -> Asked:
    """Read a query. Its ``text`` is what was typed without a side that does not count.

    Raises:
        UsageError: not one, or malformed; says where.
    """
    text = _DOUBLED.sub("", text, count=1).rstrip()
    match = _START.match(text)
    if match is None or not (match[1] or match[2]):
        raise UsageError(f"query {text[:80]!r}", f"one of {EXAMPLES}", "begin with w:, r:, dir: or like:")
    side = SIDES[(match[1] or "w").lower()]
    rest = text[match.end() :].strip()
    kind = (match[2] or "").lower()
    if kind == "like":
        address = parse_address(rest)
        if address.feature is None:
            raise UsageError(
                f"like:{rest[:80]}", "a feature's address, MODEL@SAE#FEATURE", "put the feature's number behind #"
            )
        return Asked(text, side, "like", address=address)
    if kind == "dir":
        path, tensor, position = split_vector(rest)
        return Asked(text, side, "vector", path=path, tensor=tensor, position=position)
    words = _Words(rest).read()
    return Asked(text, side, "tokens", words=tuple(words))


def split_vector(text: str) -> tuple[str, str, str]:
    """``FILE[:TENSOR][@POSITION]`` in its parts; an empty position was not said.

    Raises:
        UsageError: no file, or one of a kind that is not read.
    """
    match = re.fullmatch(r"(.+?\.(npy|safetensors))(?::([^@]+))?(?:@(.+))?", text.strip())
    if match is None:
        raise UsageError(
            f"vector {text[:80]!r}", "FILE.npy or FILE.safetensors:NAME, then @L3.resid_post", "save it as one of these"
        )
    if match[2] == "npy" and match[3]:
        raise UsageError(
            f"vector {text[:80]!r}", "an .npy file without a name: it holds one array", f"leave :{match[3]} out"
        )
    return match[1], match[3] or "", match[4] or ""


class _Words:
    """Words, sets and their signs."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def read(self) -> list[Wanted]:
        out: list[Wanted] = []
        sign = 1
        while True:
            out += [Wanted(w.text, w.exact, sign) for w in self._group()]
            self._blank()
            if self.at == len(self.text):
                break
            mark = self.text[self.at]
            if mark not in "+-":
                raise self._error(f"{mark!r}", "+, - or the end")
            sign = 1 if mark == "+" else -1
            self.at += 1
        if len(out) > MAX_WORDS:
            raise UsageError(f"a query of {len(out)} words", f"at most {MAX_WORDS}", "ask for fewer words at once")
        if not any(w.sign > 0 for w in out):
            raise self._error("only words that are taken away", "at least one to look for")
        return out

    def _group(self) -> list[Wanted]:
        self._blank()
        if self._peek() != "{":
            return [self._word(" +-")]
        self.at += 1
        out = [self._word(",}")]
        while True:
            self._blank()
            mark = self._peek()
            self.at += 1
            if mark == "}":
                return out
            if mark != ",":
                self.at -= 1
                raise self._error(f"{mark!r}" if mark else "the end", ", or } in a set of words")
            out.append(self._word(",}"))

    def _word(self, ends: str) -> Wanted:
        self._blank()
        quote = self._peek()
        if quote in ('"', "'") and quote:
            end = self.at + 1
            text = ""
            while end < len(self.text) and self.text[end] != quote:
                if self.text[end] == "\\" and end + 1 < len(self.text):
                    end += 1
                    text += {"n": "\n", "t": "\t", "r": "\r"}.get(self.text[end], self.text[end])
                else:
                    text += self.text[end]
                end += 1
            if end >= len(self.text):
                raise self._error("a quote that is not closed", quote)
            self.at = end + 1
            if not text:
                raise self._error("an empty token", "the token's text between the quotes")
            return Wanted(text, True)
        end = self.at
        while end < len(self.text) and self.text[end] not in ends:
            end += 1
        text, start = self.text[self.at : end].strip(), self.at
        self.at = end
        if not text:
            self.at = start
            raise self._error("no word", "a word, or a quoted token")
        return Wanted(text, False)

    def _blank(self) -> None:
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1

    def _peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def _error(self, found: str, expected: str) -> UsageError:
        return UsageError(f"query, character {self.at + 1}: {found}", expected, f"for example {EXAMPLES}")


@dataclass(frozen=True)
class Spelled:
    """A word of the query and the tokens that it means."""

    wanted: Wanted
    ids: tuple[int, ...]
    texts: tuple[str, ...]
    """Safe to show, with their spaces."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "word": self.wanted.text, "exact": self.wanted.exact, "sign": self.wanted.sign,
            "tokens": [{"id": i, "text": t} for i, t in zip(self.ids, self.texts, strict=True)],
        }  # fmt: skip


LONG_WORD = 64
"""Characters of a word that other tokens are held against; few tokens are longer."""


class NoToken(UsageError):
    """A word that no single token spells; ``word`` is it."""

    def __init__(self, wanted: Wanted, split: str = "", offered: str = "") -> None:
        self.wanted = wanted
        kind = "token" if wanted.exact else "word"
        shown = wanted.shown()
        shown = shown if len(shown) <= 80 else shown[:80] + "…"
        found = f"no single token spells the {kind} {shown!r}" + (f"; it splits into {split}" if split else "")
        super().__init__(
            found,
            f"a {kind} of the model's vocabulary",
            f"take {offered}" if offered else "ask for one of its pieces, or with dir: for a vector",
        )

    def to_json(self) -> dict[str, str]:
        """As the kind of error that the other side knows."""
        return {**super().to_json(), "code": UsageError.__name__}


def tokens_of(asked: Asked, vocab: Vocabulary) -> list[Spelled]:
    """The tokens of every word of a query, special and padded ones left out.

    Raises:
        NoToken: a word without one.
    """
    out = []
    for wanted in asked.words:
        ids = [int(i) for i in vocab.find(wanted.text) if not vocab.is_special(int(i)) and not vocab.is_padded(int(i))]
        if wanted.exact:
            ids = [i for i in range(vocab.n) if vocab.text(i) == wanted.text] if not ids else _exact(vocab, ids, wanted)
        if not ids:
            raise NoToken(wanted, offered=near(vocab, wanted))
        out.append(Spelled(wanted, tuple(ids), tuple(vocab.shown(i) for i in ids)))
    return out


def _exact(vocab: Vocabulary, ids: list[int], wanted: Wanted) -> list[int]:
    return [i for i in ids if vocab.text(i) == wanted.text]


def near(vocab: Vocabulary, wanted: Wanted, count: int = 4) -> str:
    """What is offered instead: the word's other spellings, else single tokens that begin as it does."""
    ids = [int(i) for i in vocab.find(wanted.text)]
    bare = wanted.text.strip().casefold()
    for length in range(min(len(bare), LONG_WORD), 2, -1):  # what was pasted by mistake is of any length
        if len(ids) >= count:
            break
        hits = np.flatnonzero(vocab.matching(bare[:length]))
        more = [int(i) for i in hits if vocab.norm(int(i)).startswith(bare[:length]) and int(i) not in ids]
        ids += sorted(more, key=lambda i: (abs(len(vocab.norm(i)) - len(bare)), i))
    ids = [i for i in ids if not vocab.is_special(i) and not vocab.is_padded(i)]
    return ", ".join(f'"{safe_token_text(vocab.text(i))}"' for i in ids[:count])
