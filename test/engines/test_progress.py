from __future__ import annotations

import pytest

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (x86-64 only)")

from litevlm_ros.engines.progress import progress_monitor


class Bar:
    """What tqdm gives, noted."""

    made: list[Bar] = []  # noqa: RUF012

    def __init__(self, total: int, desc: str, position: int, leave: bool, disable: bool | None) -> None:
        self.total, self.desc, self.position, self.disable = total, desc, position, disable
        self.n, self.closed = 0, False
        self.made.append(self)

    def update(self, steps: int) -> None:
        self.n += steps

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    monkeypatch.setattr("tqdm.tqdm", Bar)
    Bar.made = []
    return Bar.made


def test_each_phase_is_a_bar_below_the_one_it_is_part_of(bars: list[Bar]) -> None:
    monitor = progress_monitor()
    monitor.phase_start("Building", None, 4)
    monitor.phase_start("Tactics", "Building", 10)
    assert monitor.step_complete("Tactics", 6)
    assert monitor.step_complete("Building", 0)
    monitor.phase_finish("Tactics")
    assert [(bar.desc, bar.position, bar.n, bar.closed) for bar in bars] == [
        ("Building", 0, 1, False),
        ("  Tactics", 1, 7, True),
    ]
    assert bars[0].disable is None, "tqdm itself leaves bars out where there is no terminal"


def test_a_stopped_build_is_told_to_end_and_leaves_no_bar(bars: list[Bar]) -> None:
    monitor = progress_monitor(quiet=True)
    monitor.phase_start("Building", None, 4)
    monitor.stop()
    assert not monitor.step_complete("Building", 1)
    assert all(bar.closed and bar.disable for bar in bars)


def test_unknown_phases_do_no_harm() -> None:
    monitor = progress_monitor()
    assert monitor.step_complete("never started", 1)
    monitor.phase_finish("never started")
