from __future__ import annotations

import pytest

from litevlm_ros.engines import memory
from litevlm_ros.engines.memory import build_memory, check_memory
from litevlm_ros.errors import EngineError
from litevlm_ros.model_directory import TEXT


@pytest.fixture(autouse=True)
def _seven_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 7 << 30)


def test_a_build_that_fits_is_let_through() -> None:
    check_memory(TEXT, 7 << 30)


def test_a_build_that_does_not_fit_is_refused_with_the_swap_that_is_missing() -> None:
    with pytest.raises(EngineError) as raised:
        check_memory(TEXT, 10 << 30)
    message = str(raised.value)
    assert "text decoder takes up to 10.7 GB of memory and 7.5 GB are free" in message
    assert "fallocate -l 4G" in message, "3 GiB and one to spare"
    assert "smaller model" in message
    assert "--skip-memory-check" in message


def test_memory_grows_with_the_weights() -> None:
    assert 5e9 < build_memory(988_000_000) < 6e9, "5.5 GB were measured for InternVL2-1B's text decoder"
    assert build_memory(0) == 1 << 30
