"""Every socket that the service and its workers make, as the interpreter itself reports it: none is of a network."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.conftest import DEADLINE, Place
from wbtui.errors import ServiceError
from wbtui.service.client import Client, stop
from wbtui.service.config import ServiceConfig
from wbtui.service.wishes import ComputeRequest, RowRequest

HOOK = """
import os, sys
def hook(event, args, place=os.environ["SOCKETS"]):
    if event in ("socket.__new__", "socket.bind", "socket.connect", "socket.getaddrinfo"):
        family = int(args[1]) if event == "socket.__new__" else int(getattr(args[0], "family", 0))
        fd = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, f"{os.getpid()} {event} {family}\\n".encode())
        os.close(fd)
sys.addaudithook(hook)
"""


@pytest.fixture
def sockets(here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each socket event of every Python process that is started from now on."""
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("SOCKETS", str(tmp_path / "sockets"))
    return tmp_path / "sockets"


def a_life(config: ServiceConfig, batch: ComputeRequest, row: RowRequest) -> set[int]:
    """Start, a batch, a row, an error, a hostile client, the end; the processes that took part."""
    with Client.connect(config=config, timeout=DEADLINE) as client:
        job = client.compute(batch)["job"]
        assert list(client.wait(job, 10 * DEADLINE))[-1]["state"] == "done"
        client.row(row)
        with pytest.raises(Exception, match="no-such"):
            client.call("no-such")
        status = client.status()
        with pytest.raises(ServiceError, match="without a number"):
            client.call("status", id=-1)
    assert stop()
    return {status["pid"], *(worker["pid"] for worker in status["workers"])}


def only_unix(sockets: Path, pids: set[int]) -> None:
    """Each of the processes was heard, and none of them made or used a socket of another family (-1: took over the one
    that its parent had made)."""
    lines = [line.split() for line in sockets.read_text().splitlines()]
    assert {int(pid) for pid, *_ in lines} >= pids
    assert [line for line in lines if line[2] not in (str(int(socket.AF_UNIX)), "-1")] == []


def test_no_process_of_the_service_ever_makes_a_socket_of_a_network(here: Place, sockets: Path) -> None:
    batch = here.request()
    pids = a_life(here.config(), batch, RowRequest(**batch.plan_request(), feature=3))
    only_unix(sockets, pids)


@pytest.mark.faults
def test_nor_does_the_real_work_on_the_demo(here: Place, sockets: Path) -> None:
    from wbtui.catalog.models import find_model
    from wbtui.catalog.saes import find_sae
    from wbtui.cli.fill import requests_of

    model = find_model("demo")
    [batch, *_] = requests_of(model, [find_sae(model, "L3")], "tokens", "folded", here.cache, checks=True)
    row = RowRequest(**batch.plan_request(), feature=3)
    only_unix(sockets, a_life(ServiceConfig(devices=("cpu",)), batch, row))


def test_the_hook_sees_a_socket_of_a_network(sockets: Path) -> None:
    """The proof that the proof can fail."""
    code = "import socket; socket.socket(socket.AF_INET).close()"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
    with pytest.raises(AssertionError):
        only_unix(sockets, set())
