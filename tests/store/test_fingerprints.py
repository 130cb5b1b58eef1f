"""Fingerprints: SHA-256 of the tensors' bytes, wherever they lie; a memory that may fail but never lies."""

from __future__ import annotations

import errno
import hashlib
import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.store.helpers import FailAt, faults, read_only
from wbtui.errors import WeightsError
from wbtui.store import fingerprints, io
from wbtui.store.fingerprints import bytes_fingerprint, file_digest, tensors_fingerprint
from wbtui.store.keys import canonical_json

TENSORS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.arange(4, dtype=np.int16), "c": np.zeros((0, 2))}


@pytest.fixture
def weights(tmp_path):
    """A file old enough to be remembered."""
    path = tmp_path / "w.safetensors"
    save_file(TENSORS, path)
    os.utime(path, (1000, 1000))
    return path


@pytest.fixture
def reads(monkeypatch):
    """Paths whose bytes are hashed."""
    seen = []
    real = fingerprints.file_digest
    monkeypatch.setattr(fingerprints, "file_digest", lambda path, *a: seen.append(str(path)) or real(path, *a))
    return seen


def test_a_fingerprint_is_the_hash_that_its_definition_says(weights):
    parts = [
        ["a", "I16", [4], hashlib.sha256(TENSORS["a"].tobytes()).hexdigest()],
        ["b", "F32", [2, 3], hashlib.sha256(TENSORS["b"].tobytes()).hexdigest()],
    ]
    want = hashlib.sha256(canonical_json(parts).encode()).hexdigest()
    assert tensors_fingerprint({weights: ["b", "a"]}, None) == want
    assert tensors_fingerprint({weights: ["a", "b", "a"]}, None) == want


def test_it_depends_on_bytes_names_types_and_shapes_and_not_on_files(tmp_path, weights):
    whole = tensors_fingerprint({weights: ["a", "b"]}, None)
    save_file({"a": TENSORS["a"], "unused": np.ones(3)}, tmp_path / "one")
    save_file({"b": TENSORS["b"]}, tmp_path / "two")
    assert tensors_fingerprint({tmp_path / "two": ["b"], tmp_path / "one": ["a"]}, None) == whole
    for changed in (
        {"a": TENSORS["a"], "b": TENSORS["b"].reshape(3, 2)},
        {"a": TENSORS["a"], "b": TENSORS["b"].view(np.int32)},
        {"a": TENSORS["a"], "b": TENSORS["b"] + 1},
    ):
        save_file(changed, tmp_path / "x")
        assert tensors_fingerprint({tmp_path / "x": ["a", "b"]}, None) != whole
    save_file({"a2": TENSORS["a"], "b": TENSORS["b"]}, tmp_path / "x")
    assert tensors_fingerprint({tmp_path / "x": ["a2", "b"]}, None) != whole
    assert tensors_fingerprint({weights: ["a", "b", "c"]}, None) != whole


def test_a_second_call_reads_nothing_and_a_wider_one_only_what_is_new(tmp_path, weights, reads):
    memo = tmp_path / "cache" / "fingerprints"
    first = tensors_fingerprint({weights: ["a"]}, memo)
    assert len(reads) == 1
    assert tensors_fingerprint({weights: ["a"]}, memo) == first
    assert len(reads) == 1
    tensors_fingerprint({weights: ["a", "b"]}, memo)
    assert len(reads) == 2
    (kept,) = memo.iterdir()
    assert json.loads(kept.read_text())["path"] == str(weights)
    (tmp_path / "link").symlink_to(weights)  # as in the Hub's cache: the same file by another name
    assert tensors_fingerprint({tmp_path / "link": ["a"]}, memo) == first
    assert len(reads) == 2


@pytest.mark.parametrize("change", ["mtime", "size", "inode"])
def test_a_changed_file_is_read_again(tmp_path, weights, reads, change):
    memo = tmp_path / "fingerprints"
    first = tensors_fingerprint({weights: ["a"]}, memo)
    other = {**TENSORS, "a": TENSORS["a"] + 1}
    if change == "size":
        other["d"] = np.ones(2)
    if change == "inode":
        save_file(other, tmp_path / "new")
        os.replace(tmp_path / "new", weights)
    else:
        with open(weights, "r+b") as file:
            save_file(other, tmp_path / "new")
            file.write((tmp_path / "new").read_bytes())
    os.utime(weights, (2000, 2000) if change == "mtime" else (1000, 1000))
    assert tensors_fingerprint({weights: ["a"]}, memo) != first
    assert len(reads) == 2


def test_a_file_changed_just_now_is_not_remembered(tmp_path, weights, reads):
    os.utime(weights)
    for n in (1, 2):
        tensors_fingerprint({weights: ["a"]}, tmp_path / "fingerprints")
        assert len(reads) == n


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"path": 1}', b"\xff", b"[" * 9999, "other", "digest", "tensors"]
)
def test_a_damaged_memory_is_forgotten(tmp_path, weights, reads, content):
    memo = tmp_path / "fingerprints"
    first = tensors_fingerprint({weights: ["a"]}, memo)
    (kept,) = memo.iterdir()
    data = json.loads(kept.read_text())
    if content == "other":
        data["path"] = "/elsewhere"
    elif content == "digest":
        data["tensors"]["a"][2] = "0"
    elif content == "tensors":
        data["tensors"] = [1]
    kept.write_bytes(content if isinstance(content, bytes) else json.dumps(data).encode())
    assert tensors_fingerprint({weights: ["a"]}, memo) == first
    assert len(reads) == 2


def test_a_cache_that_cannot_be_written_or_read_is_no_error(tmp_path, weights, reads):
    memo = tmp_path / "fingerprints"
    with faults(read_only):
        first = tensors_fingerprint({weights: ["a"]}, memo)
    assert not memo.exists()
    tensors_fingerprint({weights: ["a"]}, memo)
    for code in (errno.ENOSPC, errno.EIO, errno.EACCES):
        for k in range(12):
            with faults(FailAt(code, k)):
                assert tensors_fingerprint({weights: ["a"]}, memo) == first
    memo_file = tmp_path / "file"
    memo_file.write_bytes(b"")
    assert tensors_fingerprint({weights: ["a"]}, memo_file) == first


def test_a_file_that_changes_under_the_reader_is_refused(tmp_path, weights, monkeypatch):
    count = iter(range(100))
    real = fingerprints.file_digest

    def restless(path, *args):
        os.utime(path, (next(count), 1000))
        return real(path, *args)

    monkeypatch.setattr(fingerprints, "file_digest", restless)
    monkeypatch.setattr(fingerprints, "_identity", lambda path: {"size": 1, "mtime_ns": next(count), "inode": 1})
    with pytest.raises(WeightsError, match="changes while it is read"):
        tensors_fingerprint({weights: ["a"]}, tmp_path / "fingerprints")
    assert not (tmp_path / "fingerprints").exists()


def test_missing_things_are_named(tmp_path, weights):
    with pytest.raises(WeightsError, match=r"w\.safetensors: no tensor x, y"):
        tensors_fingerprint({weights: ["a", "y", "x"]}, None)
    with pytest.raises(WeightsError, match="No such file"):
        tensors_fingerprint({tmp_path / "absent": ["a"]}, None)
    with pytest.raises(WeightsError, match="No such file"):
        bytes_fingerprint(tmp_path / "absent")
    with pytest.raises(WeightsError):
        bytes_fingerprint(tmp_path)
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="complete file"):
        tensors_fingerprint({weights: ["a"]}, None)


def test_ranges_and_whole_files(tmp_path):
    path = tmp_path / "x"
    data = os.urandom(1000)
    path.write_bytes(data)
    assert bytes_fingerprint(path) == hashlib.sha256(data).hexdigest()
    assert bytes_fingerprint(str(path)) == file_digest(path)
    assert file_digest(path, 10, 900) == hashlib.sha256(data[10:900]).hexdigest()
    assert file_digest(path, 5, 5) == hashlib.sha256(b"").hexdigest()
    with pytest.raises(WeightsError, match="ends 1 bytes too early"):
        file_digest(path, 10, 1001)


def test_the_memory_is_written_whole_or_not_at_all(tmp_path, weights):
    memo = tmp_path / "fingerprints"
    with faults(FailAt(errno.ENOSPC, 0, frozenset({"rename"}))):
        tensors_fingerprint({weights: ["a"]}, memo)
    assert io.names_in(memo) == []


def test_tensors_of_one_file_hashed_side_by_side_are_all_remembered(tmp_path, weights, reads, monkeypatch):
    """GIVEN b hashed by another thread WHILE a is THEN neither is forgotten."""
    real, memo = fingerprints._digests, tmp_path / "memo"

    def meanwhile(path, entries):
        monkeypatch.setattr(fingerprints, "_digests", real)
        tensors_fingerprint({weights: ["b"]}, memo)
        return real(path, entries)

    monkeypatch.setattr(fingerprints, "_digests", meanwhile)
    tensors_fingerprint({weights: ["a"]}, memo)
    reads.clear()
    tensors_fingerprint({weights: ["a", "b"]}, memo)
    assert reads == []
