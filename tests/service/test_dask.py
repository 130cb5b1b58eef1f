"""The same shards on a real distributed engine: bytes equal the local run's, also when a machine dies in the midst."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import DEADLINE, FAKE, Place, check_complete
from tests.service.test_worker import tasks
from wbtui.errors import Cancelled, ServiceError, UsageError, WeightsError
from wbtui.service import local, remote
from wbtui.service.config import ServiceConfig
from wbtui.service.executor import Broken
from wbtui.service.wishes import ComputeRequest

pytestmark = pytest.mark.skipif(find_spec("distributed") is None, reason="distributed is not installed")


def sums(cache: Path) -> dict[str, str]:
    """SHA-256 of every product's columns."""
    return {
        str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(cache.glob("products/*/*/*/columns.safetensors"))
    }


def run_remote(url: str, config: ServiceConfig, requests: list[ComputeRequest], on_event: Any) -> None:
    with remote.DaskWorkers(url, config.work, "cpu") as machines, local.LocalRunner(config, machines.workers) as runner:
        results = runner.compute_many(requests, on_event, 20 * DEADLINE)
    assert all(isinstance(result, dict) for result in results), results


def test_three_workers_one_killed_midway_give_the_bytes_of_a_local_run(here: Place, tmp_path: Path) -> None:
    from tests.service.dask_cluster import Cluster

    here_local = dataclasses.replace(here.request("a"), cache=str(here.root / "local"))
    config = here.config()
    wishes = [here.request(name, heavy=2) for name in ("a", "b")]
    with local.LocalRunner(config) as runner:
        runner.compute_many([dataclasses.replace(w, cache=here_local.cache) for w in wishes], lambda e: None, DEADLINE)
    here.trace.unlink()
    landed: list[tuple[str, int]] = []

    with Cluster(tmp_path, 3) as cluster:

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "shard":
                landed.append((event["relative"], event["start"]))
                if len(landed) == 6:
                    cluster.kill(0)

        run_remote(cluster.url, config, wishes, on_event)
    assert sums(here.cache) == sums(Path(here_local.cache)) and len(sums(here.cache)) == 8
    assert len(landed) == len(set(landed)) == 20
    for wish in wishes:
        check_complete(here, wish)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_every_product_of_the_demo_on_three_workers_one_killed_midway(here: Place, tmp_path: Path) -> None:
    from tests.service.dask_cluster import Cluster
    from wbtui.catalog.models import find_model
    from wbtui.catalog.saes import list_saes
    from wbtui.cli.fill import requests_of

    model = find_model("demo")
    caches = {name: here.root / name for name in ("local", "shared")}
    wishes = {
        name: requests_of(model, list_saes(model), "all", "folded", cache, checks=True)
        for name, cache in caches.items()
    }
    config = ServiceConfig(devices=("cpu",))
    with local.LocalRunner(config) as runner:
        results = runner.compute_many(wishes["local"], lambda event: None, 60 * DEADLINE)
    assert all(isinstance(result, dict) for result in results), results
    shards = 0
    with Cluster(tmp_path, 3) as cluster:

        def on_event(event: dict[str, Any]) -> None:
            nonlocal shards
            if event["event"] == "shard":
                shards += 1
                if shards == 40:
                    cluster.kill(1)

        run_remote(cluster.url, config, wishes["shared"], on_event)
    assert shards > 40
    assert sums(caches["shared"]) == sums(caches["local"])


def test_any_executor_carries_a_task_and_its_errors(here: Place) -> None:
    with ThreadPoolExecutor(1) as executor:
        worker = remote.RemoteWorker(executor, FAKE, "cpu")
        for task in tasks(here):
            assert worker.submit(task).result(DEADLINE)
        with pytest.raises(Broken) as caught:
            worker.submit(tasks(here, name="u", faults={"tokens:0": ["user", 1]})[0]).result(DEADLINE)
        assert caught.value.reason == "user" and isinstance(caught.value.error, WeightsError)
        with pytest.raises(Broken) as caught:
            worker.submit(tasks(here, name="m", faults={"tokens:32": ["memory", 1]})[1]).result(DEADLINE)
        assert caught.value.reason == "memory"


def test_another_version_on_a_machine_is_told(here: Place) -> None:
    answer = remote.work(FAKE, "cpu", "9.9.9", tasks(here)[0])
    assert os.uname().nodename in answer["error"]["found"] and answer["reason"] == "user"


def test_what_has_not_begun_is_taken_back_and_what_dies_is_an_error(here: Place) -> None:
    gate = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(gate.wait, DEADLINE)
        worker = remote.RemoteWorker(executor, FAKE, "cpu")
        future = worker.submit(tasks(here)[0])
        worker.stop()
        with pytest.raises(Cancelled):
            future.result(DEADLINE)
        gate.set()

    class Dies(ThreadPoolExecutor):
        def submit(self, *args: Any, **more: Any) -> Future[Any]:  # type: ignore[override]
            future: Future[Any] = Future()
            future.set_exception(RuntimeError("KilledWorker"))
            return future

    with Dies(1) as executor, pytest.raises(Broken) as caught:
        remote.RemoteWorker(executor, FAKE, "cpu").submit(tasks(here)[0]).result(DEADLINE)
    assert caught.value.reason == "killed" and "KilledWorker" in caught.value.found


def test_a_machine_waits_for_what_another_has_finished(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system may show a finished product late."""
    monkeypatch.setattr(remote, "VISIBLE_WITHIN", DEADLINE)
    relative = "products/m/_model/vocab-0123456789abcdef"
    task = tasks(here)[0]
    task["spec"]["model"]["vocab"] = relative
    began = threading.Event()
    folder = Path(task["cache"], relative)

    def late() -> None:
        began.wait(DEADLINE)
        folder.mkdir(parents=True)
        (folder / "columns.safetensors").touch()

    thread = threading.Thread(target=late)
    thread.start()
    real = os.listdir
    monkeypatch.setattr(remote.os, "listdir", lambda path: began.set() or real(path))
    assert "done" in remote.work(FAKE, "cpu", remote.wbtui.__version__, task)
    thread.join()
    assert folder.exists()


def test_addresses_and_absent_schedulers(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("", "tcp://a:1", "dask://"):
        with pytest.raises(UsageError, match="dask://HOST:PORT"):
            remote.DaskWorkers(url, FAKE)
    monkeypatch.setattr(remote, "CONNECT_WITHIN", 0.3)
    with pytest.raises(ServiceError, match="no dask scheduler answers"):
        remote.DaskWorkers("dask://127.0.0.1:1", FAKE)
