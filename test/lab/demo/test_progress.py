from __future__ import annotations

import time

import pytest

from litevlm_ros.lab.demo import progress
from litevlm_ros.lab.demo.progress import reporting, words


def test_long_work_is_reported_and_quick_work_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    with reporting("quick", 1.0, lines.append):
        pass
    assert lines == []
    monkeypatch.setattr(progress, "PERIOD", 0.01)
    deadline = time.monotonic() + 30
    with reporting("exporting", 200.0, lines.append):
        while len(lines) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert lines[0] == "  exporting: 0 s, of about 3 min"
    count = len(lines)
    time.sleep(0.05)
    assert len(lines) == count, "it ends with the work"


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0, "1 s"), (42.4, "42 s"), (119, "2 min"), (5000, "83 min"), (7200, "2.0 h")]
)
def test_times_are_told_coarsely(seconds: float, told: str) -> None:
    assert words(seconds) == told
