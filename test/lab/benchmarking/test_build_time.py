"""A build that is timed: a fake command in place of the real one, whose memory and failure are noticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from litevlm_ros.errors import EngineError
from litevlm_ros.lab.benchmarking import build_time
from litevlm_ros.lab.benchmarking.build_time import Build, time_build


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> tuple[Build, list[str]]:
    """Times `code` instead of build_engines, and returns the command that would have been run, too."""
    commands: list[list[str]] = []
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return real([sys.executable, "-c", code], **options)

    monkeypatch.setattr(build_time.subprocess, "Popen", popen)
    return time_build(tmp_path / "model", tmp_path, "fp16", "bf16", 6, 2048), commands[0]


def test_time_memory_and_files_are_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "vision_encoder_fp16.engine").write_bytes(b"x" * 1000)
    (tmp_path / "other").write_bytes(b"x")
    built, command = run(monkeypatch, tmp_path, "import time; held = bytearray(b'x') * 200_000_000; time.sleep(0.5)")
    assert 0.5 <= built.seconds < 60
    assert 200e6 < built.peak_bytes < 1e9
    assert built.file_bytes == 1000
    assert command[1:3] == ["-m", "litevlm_ros.tools.build_engines"]
    assert command[-9:] == ["--vision-precision", "fp16", "--text-precision", "bf16", "--max-tiles", "6",
                            "--max-context", "2048", "--force"]  # fmt: skip


def test_a_failure_is_told_with_what_the_command_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"build_engines .* failed: no GPU is here"):
        run(monkeypatch, tmp_path, "import sys; sys.exit('no GPU is here')")
