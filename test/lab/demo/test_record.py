from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from litevlm_ros.lab.demo.record import STAGES, recording, stages


def message(total: float, **fields: Any) -> Any:
    timings = SimpleNamespace(**{**dict.fromkeys(STAGES, 0.0), "vision": total / 2, "total": total})
    stamp = SimpleNamespace(sec=3, nanosec=4)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp), text="Grüße", finish_reason="stop", generated_tokens=2, timings=timings,
        **fields,
    )  # fmt: skip


def test_each_caption_and_answer_is_a_line_at_once(tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    file.write_text("of an earlier run")
    with recording(file) as record:
        assert record.mean() == {}
        record.caption(message(10.0, camera="front"))
        record.caption(message(30.0, camera="front"))
        record.answer("What?", message(90.0, cameras=["front"]))
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert [line["kind"] for line in lines] == ["caption", "caption", "answer"]
        assert lines[0]["text"] == "Grüße"
        assert lines[0]["stamp"] == {"sec": 3, "nanosec": 4}
        assert lines[2]["question"] == "What?"
        assert lines[2]["timings"]["total"] == 90.0
        assert record.mean()["total"] == 20.0, "answers do not count"
        assert stages(record.mean()) == "vision 10.0, total 20.0 ms"
