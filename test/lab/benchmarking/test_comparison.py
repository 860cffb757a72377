from __future__ import annotations

from pathlib import Path

import pytest

from litevlm_ros.lab.benchmarking.comparison import Comparison, Row, comparison_table


def row(name: str, views: int, scale: float, memory: int | None = None) -> Row:
    times = {"vision": 2.0 * scale, "prefill": 1.5 * scale, "decode_token": 0.9 * scale, "total": 40.0 * scale}
    floors = {"vision": 1.0, "prefill": 0.5, "decode_token": 0.3}
    return Row(name, views, 300 * views, times, floors, memory)


COMPARISON = Comparison(
    rows=tuple(row(name, views, scale, memory) for views in (1, 6)
               for name, scale, memory in (("ours fp16/fp16", 1, 2_900_000_000), ("transformers eager", 20, None))),
    bandwidth=4.3e12, rate=790e12, tokens=32, runs=30, skipped=("fp8/fp8: not built",),
)  # fmt: skip


def test_the_table_has_times_multiples_of_the_floor_and_memory() -> None:
    lines = comparison_table(COMPARISON).splitlines()
    assert "copy 4.30 TB/s, matrices 790 TFLOP/s; medians of 30" in lines[0]
    assert len(lines) == 2 + 4
    assert lines[2].split() == ["ours", "fp16/fp16", "1", "300", "2.000", "2.0x", "1.500", "3.0x", "0.900", "3.0x",
                                "40.00", "2.90"]  # fmt: skip
    assert lines[3].split()[-2:] == ["800.00", "?"]


def test_everything_goes_into_the_json() -> None:
    found = COMPARISON.json()
    assert found["machine"]["cpu"]
    assert found["skipped"] == ("fp8/fp8: not built",)
    assert found["rows"][0]["floors"]["prefill"] == 0.5


def test_the_chart_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws")
    file = tmp_path / "new" / "comparison.png"
    COMPARISON.draw(file)
    assert file.read_bytes()[:4] == b"\x89PNG"
    assert file.stat().st_size > 10_000
