from __future__ import annotations

import json
import os
import random

import pytest
from resident_memory import fresh_memory

from litevlm_ros.errors import LiteVLMError
from litevlm_ros.lab.benchmarking.soak_record import Record, Usage, soak_table, yardstick_ms

CAMERAS = ("front", "back")


def steady(minutes: int = 20) -> Record:
    """A soak in which nothing changes but by noise."""
    rng = random.Random(4)
    record = Record(60.0 * minutes)
    for second in range(60 * minutes):
        resident = 200 + min(60, second) + rng.uniform(-0.5, 0.5)  # it grows in the first minute
        record.usage.append((second, Usage(resident, 0.8 * second, 20, 30)))
        record.yardstick.append((second, rng.uniform(9, 11)))
        record.captions.append((second, rng.uniform(90, 110)))
        record.answers.append((second, rng.uniform(190, 210)))
        record.caption_times.setdefault(CAMERAS[second % 2], []).append(second)
    return record


def test_a_steady_node_is_well() -> None:
    record = steady()
    assert record.findings(CAMERAS) == []
    figures = record.figures()
    assert figures["memory_mb"] == pytest.approx(260, abs=1)
    assert figures["cpus"] == pytest.approx(0.8)
    assert abs(figures["caption_drift"]) < 0.02
    assert "memory: 26" in soak_table(figures)


def test_a_leak_is_found() -> None:
    record = steady()
    # 7 MB in the 18 minutes after the warm-up.
    record.usage = [(time, Usage(260 + time / 150, 0, 20, 30)) for time, _ in record.usage]
    assert record.findings(CAMERAS) == ["the node's memory changed by 2.4% after the warm-up; at most 2% is flat"]


@pytest.mark.parametrize("name", ["caption", "answer"])
def test_a_drift_is_found(name: str) -> None:
    record = steady()
    series = getattr(record, f"{name}s")
    setattr(record, f"{name}s", [(time, value * (1 + 0.2 * time / record.seconds)) for time, value in series])
    (finding,) = record.findings(CAMERAS)
    assert finding.startswith(f"{name}s took 1")


def test_a_machine_that_becomes_slower_is_no_drift_of_the_node() -> None:
    record = steady()
    for name in ("yardstick", "captions", "answers"):
        series = getattr(record, name)
        setattr(record, name, [(time, value * (1 + 0.5 * time / record.seconds)) for time, value in series])
    assert record.findings(CAMERAS) == []
    assert record.figures()["machine_drift"] == pytest.approx(0.3, abs=0.05)
    assert "the same work took +" in soak_table(record.figures())


def test_a_machine_that_becomes_faster_does_not_hide_a_drift() -> None:
    record = steady()
    record.yardstick = [(time, value * (1 - 0.3 * time / record.seconds)) for time, value in record.yardstick]
    assert len(record.findings(CAMERAS)) == 2


def test_the_yardstick_takes_time_but_little() -> None:
    assert 0.5 < yardstick_ms() < 100


def test_lost_questions_silent_cameras_and_errors_are_found() -> None:
    record = steady()
    record.failures["no response came"] = 3
    record.caption_times["back"] = [time for time in record.caption_times["back"] if time < 600]
    record.node_log = ["[ERROR] [litevlm]: out of memory", "[WARN] [litevlm]: unknown parameter"]
    assert record.findings((*CAMERAS, "side")) == [
        "3 questions were not answered: no response came",
        "back had no caption for 601 s",
        "side had no caption for 1200 s",
        "the node's log says: [ERROR] [litevlm]: out of memory",
    ]


def test_too_little_to_compare_is_said() -> None:
    record = Record(10.0, usage=[(5.0, Usage(1.0, 0.0, 1, 1))])
    assert "too few captions to compare" in record.findings(())
    json.dumps(record.json())


def test_usage_of_this_process() -> None:
    before = Usage.of(os.getpid())
    block = fresh_memory(50_000_000)
    after = Usage.of(os.getpid())
    assert after.resident_mb - before.resident_mb == pytest.approx(50, abs=10)
    assert after.cpu_seconds >= before.cpu_seconds
    assert after.threads >= 1
    assert after.files >= 3
    block.close()
    with pytest.raises(LiteVLMError, match="cannot be watched"):
        Usage.of(2**22 + 1)
