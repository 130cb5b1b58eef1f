"""Every number of heads and depth has an entry."""

from __future__ import annotations

from wbtui.features.glossary_heads import heads_glossary
from wbtui.features.heads import STATISTICS
from wbtui.schema_attention import attention_columns, ov_columns


def test_every_column_is_explained_once() -> None:
    entries = heads_glossary()
    names = [entry.name for entry in entries]
    assert len(names) == len(set(names))
    for name in (*attention_columns(), *ov_columns()):
        assert name in names or name.partition(".")[2] in names, name
    assert set(STATISTICS) <= set(names)
    assert all(entry.meaning and entry.source for entry in entries)
