"""The node on a model whose numbers overflow for some words: questions with them fail, and nothing else does."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_bench import Bench
from overflowing_demo import BAD_WORDS, open_pipeline
from ros_process import image

from litevlm_ros.msg import Answer, Caption

pytestmark = pytest.mark.ros

FIX = "`ros2 run litevlm_ros build_engines --text-precision bf16`"


def test_bad_questions_are_refused_captions_go_on_and_diagnostics_tell_it(bench: Bench) -> None:
    bench.load = lambda config: open_pipeline()
    bench.start(cameras=["front"], caption_period=0.05, caption_prompt="What is ahead?", max_new_tokens=4)
    client = bench.client
    captions, answers = client.listen(Caption, "/litevlm/caption"), client.listen(Answer, "/litevlm/answer")
    statuses: list[Any] = []
    arrays = client.listen(DiagnosticArray, "/diagnostics")
    publisher = bench.publish("front", image(1))
    good = client.ask("Is the road clear?", max_new_tokens=4)
    assert (good.success, good.error) == (True, "")

    def more_captions(before: int) -> bool:
        publisher.publish(image(1))
        client.spin(0.05)
        return len(captions) > before + 1

    for word in BAD_WORDS[:3]:
        bad = client.ask(f"Where are {word}?", max_new_tokens=4)
        assert not bad.success
        assert bad.error.startswith("layer 0 of the text decoder: its attention or MLP gives numbers beyond what fp16")
        assert FIX in bad.error
        assert bad.answer == Answer(), "no text of bad numbers"
        assert client.ask("Is the road clear?", max_new_tokens=4).answer.text == good.answer.text
        client.wait_for(partial(more_captions, len(captions)))
    assert len({caption.text for caption in captions}) == 1
    assert all(BAD_WORDS[0] not in answer.text and answer.prompt == "Is the road clear?" for answer in answers)

    def told() -> bool:
        statuses[:] = [status for array in arrays for status in array.status if status.name == "litevlm: questions"]
        return any(status.level == DiagnosticStatus.ERROR and FIX in status.message for status in statuses)

    client.wait_for(told)
