"""The embedded demo through the same checks: it is a trained model, so conventions matter more than in random ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.sources.conftest import Tap, load_reference
from tests.sources.test_model import TOLERANCE, error, our_logits
from wbtui import schema
from wbtui.catalog.models import DEMO_DIR, find_model
from wbtui.catalog.saes import list_saes
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.model import input_map, output_map
from wbtui.sources.sae import SaeSource
from wbtui.sources.vocabulary import read_vocabulary

MODEL = DEMO_DIR / "model"
pytestmark = pytest.mark.skipif(not (MODEL / "config.json").is_file(), reason="the demo is not in this tree")


def test_logits_and_embedding() -> None:
    model = load_reference(MODEL)
    tap = Tap(model, "model.norm")
    ids = torch.tensor([[2, 100, 700, 4000, 51]])
    with torch.no_grad():
        result = model(ids, output_hidden_states=True)
    ckpt = Checkpoint(MODEL)
    assert error(our_logits(tap.inputs["model.norm"], output_map(ckpt), model.config), result.logits[0]) < TOLERANCE
    ends = input_map(ckpt)
    assert torch.allclose(ends.tokens[ids[0]].float() * ends.scale, result.hidden_states[0][0], rtol=1e-5, atol=1e-6)


def test_every_sae_fits_and_reads_the_stream() -> None:
    model = find_model("demo")
    saes = list_saes(model)
    assert len(saes) >= model.n_layers
    ckpt = Checkpoint(MODEL)
    for info in saes:
        source = SaeSource(info, ckpt)
        rows, reads = source.decoder_rows(0, source.n), source.encoder_rows(0, source.n)
        assert source.reads_absent is None
        assert reads is not None
        assert rows.shape == reads.shape == (info.d_sae, model.d_model)
        assert rows.isfinite().all()
        assert reads.isfinite().all()


def test_vocabulary_equals_the_tokenizers_decoding() -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    d_vocab = find_model("demo").d_vocab
    columns = read_vocabulary(MODEL, d_vocab)
    data, ends = columns["text_bytes"].tobytes(), columns["text_offsets"].tolist()
    assert len(ends) == d_vocab + 1
    partial = columns["flags"] & schema.VOCAB_PARTIAL_BYTES
    for i in range(tokenizer.get_vocab_size()):
        if not partial[i]:
            assert data[ends[i] : ends[i + 1]].decode() == tokenizer.decode([i], skip_special_tokens=False)
    assert np.count_nonzero(columns["flags"] & schema.VOCAB_WHOLE_WORD) > 500
