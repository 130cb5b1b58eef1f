"""The fault layer's own steps: atomic replacement, exclusive creation, removal of what is bad, refusals in words."""

from __future__ import annotations

import errno
import os

import pytest

from tests.store.helpers import FailAt, MeanwhileAt, faults, make_spec, rows_of, run_all
from wbtui.errors import StoreError
from wbtui.store import io, manifest
from wbtui.store.products import Product
from wbtui.store.refusals import Damaged, reading, refused, reported
from wbtui.store.shards import Shards


def recorded(work):
    """The operations of some work, in order."""
    seen: list[tuple[str, str]] = []
    with faults(
        lambda op, path: seen.append((op, path.name.rpartition("-")[2] if io.is_temporary(path.name) else path.name))
    ):
        work()
    return seen


def test_bytes_are_synced_before_they_get_their_name_and_the_name_after(tmp_path):
    seen = recorded(lambda: io.write_bytes(tmp_path / "x", b"abc"))
    assert seen == [("create", "x"), ("write", "x"), ("fsync", "x"), ("rename", "x"), ("fsync_dir", tmp_path.name)]


def test_each_stage_is_on_the_disk_before_the_next_takes_its_ground_away(tmp_path):
    """Columns named and synced, then the manifest named and synced, and only then do shards go."""
    spec = make_spec()
    product = Product(tmp_path, spec)
    for start, stop in product.ranges():
        product.write_shard(start, stop, rows_of(start, stop))
    seen = [step for step in recorded(product.assemble) if step[0] in io.WRITING]
    columns = seen.index(("rename", "columns.safetensors"))
    last = max(n for n, step in enumerate(seen) if step == ("rename", "manifest.json"))
    shards = seen.index(("rename", "shards"))
    assert seen.index(("fsync", "columns.safetensors")) < columns < last < shards
    folder = product.path.name
    assert ("fsync_dir", folder) in seen[columns:last]
    assert ("fsync", "manifest.json") in seen[columns:last]
    assert ("fsync_dir", folder) in seen[last:shards]
    assert all(n > shards for n, (op, name) in enumerate(seen) if op == "unlink" and name[0].isdigit())


def test_a_new_folder_is_synced_into_its_parent_before_its_child_is_made(tmp_path):
    seen = recorded(lambda: io.make_folders(tmp_path / "a" / "b"))
    assert seen == [("mkdir", "a"), ("fsync_dir", tmp_path.name), ("mkdir", "b"), ("fsync_dir", "a")]


def test_exclusive_creation_leaves_what_is_there(tmp_path):
    io.write_bytes(tmp_path / "x", b"first", exclusive=True)
    io.write_bytes(tmp_path / "x", b"second", exclusive=True)
    assert (tmp_path / "x").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["x"]
    io.write_bytes(tmp_path / "x", b"third")
    assert (tmp_path / "x").read_bytes() == b"third"


def test_beginning_never_takes_completion_back(tmp_path):
    """Another process finishes the product at any instant of ``begin``: it stays finished."""
    k = 0
    while True:
        spec = make_spec(k=k)
        fault = MeanwhileAt(k, lambda spec=spec: run_all(tmp_path, spec))
        with faults(fault):
            Product(tmp_path, spec).begin()
        if fault.count <= k:
            break
        assert Product(tmp_path, spec).state == "complete"
        k += 1
    assert k > 10


def test_a_good_file_that_takes_a_bad_ones_place_is_not_removed(tmp_path):
    path = tmp_path / "x"
    for k in range(2):  # just before it is renamed away, and just before it is removed
        path.write_bytes(b"bad")
        with faults(MeanwhileAt(k, lambda: io.write_bytes(path, b"good"))):
            gone = io.discard(path, lambda p: p.read_bytes() == b"bad")
        assert gone == (k > 0)
        assert path.read_bytes() == b"good"
        assert os.listdir(tmp_path) == ["x"]
    path.write_bytes(b"bad")
    assert io.discard(path, lambda p: p.read_bytes() == b"bad")
    assert os.listdir(tmp_path) == []
    assert not io.discard(path, lambda p: True)


@pytest.mark.parametrize("harm", ["gone", "short"])
def test_shards_stay_when_the_columns_made_of_them_vanish(tmp_path, monkeypatch, harm):
    spec = make_spec()
    product = Product(tmp_path, spec)
    for start, stop in product.ranges():
        product.write_shard(start, stop, rows_of(start, stop))
    real = Shards.join

    def join_and_lose(self, *args):
        out = real(self, *args)
        path = product.path / "columns.safetensors"
        path.unlink() if harm == "gone" else path.write_bytes(b"short")
        return out

    monkeypatch.setattr(Shards, "join", join_and_lose)
    with pytest.raises(StoreError, match="is not there" if harm == "gone" else "removed or changed"):
        product.assemble()
    monkeypatch.setattr(Shards, "join", real)
    assert run_all(tmp_path, spec) == []
    assert product.state == "complete"


def test_removing_a_tree_meets_a_late_writer(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "a").write_bytes(b"")
    inside = os.open(folder, os.O_RDONLY)

    class Late:
        left = 1

        def __call__(self, op, path):
            if op == "rmdir" and self.left:
                self.left -= 1
                os.close(os.open("late", os.O_CREAT | os.O_WRONLY, dir_fd=inside))

    with faults(Late()):
        io.remove_tree(folder)
    os.close(inside)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "words", "do"),
    [
        (errno.ENOSPC, "the disk is full", "wbtui cache gc"),
        (errno.EDQUOT, "the quota is used up", "WBTUI_CACHE_DIR"),
        (errno.EROFS, "read-only", "WBTUI_CACHE_DIR"),
        (errno.EACCES, "permission denied", "permissions"),
        (errno.EIO, "input/output error", "check the disk"),
        (errno.ENOENT, "is not there", "compute"),
        (errno.ESTALE, "handle", "WBTUI_CACHE_DIR"),
    ],
)
def test_each_refusal_names_the_place_the_expected_and_the_remedy(tmp_path, code, words, do):
    error = refused(tmp_path / "none" / "x", "write it", OSError(code, os.strerror(code)))
    assert str(tmp_path / "none" / "x") in error.found
    assert words in error.found
    assert error.expected
    assert do in error.do
    assert "\n" not in error.line()


def test_only_unreadable_bytes_are_damage(tmp_path):
    for code, kind in ((errno.EIO, True), (errno.EACCES, False), (errno.EMFILE, False), (errno.ENOENT, False)):
        with pytest.raises(StoreError) as raised, reading(tmp_path):
            raise OSError(code, "x")
        assert isinstance(raised.value, Damaged) == kind
    with pytest.raises(StoreError) as raised, reported(tmp_path, "write it"):
        raise OSError(errno.EIO, "x")
    assert not isinstance(raised.value, Damaged)


def test_a_manifest_that_cannot_be_opened_is_not_taken_for_an_absent_one(tmp_path):
    spec = make_spec()
    run_all(tmp_path, spec)
    path = tmp_path / spec.relative
    before = (path / "manifest.json").read_bytes()
    for code in (errno.EACCES, errno.EMFILE, errno.ESTALE):
        with faults(FailAt(code, 0, frozenset({"open"}), forever=True)), pytest.raises(StoreError):
            manifest.load(path)
        with faults(FailAt(code, 0, frozenset({"open"}), forever=True)), pytest.raises(StoreError):
            Product(tmp_path, spec).begin()
    assert (path / "manifest.json").read_bytes() == before
