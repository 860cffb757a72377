"""From nothing to the words of a model of InternVL2-1B's size: `LITEVLM_REAL_SIZE=1 python -m pytest THIS_FILE`.

It takes minutes, 10 GB of disk and 10 GB of memory. The weights are random, and so are the words.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from fake_hub import serve
from ros_domains import next_domain
from ros_process import process
from tiny_tokenizer import make_tokenizer, write_tokenizer

from litevlm_ros.published_models import DEFAULT_MODEL, PUBLISHED_MODELS

pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif("LITEVLM_REAL_SIZE" not in os.environ, reason="takes minutes; LITEVLM_REAL_SIZE=1 runs it"),
]


def test_a_published_model_comes_from_the_hub_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="a model is converted with torch")
    from published_checkpoints import random_model, write_original

    entry = PUBLISHED_MODELS[DEFAULT_MODEL]
    checkpoint = write_original(
        random_model(entry.model, make_tokenizer().token_to_id("<IMG_CONTEXT>")),
        tmp_path / "checkpoint",
        dtype=torch.bfloat16,
    )
    write_tokenizer(make_tokenizer(), checkpoint)
    command = ["-m", "litevlm_ros.tools.demo", "--model", entry.name, "--models", str(tmp_path / "models")]
    command += ["--seconds", "5", "--question", "What do you see?", "--output", str(tmp_path / "out")]
    with serve() as hub:
        hub.publish(entry.repository, checkpoint, entry.revision)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with process(command, tmp_path / "first.log", next_domain()) as child:
            assert child.wait() == 0, (tmp_path / "first.log").read_text()
    first = (tmp_path / "first.log").read_text()
    assert re.search(rf"1\. download 1\.88 GB from {hub.url}", first)
    # The hub is gone, and nothing is left to be asked of it.
    with process(command, tmp_path / "second.log", next_domain()) as child:
        assert child.wait() == 0, (tmp_path / "second.log").read_text()
    second = (tmp_path / "second.log").read_text()
    assert f"reusing {tmp_path / 'models' / entry.name}" in second
    for log in (first, second):
        assert "answers: 1 of 1" in log
