"""Settings: which source wins, what is refused, and that the file's errors name the nearest key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wbtui import paths, settings
from wbtui.catalog.models import model_roots
from wbtui.cli import main
from wbtui.definitions import DEFINITIONS
from wbtui.errors import UsageError
from wbtui.service.config import ServiceConfig


@pytest.fixture(autouse=True)
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty environment, and where config.toml is looked for."""
    for setting in settings.SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setenv("WBTUI_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("WBTUI_LOG_DIR", str(tmp_path))
    settings.clear_flags()
    return tmp_path / "config.toml"


def test_the_usual_values_are_those_of_the_service_and_the_definitions() -> None:
    assert ServiceConfig.from_env() == ServiceConfig()
    assert tuple(DEFINITIONS) == settings.DEFINITION_NAMES


def test_file_then_variable_then_flag(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.found("theme") == settings.Found("theme", "auto", "default")
    file.write_text('theme = "light"\n')
    assert settings.found("theme") == settings.Found("theme", "light", "config.toml")
    monkeypatch.setenv("WBTUI_THEME", "ansi")
    assert settings.found("theme") == settings.Found("theme", "ansi", "WBTUI_THEME")
    settings.set_flag("theme", "mono", "--theme")
    assert settings.found("theme") == settings.Found("theme", "mono", "--theme")


def test_a_changed_file_is_read_again(file: Path) -> None:
    file.write_text("tile = 64\n")
    assert settings.get("tile") == 64
    file.write_text("tile = 1024\n")
    assert settings.get("tile") == 1024
    file.unlink()
    assert settings.get("tile") == 256


def test_everyone_asks_the_settings(file: Path, tmp_path: Path) -> None:
    file.write_text(
        f'cache_dir = "{tmp_path}/c"\ndata_dir = "beside"\nmodel_roots = ["{tmp_path}/m", "{tmp_path}/n"]\n'
        'device = "cpu,cuda:1"\ntile = 32\nidle_exit = 5\n'
    )
    assert paths.cache_dir() == tmp_path / "c"
    assert paths.data_dir() == tmp_path / "beside", "relative to the file: the service works in another folder"
    assert model_roots() == [tmp_path / "m", tmp_path / "n"]
    config = ServiceConfig.from_env()
    assert (config.devices, config.tile, config.idle_exit) == (("cpu", "cuda:1"), 32, 5.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('teme = "dark"', "unknown key 'teme'; expected 'theme'"),
        ('theme = "ligth"', "nearest: light"),
        ("theme = 3", "expected one of auto"),
        ("ascii = 1", "expected yes or no"),
        ('tile = "many"', "expected a whole number"),
        ("tile = true", "expected a whole number"),
        ("tile = -1", "1 or more"),
        ('config_dir = "/x"', "WBTUI_CONFIG_DIR"),
        ("theme = ", "expected a TOML file"),
        ("[keys]\nmark = 3", "a key or a list of keys"),
        ("keys = 3", "a table [keys]"),
        ("sae_roots = [1]", "folders"),
    ],
)
def test_what_means_nothing_is_one_line_that_names_the_file(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        settings.get("theme")
    assert words in caught.value.line()
    assert str(file) in caught.value.line()


@pytest.mark.parametrize("bad", [b"\xff\xfe", b'theme = "\x00"'])
def test_bytes_that_are_no_toml(file: Path, bad: bytes) -> None:
    file.write_bytes(bad)
    with pytest.raises(UsageError, match="TOML"):
        settings.get("theme")


def test_bad_variables_name_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WBTUI_MOUSE", "perhaps")
    with pytest.raises(UsageError, match="WBTUI_MOUSE='perhaps'"):
        settings.get("mouse")
    monkeypatch.setenv("WBTUI_TEME", "dark")
    assert settings.unknown_variables() == ["WBTUI_TEME is no setting; nearest: WBTUI_THEME"]


def test_config_show_names_each_source(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text('ascii = true\n[keys]\nmark = "z"\n')
    monkeypatch.setenv("WBTUI_TILE", "32")
    assert main(["--theme", "light", "config", "show", "--no-mouse", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    sources = {name: (s["value"], s["source"]) for name, s in data["settings"].items()}
    assert sources["ascii"] == (True, "config.toml")
    assert sources["tile"] == (32, "WBTUI_TILE")
    assert sources["theme"] == ("light", "--theme")
    assert sources["mouse"] == (False, "--no-mouse")
    assert sources["heartbeat"] == (900.0, "default")
    assert data["keys"] == {"mark": ["z"]}
    assert len(sources) == len(settings.SETTINGS)
    assert main(["config", "show"]) == 0
    assert settings.get("theme") == "auto", "flags go with their command"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [*sources, "keys.mark"]


def test_a_wrong_file_is_a_usage_error_of_every_command(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("cach_dir = 'x'")
    for words in (["config", "show"], ["cache", "path"], ["models"]):
        assert main(words) == 2
        assert "expected 'cache_dir'" in capsys.readouterr().err
