from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from package_files import DEMO_MODEL

from litevlm_ros.errors import EngineError, NotFiniteError
from litevlm_ros.model_directory import VIEW_SELECTOR_GRAPH
from litevlm_ros.vision.view_selector_graph import ViewSelectorGraph

pytest.importorskip("onnxruntime", reason="the graph runs on ONNX Runtime")

GRAPH = DEMO_MODEL / VIEW_SELECTOR_GRAPH


def test_it_has_a_logit_for_each_camera_for_any_number_of_words() -> None:
    graph = ViewSelectorGraph(GRAPH)
    assert graph.cameras == ("front", "front_left", "front_right", "back", "back_left", "back_right")
    assert graph.vocabulary == sorted(graph.vocabulary)
    for count in (1, 7, 48):
        logits = graph.logits(range(1, 1 + count))
        assert len(logits) == len(graph.cameras)
        assert all(map(math.isfinite, logits))


def test_rows_that_it_does_not_have_are_explained() -> None:
    with pytest.raises(EngineError, match=r"view_selector\.onnx failed on 2 words: .*train_view_selector"):
        ViewSelectorGraph(GRAPH).logits([1, 10**6])


def test_a_missing_graph_is_explained(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"there is no .*view_selector\.onnx: train one with .* or set"):
        ViewSelectorGraph(tmp_path / VIEW_SELECTOR_GRAPH)


def test_a_graph_of_another_kind_is_explained(tmp_path: Path) -> None:
    file = tmp_path / VIEW_SELECTOR_GRAPH
    file.write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"cannot be loaded: .*train one with"):
        ViewSelectorGraph(file)
    other = DEMO_MODEL / "vision_encoder.onnx"
    with pytest.raises(EngineError, match=r"vision_encoder\.onnx does not say which cameras .* train_view_selector"):
        ViewSelectorGraph(other)


def test_without_onnx_runtime_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match="pip install onnxruntime"):
        ViewSelectorGraph(GRAPH)


def test_logits_that_are_not_finite_name_the_training(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="changes a graph: pip install 'litevlm_ros[convert]'")
    graph = onnx.load(GRAPH)
    for weight in graph.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            numbers = np.full_like(onnx.numpy_helper.to_array(weight), np.nan)
            weight.CopyFrom(onnx.numpy_helper.from_array(numbers, weight.name))
    onnx.save(graph, tmp_path / "damaged.onnx")
    damaged = ViewSelectorGraph(tmp_path / "damaged.onnx")
    with pytest.raises(NotFiniteError, match=r"damaged.onnx gives infinite or NaN logits, .* train_view_selector"):
        damaged.logits([1, 2])
