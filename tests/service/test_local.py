"""The same work without a service, in the life of the command itself."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.service import fake_work
from tests.service.conftest import DEADLINE, check_complete, processes, wait_until
from wbtui.errors import TimedOut
from wbtui.service import local, place, wishes
from wbtui.service.inprocess import InProcessWorker
from wbtui.service.start import with_package
from wbtui.store.products import Product


@pytest.mark.parametrize("in_process", [False, True])
def test_the_same_without_a_service(here, in_process):
    workers = {"0": InProcessWorker("cpu", "tests.service.fake_work")} if in_process else None
    request = here.request()
    events: list[dict] = []
    with local.LocalRunner(here.config(), workers) as runner:
        runner.compute(request, events.append, DEADLINE)
        again = runner.compute(request, events.append, DEADLINE)
        assert again["state"] == "done"
        assert runner.row(wishes.RowRequest(**request.plan_request(), feature=9), DEADLINE)["row"] == 9
    assert not place.socket_path().exists()
    assert sum(e["event"] == "shard" for e in events) == 10
    check_complete(here, request)
    assert not processes(here.runtime)


def test_without_a_service_a_killed_worker_is_replaced(here):
    request = here.request(products=[["tokens", 64, 32]], faults={"tokens:32": ["kill", 1]})
    events: list[dict] = []
    local.run_job(request, events.append, config=here.config(), timeout=DEADLINE)
    assert sum(e["event"] == "retry" for e in events) == 1
    check_complete(here, request)


LOCAL = """
import sys
from wbtui.service import local
from wbtui.service.config import ServiceConfig
from wbtui.service.wishes import ComputeRequest
import json
request = ComputeRequest(**json.loads(sys.argv[2]))
try:
    local.run_job(request, lambda event: print(event["event"], flush=True), config=ServiceConfig.from_text(sys.argv[1]))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_without_a_service_stops_at_once_and_keeps_what_is_done(here):
    gate = here.root / "gate"
    request = here.request(gate=str(gate), products=[["null", 32, 32], ["tokens", 64, 32]])
    command = [sys.executable, "-c", LOCAL, here.config().to_text(), json.dumps(dataclasses.asdict(request))]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=with_package(dict(os.environ)), start_new_session=True
    )
    wait_until(here.traced)
    os.killpg(child.pid, signal.SIGINT)
    child.communicate(timeout=DEADLINE)
    assert child.returncode == 130
    wait_until(lambda: not processes(here.runtime))
    assert "stopped null 0" in here.traced()
    gate.touch()
    local.run_job(request, lambda event: None, config=here.config(), timeout=DEADLINE)
    check_complete(here, request)


def test_a_timeout_without_a_service(here):
    with pytest.raises(TimedOut):
        local.run_job(here.request(gate=str(here.root / "gate")), lambda event: None, config=here.config(), timeout=0.3)
    assert not processes(here.runtime)


def test_shards_left_over_by_a_kill_after_the_last_step_but_one_go_with_the_next_run(here):
    request = here.request(products=[["tokens", 64, 32]])
    [spec] = fake_work.products(request.plan_request())
    product = Product(here.cache, spec)
    product.begin()
    paths = [product.write_shard(a, a + 32, fake_work.numbers(spec.key, a, a + 32)) for a in (0, 32)]
    kept = [path.read_bytes() for path in paths]
    product.assemble({})
    for path, data in zip(paths, kept, strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    assert product.state == "complete" and product.shards()
    with local.LocalRunner(here.config()) as runner:
        runner.compute(request, lambda event: None, DEADLINE)
    check_complete(here, request)
    assert here.traced() == ["assemble tokens 0 0 tile=64"]
