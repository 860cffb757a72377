from __future__ import annotations

from pathlib import Path

import pytest

from litevlm_ros.engines.memory import build_memory, check_memory
from litevlm_ros.engines.sidecar import TEXT
from litevlm_ros.errors import EngineError


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    """6 GiB available and 1 GiB of swap."""
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:  7800000 kB\nMemAvailable: 6291456 kB\nSwapFree: 1048576 kB\nHugePages_Total: 0\n")
    return file


def test_a_build_that_fits_is_let_through(meminfo: Path) -> None:
    check_memory(TEXT, 7 << 30, meminfo=meminfo)


def test_a_build_that_does_not_fit_is_refused_with_the_swap_that_is_missing(meminfo: Path) -> None:
    with pytest.raises(EngineError) as raised:
        check_memory(TEXT, 10 << 30, meminfo=meminfo)
    message = str(raised.value)
    assert "text decoder takes up to 10.7 GB of memory and 7.5 GB are free" in message
    assert "fallocate -l 4G" in message, "3 GiB and one to spare"
    assert "smaller model" in message
    assert "--skip-memory-check" in message


def test_where_memory_is_not_told_nothing_is_refused(tmp_path: Path) -> None:
    check_memory(TEXT, 1 << 50, meminfo=tmp_path / "missing")


def test_memory_grows_with_the_weights() -> None:
    assert 5e9 < build_memory(988_000_000) < 6e9, "5.5 GB were measured for InternVL2-1B's text decoder"
    assert build_memory(0) == 1 << 30
