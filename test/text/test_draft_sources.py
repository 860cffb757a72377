from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_backend import ScriptedText

from litevlm_ros.config import PipelineConfig, SpeculationConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.text.draft_head import HeadDrafts
from litevlm_ros.text.draft_sources import CombinedDrafts, head_obstacle, load_drafts
from litevlm_ros.text.drafts import DraftSource, NGramDrafts, Offer

MODEL = demo_model_directory()


def load(source: str, directory: Path = MODEL, *, hidden: bool = True) -> DraftSource | None:
    text = ScriptedText(50, 200, range(10, 50))
    text.gives_hidden = hidden
    config = PipelineConfig(directory, threads=1, speculation=SpeculationConfig(source))
    return load_drafts(config, ModelConfig.from_directory(MODEL), text, {2})


def test_each_source() -> None:
    assert load("off") is None
    assert isinstance(load("ngram"), NGramDrafts)
    assert isinstance(load("head"), HeadDrafts)
    assert isinstance(load("auto"), CombinedDrafts)


def test_what_a_head_needs_is_said_and_auto_does_without(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gives no hidden states. TensorRT.*export_onnx.*or use 'ngram'"):
        load("head", hidden=False)
    assert isinstance(load("auto", hidden=False), NGramDrafts)
    with pytest.raises(ConfigError, match=rf"draft_head.onnx is missing in {tmp_path}.*train_draft_head"):
        load("head", tmp_path)
    assert isinstance(load("auto", tmp_path), NGramDrafts)


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ScriptedText(50, 200, range(10, 50))
    text.gives_hidden = True
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install onnxruntime" in str(head_obstacle(PipelineConfig(MODEL), text))


class Guesser:
    """Stands in for a head."""

    reads_hidden = True

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.most = 15

    def begin(self, prompt: Sequence[int], topic: Hashable) -> None:
        self.heard.append((tuple(prompt), topic))

    def add(self, token: int, hidden: Any) -> None:
        self.heard.append((token, hidden))

    def offer(self) -> Offer:
        return Offer(self.most, 0)

    def draft(self, count: int) -> Sequence[int]:
        return [99] * count

    def remember(self) -> None:
        self.heard.append("remember")


def test_long_matches_come_first_then_the_head_then_short_matches() -> None:
    head = Guesser()
    both = CombinedDrafts(NGramDrafts(), head)
    both.begin([1, 2, 3, 4, 5, 6, 7], "topic")
    state = np.zeros(3)
    for token in (2, 3):
        both.add(token, state)
    assert both.offer() == Offer(15, 0)
    assert both.draft(2) == [99, 99]
    head.most = 0
    assert dataclasses.replace(both.offer(), most=0) == Offer(0, 2, guess=4)
    assert both.draft(2) == [4, 5]
    head.most = 15
    for token in (4, 5):
        both.add(token, state)
    assert both.offer().kind == 4
    assert both.draft(2) == [6, 7]
    both.remember()
    assert head.heard == [
        ((1, 2, 3, 4, 5, 6, 7), "topic"), (2, state), (3, state), (4, state), (5, state), "remember"
    ]  # fmt: skip
    both.begin([8, 9], "topic")
    assert both.offer().most == 15, "nothing alike was said yet"
