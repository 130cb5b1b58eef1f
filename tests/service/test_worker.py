"""The worker process: it works, stops, dies and comes back, and never outlives whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import fake_work
from tests.service.conftest import DEADLINE, FAKE, Place, alive, wait_until
from wbtui.errors import Cancelled, UsageError, WeightsError
from wbtui.service import planning
from wbtui.service.executor import Broken, WorkerProcess, death
from wbtui.service.inprocess import InProcessWorker
from wbtui.service.start import with_package
from wbtui.store.keys import ProductSpec
from wbtui.store.products import Product


@pytest.fixture
def worker(here: Place) -> Iterator[WorkerProcess]:
    made = WorkerProcess("cpu", FAKE)
    yield made
    made.close()
    assert not made.alive


def tasks(here: Place, **steering) -> list[dict]:
    """Every shard of a fake tokens product, then its assembly."""
    steering.setdefault("products", [["tokens", 96, 32]])
    request = here.request(**steering).plan_request()
    out = []
    for planned in planning.plan(fake_work.products, request):
        base = {"cache": planned.cache, "spec": planned.spec, "tile": 64}
        out += [{**base, "kind": "shard", "start": a, "stop": b} for a, b in planned.missing]
        out.append({**base, "kind": "assemble", "start": 0, "stop": 0})
    return out


def test_shards_then_assembly_in_one_resident_process(here, worker):
    shares: list[float] = []
    todo = tasks(here)
    for task in todo:
        worker.submit(task, shares.append).result(DEADLINE)
    assert worker.starts == 1 and worker.info["device"] == "cpu" and worker.info["threads"] == 1
    assert shares and shares[-1] == 1.0
    product = Product(here.cache, ProductSpec.from_json(todo[0]["spec"]))
    assert product.state == "complete"
    assert list(product.columns()["row"]) == list(range(96))


def test_a_process_is_named_before_it_has_said_a_word(here, worker):
    """A task may run, and a status be asked for, before what the child says first has been read."""
    worker.start()
    assert worker.info == {"pid": worker.pid}
    worker.submit(tasks(here)[0]).result(DEADLINE)
    assert worker.info["pid"] == worker.pid and worker.info["device"] == "cpu"
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not worker.alive)
    worker.start()
    assert worker.info == {"pid": worker.pid}, "nothing of the one that died"


def test_a_running_shard_stops_between_two_slices_and_the_next_task_is_not_touched(here, worker):
    gate = here.root / "gate"
    task = tasks(here, gate=str(gate))[0]
    reached = threading.Event()
    future = worker.submit(task, lambda share: reached.set())
    assert reached.wait(DEADLINE)
    worker.stop()
    with pytest.raises(Cancelled):
        future.result(DEADLINE)
    assert any(line.startswith("stopped tokens") for line in here.traced())
    worker.stop()  # nothing runs: must not hit what comes next
    gate.touch()
    assert worker.submit(task).result(DEADLINE).endswith("safetensors")
    assert worker.starts == 1


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        ("kill", "killed", "SIGKILL"),
        ("segv", "killed", "SIGSEGV"),
        ("exit", "killed", "status 7"),
        ("memory", "memory", "out of memory"),
        ("bug", "bug", "ZeroDivisionError"),
    ],
)
def test_a_failure_has_its_reason_and_the_worker_works_on(here, worker, fault, reason, words):
    task = tasks(here, faults={"tokens:0": [fault, 1]})[0]
    with pytest.raises(Broken) as caught:
        worker.submit(task).result(DEADLINE)
    assert caught.value.reason == reason and words in caught.value.found
    assert worker.submit(task).result(DEADLINE)
    assert worker.starts == (1 if reason == "bug" else 2)


def test_an_error_of_the_users_keeps_its_class(here, worker):
    with pytest.raises(Broken) as caught:
        worker.submit(tasks(here, faults={"tokens:0": ["user", 1]})[0]).result(DEADLINE)
    assert caught.value.reason == "user" and isinstance(caught.value.error, WeightsError)
    assert caught.value.error.do == "download it again"


def test_a_stuck_worker_is_killed_with_that_reason(here, worker):
    future = worker.submit(tasks(here, faults={"tokens:0": ["hang", 1]})[0])
    wait_until(here.traced)
    worker.kill("stuck", "gave no sign of progress")
    with pytest.raises(Broken) as caught:
        future.result(DEADLINE)
    assert caught.value.reason == "stuck" and "no sign of progress" in caught.value.found


def test_a_lone_row_has_no_nan_on_the_wire(here, worker):
    spec = tasks(here)[0]["spec"]
    task = {"kind": "row", "request": {"cache": str(here.cache), "spec": spec}, "feature": 5}
    columns = worker.submit(task).result(DEADLINE)
    assert columns["row"] == 5 and len(columns["values"]) == 8 and columns["bad"] is None


def test_a_broken_installation_is_reported_and_not_tried_for_ever(here):
    worker = WorkerProcess("cpu", "tests.service.broken_work", log=os.open(os.devnull, os.O_WRONLY))
    for _ in range(2):
        with pytest.raises(Broken) as caught:
            worker.submit(tasks(here)[0]).result(DEADLINE)
        assert caught.value.reason == "start" and "libtorch_cpu" in caught.value.found
    worker.close()


def test_a_device_that_is_not_there_is_an_error_of_the_users(here):
    worker = WorkerProcess("cuda:63", FAKE, log=os.open(os.devnull, os.O_WRONLY))
    with pytest.raises(Broken) as caught:
        worker.submit(tasks(here)[0]).result(DEADLINE)
    assert isinstance(caught.value.error, UsageError) and "cuda:63" in caught.value.found
    worker.close()


def test_a_worker_killed_while_idle_is_replaced(here, worker):
    worker.start()
    assert worker.ready.wait(DEADLINE)
    first = worker.pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not worker.alive)
    assert worker.submit(tasks(here)[0]).result(DEADLINE)
    assert worker.pid != first


PARENT = """
import sys, time
from wbtui.service.executor import WorkerProcess
worker = WorkerProcess("cpu", "tests.service.fake_work")
worker.start()
worker.ready.wait(60)
print(worker.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("halted", [False, True])
def test_a_worker_dies_with_its_parent(here, halted):
    """Also a halted one, which can notice nothing itself."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=with_package(dict(os.environ)),
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    if halted:
        if not sys.platform.startswith("linux"):
            pytest.skip("only Linux ends a halted child with its parent")
        os.kill(pid, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert parent.stdin is not None
    parent.stdin.close()
    wait_until(lambda: not alive(pid), what="the worker has gone")


def test_the_keyboard_does_not_reach_a_worker(here, worker):
    gate = here.root / "gate"
    future = worker.submit(tasks(here, gate=str(gate))[0])
    wait_until(here.traced)
    os.kill(worker.pid, signal.SIGINT)
    os.kill(worker.pid, signal.SIGHUP)
    gate.touch()
    assert future.result(DEADLINE)


def test_the_services_side_never_loads_torch_or_numpy():
    code = (
        "import sys, wbtui.service.client, wbtui.service.daemon, wbtui.service.local\n"
        "bad = {'torch', 'numpy', 'transformers', 'sae_lens', 'scipy', 'textual'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=with_package(dict(os.environ)))


def test_the_worker_itself_starts_without_torch_for_work_that_needs_none(here, worker):
    worker.start()
    assert worker.ready.wait(DEADLINE)
    assert "torch" not in Path(f"/proc/{worker.pid}/maps").read_text()


def test_in_process_does_the_same(here):
    worker = InProcessWorker("cpu", FAKE)
    for task in tasks(here):
        worker.submit(task).result(DEADLINE)
    gate = here.root / "gate"
    task = tasks(here, name="b", gate=str(gate))[0]
    future = worker.submit(task)
    worker.stop()
    with pytest.raises(Cancelled):
        future.result(DEADLINE)
    with pytest.raises(Broken) as caught:
        worker.submit(tasks(here, name="c", faults={"tokens:0": ["user", 1]})[0]).result(DEADLINE)
    assert caught.value.reason == "user"
    worker.close()


def test_deaths_have_words():
    assert "SIGKILL" in death(-9) and "memory" in death(-9)
    assert "status 3" in death(3) and "signal 250" in death(-250)
