from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from litevlm_ros.checksums import changed_files, listed
from litevlm_ros.convert import onnx_graphs as onnx_export
from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.convert.onnx_graphs import save_graph, vision_graph
from litevlm_ros.convert.text_graph import text_graph
from litevlm_ros.errors import EngineError
from litevlm_ros.model_directory import CHECKSUMS

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def vision_file(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("graphs") / "vision_encoder.onnx"
    save_graph(vision_graph(load_vision_encoder(models["original"])), file)
    return file


@pytest.fixture(scope="module")
def text_file(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("graphs") / "text_decoder.onnx"
    save_graph(text_graph(load_text_decoder(models["original"])), file)
    return file


def signature(values: Any) -> dict[str, tuple[int, list[Any]]]:
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim],
        )
        for value in values
    }


INT64, FLOAT, UINT8 = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8


def test_vision_signature(vision_file: Path) -> None:
    graph = onnx.load(vision_file).graph
    assert signature(graph.input) == {"pixels": (UINT8, ["N", 56, 56, 3])}
    assert signature(graph.output) == {"visual_tokens": (FLOAT, ["N", 4, 48])}


def test_text_signature(text_file: Path) -> None:
    graph = onnx.load(text_file).graph
    cache = {f"past_{kind}.{layer}": (FLOAT, ["C", 2, 8]) for kind in ("key", "value") for layer in range(3)}
    assert signature(graph.input) == cache | {
        "input_ids": (INT64, ["S"]),
        "position_ids": (INT64, ["S"]),
        "past_length": (INT64, [1]),
        "logit_positions": (INT64, ["K"]),
        "visual_tokens": (FLOAT, ["M", 48]),
    }
    new = {f"new_{kind}.{layer}": (FLOAT, ["S", 2, 8]) for kind in ("key", "value") for layer in range(3)}
    assert signature(graph.output) == new | {
        "logits": (FLOAT, ["K", 97]),
        "next_tokens": (INT64, ["K"]),
        "hidden": (FLOAT, ["K", 48]),
    }


def test_files_declare_opset_17_and_hold_no_paths(vision_file: Path, text_file: Path) -> None:
    for file in (vision_file, text_file):
        model = onnx.load(file)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
        content = file.read_bytes()
        assert b"litevlm_ros" not in content
        assert str(Path(torch.__file__).parent).encode() not in content


def test_only_what_a_layer_needs_is_in_the_graph(text_file: Path) -> None:
    """Two more layers cost the same as the first ones: no shape arithmetic inside them."""
    operators = [node.op_type for node in onnx.load(text_file).graph.node]
    assert operators.count("Shape") == 2
    assert operators.count("Gemm") == 4 * 3 + 1
    assert len(operators) < 50 + 60 * 3


@pytest.mark.parametrize("count", [1, 3])
def test_vision_graph_computes_what_transformers_computes(count: int, vision_file: Path, reference: Any) -> None:
    pixels = torch.randint(0, 256, (count, 56, 56, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    scaled = (pixels.float() / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    expected = reference.model.get_image_features(scaled.permute(0, 3, 1, 2)).pooler_output.numpy()
    (result,) = onnxruntime.InferenceSession(vision_file).run(None, {"pixels": pixels.numpy()})
    assert np.abs(result - expected).max() / np.abs(expected).max() < TOLERANCE


def test_text_graph_holds_a_conversation_as_transformers_does(
    text_file: Path, reference: Any, conversation: Any
) -> None:
    session = onnxruntime.InferenceSession(text_file)
    layers = range(3)
    outputs = ["logits", "next_tokens", "hidden"]
    outputs += [f"new_key.{layer}" for layer in layers] + [f"new_value.{layer}" for layer in layers]

    def step(ids: Any, positions: Any, length: Any, wanted: Any, visual: Any, keys: Any, values: Any) -> Any:
        feeds = {"input_ids": ids, "position_ids": positions, "past_length": length, "logit_positions": wanted}
        feeds |= {"visual_tokens": visual}
        feeds |= {f"past_key.{layer}": keys[layer] for layer in layers}
        feeds |= {f"past_value.{layer}": values[layer] for layer in layers}
        results = [torch.from_numpy(array) for array in session.run(outputs, {k: v.numpy() for k, v in feeds.items()})]
        return results[0], results[1], results[2], results[3:6], results[6:9]

    errors = conversation(step, reference)
    assert len(errors) == 7
    assert max(errors.values()) < TOLERANCE, errors


def test_an_id_beyond_the_visual_tokens_is_an_error(text_file: Path) -> None:
    session = onnxruntime.InferenceSession(text_file)
    feeds = {"input_ids": np.array([97 + 5]), "position_ids": np.array([0]), "past_length": np.array([0])}
    feeds |= {"logit_positions": np.array([0]), "visual_tokens": np.zeros((5, 48), np.float32)}
    for kind in ("key", "value"):
        feeds |= {f"past_{kind}.{layer}": np.zeros((4, 2, 8), np.float32) for layer in range(3)}
    with pytest.raises(Exception, match="idx=5 must be within"):
        session.run(None, feeds)


def test_the_same_model_gives_the_same_bytes(models: Any, vision_file: Path, tmp_path: Path) -> None:
    save_graph(vision_graph(load_vision_encoder(models["original"])), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == vision_file.read_bytes()


def test_weights_beyond_the_protobuf_limit_go_beside_the_graph(
    models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "_PROTOBUF_LIMIT", 10_000)
    module = load_vision_encoder(models["original"])
    file = tmp_path / "vision_encoder.onnx"
    save_graph(vision_graph(module), file)
    assert (tmp_path / "vision_encoder.onnx.data").stat().st_size > 10_000
    pixels = torch.zeros(1, 56, 56, 3, dtype=torch.uint8)
    (result,) = onnxruntime.InferenceSession(file).run(None, {"pixels": pixels.numpy()})
    np.testing.assert_allclose(result, module(pixels).numpy(), rtol=1e-4, atol=1e-4)
    assert {made.name for made in tmp_path.iterdir()} == {CHECKSUMS, file.name, f"{file.name}.data"}
    assert listed(tmp_path).keys() == {file.name, f"{file.name}.data"}
    monkeypatch.undo()
    save_graph(vision_graph(module), file)
    assert {made.name for made in tmp_path.iterdir()} == {CHECKSUMS, file.name}, "weights that no graph reads"
    assert listed(tmp_path).keys() == {file.name}
    assert changed_files(tmp_path) == {}


@pytest.mark.parametrize("limits", [(10_000, 10_000), (10_000, 2**30), (2**30, 10_000), (2**30, 2**30)])
def test_a_graph_whose_check_fails_leaves_the_older_one_and_nothing_of_its_own(
    vision_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int]
) -> None:
    """Tells whether the weights of the older and of the newer graph are in the graph or beside it."""
    file, pixels = tmp_path / "graph.onnx", np.zeros((1, 56, 56, 3), np.uint8)

    def run(made: Path) -> float:
        (result,) = onnxruntime.InferenceSession(made).run(None, {"pixels": pixels})
        return float(result.sum())

    monkeypatch.setattr(onnx_export, "_PROTOBUF_LIMIT", limits[0])
    written = save_graph(ir.load(vision_file), file, run)
    before = {made.name: made.read_bytes() for made in tmp_path.iterdir()}
    changed = ir.load(vision_file)
    weight = max(changed.graph.initializers.values(), key=lambda value: value.const_value.nbytes)
    weight.const_value = ir.tensor(2 * weight.const_value.numpy(), name=weight.name)

    def refuse(made: Path) -> float:
        assert made != file
        assert run(made) != written, "the new weights"
        raise EngineError("off")

    monkeypatch.setattr(onnx_export, "_PROTOBUF_LIMIT", limits[1])
    with pytest.raises(EngineError, match="off"):
        save_graph(changed, file, refuse)
    assert {made.name: made.read_bytes() for made in tmp_path.iterdir()} == before
    assert run(file) == written
    assert save_graph(changed, file, run) == run(file) != written
