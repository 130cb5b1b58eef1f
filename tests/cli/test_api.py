"""``wbtui.open``: the README's examples, what it imports, that columns are the file."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import wbtui as package
from tests.cli.conftest import Commands
from wbtui.errors import UsageError
from wbtui.features.query import QueryError

README = Path(__file__).parents[2] / "README.md"


def test_the_readmes_examples(wbtui: Commands) -> None:
    section = README.read_text(encoding="utf-8").partition("## From Python\n")[2].partition("\n## ")[0]
    code = "\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    examples = doctest.DocTestParser().get_doctest(code, {}, "README", str(README), 0)
    assert len(examples.examples) > 8
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    runner.run(examples, out=said.append)
    assert not runner.failures, "".join(said)


def test_opening_and_reading_import_numpy_only(demo_cache: Path) -> None:
    code = (
        "import sys, wbtui\n"
        "f = wbtui.open('demo@L3')\n"
        "f['writes.z_max'], f['writes.class'], f.where('semantic'), f.record(5), f.words(5), f.about, len(f)\n"
        "heavy = {'torch', 'textual', 'pandas', 'scipy', 'transformers', 'sae_lens', 'safetensors', 'click'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    environment = {**os.environ, "WBTUI_CACHE_DIR": str(demo_cache)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_stored_columns_are_the_mapped_file(wbtui: Commands) -> None:
    features = package.open("demo@L3")
    column = features["writes.z_max"]
    assert np.shares_memory(column, features._table._rows.column("writes.z_max"))
    assert column.base is not None
    assert not column.flags.owndata
    with pytest.raises(ValueError):
        column[0] = 1
    with pytest.raises(ValueError):
        features["writes.class"][0] = 1
    assert features["writes.class"].tolist() == package.open("demo@L3")["writes.class"].tolist()


def test_the_frame_is_the_export(wbtui: Commands, tmp_path: Path) -> None:
    import pandas

    features = package.open("demo@L3")
    frame = features.to_pandas(["writes.z_max", "writes.class", "same"], where="semantic")
    out = tmp_path / "f.csv"
    wbtui("export", "demo@L3", "--where", "semantic", "--columns", "id,writes.z_max,writes.class,same", "-o", str(out))
    table = pandas.read_csv(out).set_index("id")
    assert frame.index.tolist() == table.index.tolist()
    assert frame["writes.z_max"].to_numpy() == pytest.approx(table["writes.z_max"].to_numpy(), rel=1e-6)
    assert frame["writes.class"].tolist() == table["writes.class"].tolist()


def test_what_cannot_be_opened_is_said(wbtui: Commands) -> None:
    for address, words in (
        ("demo", "MODEL@SAE"),
        ("demo@L3#5", "record"),
        ("demo@L77", "layer 77"),
        ("none@L3", "none"),
    ):
        with pytest.raises(UsageError, match=words):
            package.open(address)
    with pytest.raises(UsageError, match="definition"):
        package.open("demo@L3", "mine")
    features = package.open("demo@L3")
    with pytest.raises(UsageError, match="z_max"):
        features["z_maxx"]
    with pytest.raises(QueryError, match="character"):
        features.where("z_max>")
    assert not package.open("demo@L0").complete
    assert np.isnan(package.open("demo@L0")["writes.z_max"]).all()


def test_compute_makes_it_complete(wbtui: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the service's client, which is faked: it is asked for exactly what the command line asks for."""
    from wbtui.service import running

    asked = []

    def run_job(request: object, on_event: object, timeout: float | None = None) -> dict[str, object]:
        asked.append(request)
        on_event({"event": "progress", "fraction": 0.5})  # type: ignore[operator]
        return {}

    monkeypatch.setattr(running, "run_job", run_job)
    shares: list[float] = []
    features = package.open("demo@L0").compute(timeout=3, progress=shares.append)
    assert not features.complete
    assert shares == [0.5]
    assert [(r.model, r.sae, r.analysis) for r in asked] == [("demo", "L0", "tokens")]
    package.open("demo@L3").compute()
    assert len(asked) == 1, "nothing is asked where nothing is missing"


def test_find_asks_what_the_command_line_asks(wbtui: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Through the service's client, which is faked; the answer is handed on as it is."""
    from wbtui.service import client

    asked = []

    class Service:
        def __enter__(self) -> Service:
            return self

        def __exit__(self, *exc: object) -> None:
            return None

        def ask(self, request: object, on_part: object, timeout: float | None) -> dict[str, object]:
            asked.append(request)
            return {"hits": [1]}

    monkeypatch.setattr(client.Client, "connect", classmethod(lambda cls, autostart: Service()))
    monkeypatch.chdir(tmp_path)
    features = package.open("demo@L3")
    assert features.find("w:London", top=3) == {"hits": [1]}
    features.find("r:dir:probe.npy@L3.resid_post", all_layers=True)
    assert [(r.model, r.sae, r.what) for r in asked] == [("demo", "L3", "find")] * 2
    assert asked[0].args == {"query": "w:London", "all_layers": False, "top": 3, "at": None}
    assert asked[1].args["query"] == f"r:dir:{tmp_path / 'probe.npy'}@L3.resid_post"
    with pytest.raises(UsageError, match="query"):
        features.find("London")
