from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from litevlm_ros.model_directory import runtime_cache_directory
from litevlm_ros.runtime.tensorrt.program import RuntimeCache, cache_name


class Kernels:
    """TensorRT-RTX's cache: bytes that it refuses unless they start as its own do."""

    def __init__(self) -> None:
        self.contents = b""

    def serialize(self) -> bytes:
        return self.contents

    def deserialize(self, contents: bytes) -> bool:
        if contents.startswith(b"rtx"):
            self.contents = contents
        return contents.startswith(b"rtx")


def settings() -> Any:
    made = SimpleNamespace(attached=None, create_runtime_cache=Kernels)
    made.set_runtime_cache = lambda cache: setattr(made, "attached", cache)
    return made


def test_names_tell_profiles_and_sizes_apart() -> None:
    shapes = {"input_ids": (1,), "past_key.0": (512, 2, 64), "past_key.1": (512, 2, 64)}
    assert cache_name(1, shapes) == "1-1-512"
    assert cache_name(0, shapes) != cache_name(1, shapes) != cache_name(1, {**shapes, "input_ids": (2,)})
    assert runtime_cache_directory(Path("models/a_fp16.engine")) == Path("models/a_fp16.runtime_cache")


def test_what_was_compiled_is_there_at_the_next_start(tmp_path: Path) -> None:
    first = settings()
    cache = RuntimeCache(first, tmp_path / "made" / "1-1")
    first.attached.contents = b"rtx kernels"
    cache.save()
    second = settings()
    RuntimeCache(second, tmp_path / "made" / "1-1").save()
    assert second.attached.contents == b"rtx kernels"
    assert [file.name for file in (tmp_path / "made").iterdir()] == ["1-1"], "nothing half-written is left"


def test_a_damaged_file_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "1-1").write_bytes(b"damaged")
    used = settings()
    cache = RuntimeCache(used, tmp_path / "1-1")
    assert used.attached.contents == b""
    used.attached.contents = b"rtx kernels"
    cache.save()
    assert (tmp_path / "1-1").read_bytes() == b"rtx kernels"


def test_what_cannot_be_written_is_said_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("where a directory should be")
    used = settings()
    cache = RuntimeCache(used, tmp_path / "file" / "1-1")
    used.attached.contents = b"rtx kernels"
    with caplog.at_level(logging.INFO):
        cache.save()
    assert "kernels are compiled at each start" in caplog.text
