from __future__ import annotations

import os

import pytest

from litevlm_ros.engines import build_memory as memory
from litevlm_ros.engines.build_memory import build_memory, check_memory, worker_count
from litevlm_ros.engines.kernel_compiler import MOST_WORKERS
from litevlm_ros.errors import EngineError


@pytest.fixture(autouse=True)
def _seven_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 7 << 30)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))


def test_a_build_that_fits_is_let_through() -> None:
    check_memory(7 << 30)


def test_a_build_that_does_not_fit_is_refused_with_the_swap_that_is_missing() -> None:
    with pytest.raises(EngineError) as raised:
        check_memory(10 << 30)
    message = str(raised.value)
    assert "takes up to 10.7 GB of memory and 7.5 GB are free" in message
    assert "fallocate -l 4G" in message, "3 GiB and one to spare"
    assert "smaller model" in message
    assert "--skip-memory-check" in message


def test_plans_take_little_and_packing_grows_with_the_weights() -> None:
    assert build_memory(0) == 1 << 30
    assert 1.6e9 < build_memory(988_000_000) < 2e9, "fits beside a system on a board of 8 GB"


def test_calibration_takes_more_than_packing_and_is_over_before_it() -> None:
    assert 3.3e9 < build_memory(988_000_000, 988_000_000) < 4e9
    assert build_memory(988_000_000, 617_000_000) == build_memory(0, 617_000_000)


def test_processes_fit_into_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_count(1 << 30) == MOST_WORKERS
    assert worker_count(5 << 30) == 3
    assert worker_count(9 << 30) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    assert worker_count(1 << 30) == 2
