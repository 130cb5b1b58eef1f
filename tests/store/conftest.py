"""Tests of the store see every order of operations, but no power cut: syncing for real would only make them slow."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="package", autouse=True)
def _no_disk_sync():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield
