"""A definition of attention out of named parts, as the command line takes them."""

from __future__ import annotations

import pytest

from wbtui.definitions import AttentionDefinition, attention_parts
from wbtui.errors import UsageError


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ((), AttentionDefinition()),
        (("offset=7",), AttentionDefinition(offset=7)),
        (("rope=mean", "offsets=64"), AttentionDefinition(rope="mean", offsets=64)),
        (("rope=bound", "softcap=off", "bias=off"), AttentionDefinition(rope="bound", softcap=False, bias=False)),
        (("scale=act", "activation=3.5", "stream_rms=2"), AttentionDefinition(
            scale="act", activation=3.5, stream_rms=2.0)),
    ],
)  # fmt: skip
def test_parts(parts: tuple[str, ...], wanted: AttentionDefinition) -> None:
    assert attention_parts(parts) == wanted


@pytest.mark.parametrize(
    "part",
    ["offset", "offset=", "offset=-1", "offset=2.5", "rope=often", "softcap=yes", "colour=red", "scale=act", "=7",
     "dtype=float16", "activation=much"],
)  # fmt: skip
def test_what_means_nothing_is_refused(part: str) -> None:
    with pytest.raises(UsageError):
        attention_parts([part])
