"""The line drops: an SSH session ends in the midst of work, and later another one begins."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pty
import signal
import sys

from tests.service.campaign import CLIENT
from tests.service.conftest import DEADLINE, alive, check_complete, wait_until
from wbtui.service.client import Client
from wbtui.service.start import with_package


def test_work_outlives_the_terminal_it_was_asked_from_and_the_next_session_finds_it(here):
    """GIVEN a client in a terminal of its own that has started the service and a batch WHEN the terminal goes (the
    kernel then hangs up on all that belong to it) THEN the client dies of it, service and worker go on, and a client
    of a new session sees the job, follows it to its end, and no shard was done twice."""
    gate = here.root / "gate"
    request = here.request(gate=str(gate), products=[["tokens", 192, 32]])
    client, terminal = pty.fork()
    if client == 0:
        with contextlib.suppress(BaseException):
            words = [here.config().to_text(), json.dumps([dataclasses.asdict(request)])]
            os.execve(sys.executable, [sys.executable, "-c", CLIENT, *words], with_package(dict(os.environ)))
        os._exit(1)
    try:
        wait_until(here.traced, what="the first shard is begun")
        with Client.connect(False) as watcher:
            service, worker = watcher.status()["pid"], watcher.status()["workers"][0]["pid"]
    finally:
        os.close(terminal)
    _, status = os.waitpid(client, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGHUP
    assert alive(service) and alive(worker)
    with Client.connect(False) as again:
        assert again.status()["pid"] == service
        [job] = again.jobs()
        assert job["state"] == "running" and job["priority"] == "batch"
        following = again.wait(job["job"], DEADLINE)
        next(following)
        gate.touch()
        assert list(following)[-1]["state"] == "done"
    check_complete(here, request)
    begun = [line for line in here.traced() if line.startswith("shard")]
    assert len(begun) == len(set(begun)) == 6
