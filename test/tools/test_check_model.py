from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from package_files import DEMO_MODEL

from litevlm_ros.model_directory import CHECKSUMS
from litevlm_ros.tools.check_model import main


def test_what_has_changed_is_named_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))
    assert main(["--model", str(model)]) == 0
    assert "files are as they were made" in capsys.readouterr().out
    (model / "view_selector.onnx").write_bytes(b"no graph")
    (model / "token_scorer.onnx").unlink()
    assert main(["--model", str(model)]) == 1
    told = capsys.readouterr().err
    assert f"{model}/view_selector.onnx has changed: it has 8 bytes instead of" in told
    assert (
        f"{model}/token_scorer.onnx has changed: it is missing. Make it again with `ros2 run litevlm_ros train_t"
        in told
    )
    assert f"`ros2 run litevlm_ros check_model --model {model} --accept`" in told
    assert main(["--model", str(model), "--accept"]) == 0
    assert main(["--model", str(model)]) == 0


def test_the_demo_model_is_the_default() -> None:
    assert main([]) == 0


def test_what_cannot_be_checked_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(tmp_path / "none")]) == 1
    assert "is not a directory" in capsys.readouterr().err
    assert main(["--model", str(tmp_path)]) == 1
    assert f"{tmp_path} has no {CHECKSUMS}" in capsys.readouterr().err
