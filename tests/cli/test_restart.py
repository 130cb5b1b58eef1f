"""A service of another version: said in one line, and on a terminal offered to be replaced."""

from __future__ import annotations

import click
import pytest

from wbtui.cli import common
from wbtui.errors import ServiceError
from wbtui.service import protocol


def work_that_meets(versions: list[str]) -> str:
    if versions:
        raise protocol.version_error(versions.pop(), "0.1.0")
    return "done"


@pytest.mark.parametrize(("terminal", "answer"), [(True, True), (True, False), (False, True)])
def test_the_offer(monkeypatch: pytest.MonkeyPatch, terminal: bool, answer: bool) -> None:
    restarted, asked = [], []
    monkeypatch.setattr("sys.stdin.isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("wbtui.service.client.restart", lambda: restarted.append(True))
    monkeypatch.setattr(click, "confirm", lambda text, **more: asked.append(text) or answer)
    versions = ["9.9.9"]
    if terminal and answer:
        assert common.offering_restart(lambda: work_that_meets(versions)) == "done"
        assert restarted and asked
    else:
        with pytest.raises(ServiceError, match=r"9\.9\.9.*wbtui daemon restart"):
            common.offering_restart(lambda: work_that_meets(versions))
        assert not restarted and bool(asked) == terminal
