from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from package_files import ROOT

from litevlm_ros import model_directory
from litevlm_ros.convert.model_description import copy_description
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_directory import demo_model_directory


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A workspace's prefix; the code is not in a checkout."""
    monkeypatch.setattr(model_directory, "__file__", str(tmp_path / "lib" / "litevlm_ros" / "model_directory.py"))
    monkeypatch.setattr("sys.prefix", str(tmp_path / "venv"))
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    return tmp_path / "install"


def model_in(prefix: Path) -> Path:
    model = prefix / "share" / "litevlm_ros" / "models" / "demo"
    model.mkdir(parents=True)
    return model


def test_the_checkout_has_it() -> None:
    assert demo_model_directory() == Path(__file__).parents[1] / "models" / "demo"


def test_the_workspace_sourced_last_comes_first(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay, underlay = model_in(installed / "overlay"), model_in(installed / "underlay")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{installed / 'overlay'}:{installed / 'other'}:{installed / 'underlay'}")
    assert demo_model_directory() == overlay
    overlay.rmdir()
    assert demo_model_directory() == underlay


def test_pip_installs_it_under_its_prefix(installed: Path) -> None:
    model = model_in(installed.parent / "venv")
    assert demo_model_directory() == model


def test_nowhere_is_explained(installed: Path) -> None:
    with pytest.raises(ConfigError, match=r"not installed \(looked in .*venv.*Give a model directory"):
        demo_model_directory()


def test_a_copied_description_has_no_weights(tmp_path: Path) -> None:
    copy_description(demo_model_directory(), tmp_path / "copy")
    names = {file.relative_to(tmp_path / "copy").as_posix() for file in (tmp_path / "copy").rglob("*.*")}
    assert {"vision_encoder/config.json", "text_decoder/config.json", "text_decoder/tokenizer.json"} <= names
    assert not any("safetensors" in name for name in names)
    copy_description(demo_model_directory(), demo_model_directory())


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("benchmark", "--runs", "1", "--tokens", "1"),
        ("evaluate", "--scenes", "1"),
        ("check_model",),
    ],
    ids=lambda command: command[0],
)
def test_tools_find_the_demo_model_from_any_directory(tmp_path: Path, command: tuple[str, ...]) -> None:
    tool = subprocess.run(
        [sys.executable, "-m", f"litevlm_ros.tools.{command[0]}", *command[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))},
        capture_output=True,
        text=True,
    )
    assert tool.returncode == 0, tool.stderr
