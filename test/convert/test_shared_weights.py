from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from published_checkpoints import write_original

from litevlm_ros.checkpoint.check import find_text_sources, find_vision_sources
from litevlm_ros.checkpoint.files import SafetensorsDirectory
from litevlm_ros.checkpoint.keys import Sources
from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.convert.checkpoint_split import split_checkpoint
from litevlm_ros.convert.export import export_vision_encoder
from litevlm_ros.convert.onnx_graphs import save_graph, text_inputs, vision_graph
from litevlm_ros.convert.shared_weights import share_weights
from litevlm_ros.convert.text_graph import text_graph
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_config import ModelConfig


@pytest.fixture(scope="module")
def half_models(models: Any, tied_reference: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """fp16 model directories: fused QKV with an own output projection; split QKV with a tied one."""
    from safetensors.torch import load_file, save_file

    root = tmp_path_factory.mktemp("half")
    for name in ("original", "native-tied"):
        shutil.copytree(models[name], root / name)
        for file in (root / name).rglob("*.safetensors"):
            save_file({key: tensor.half() for key, tensor in load_file(file).items()}, file)
    return {name: root / name for name in ("original", "native-tied")}


def run(file: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    results: list[np.ndarray] = onnxruntime.InferenceSession(file).run(None, feeds)
    return results


def external(file: Path) -> dict[str, dict[str, str]]:
    graph = onnx.load(file, load_external_data=False).graph
    return {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }


def share(graph: ir.Model, sources: Sources, model: Path, half: str, directory: Path) -> tuple[Path, Path]:
    """Save a graph plainly into `directory`, and with shared weights into `model`."""
    plain, shared = directory / f"{half}.onnx", model / f"{half}.onnx"
    save_graph(graph, plain)
    assert share_weights(graph, sources, SafetensorsDirectory(model / half), model) > 30_000
    save_graph(graph, shared)
    assert shared.stat().st_size < plain.stat().st_size / 1.5
    assert {entry["location"] for entry in external(shared).values()} == {f"{half}/model.safetensors"}
    return plain, shared


CASES = [("original", torch.float32), ("native-tied", torch.float16)]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_vision_results_are_the_same_bits(name: str, dtype: Any, half_models: Any, tmp_path: Path) -> None:
    model = half_models[name]
    config = ModelConfig.from_directory(model)
    sources, _ = find_vision_sources(SafetensorsDirectory(model / "vision_encoder"), config.vision)
    graph = vision_graph(load_vision_encoder(model, dtype))
    plain, shared = share(graph, sources, model, "vision_encoder", tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3), np.uint8)
    for left, right in zip(run(plain, {"pixels": pixels}), run(shared, {"pixels": pixels}), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_text_results_are_the_same_bits(name: str, dtype: Any, half_models: Any, tmp_path: Path) -> None:
    model = half_models[name]
    config = ModelConfig.from_directory(model)
    sources = find_text_sources(SafetensorsDirectory(model / "text_decoder"), config.text)
    module = load_text_decoder(model, dtype)
    plain, shared = share(text_graph(module), sources, model, "text_decoder", tmp_path)
    ids, positions, length, wanted, visual, keys, values = text_inputs(module, new=6, rows=9, wanted=2, visual=3)
    feeds = {"input_ids": ids, "position_ids": positions, "past_length": length, "logit_positions": wanted}
    feeds |= {"visual_tokens": visual}
    feeds |= {f"past_key.{layer}": key for layer, key in enumerate(keys)}
    feeds |= {f"past_value.{layer}": value for layer, value in enumerate(values)}
    arrays = {key: value.numpy() for key, value in feeds.items()}
    for left, right in zip(run(plain, arrays), run(shared, arrays), strict=True):
        np.testing.assert_array_equal(left, right)
    pointers = external(shared)
    assert any("gate_proj" in key for key in pointers)
    assert any("embed_tokens" in key for key in pointers), "a tied table must be shared too"


def test_the_directory_can_be_moved(half_models: Any, tmp_path: Path) -> None:
    model = tmp_path / "here"
    shutil.copytree(half_models["original"], model)
    export_vision_encoder(model, model, share=True)
    model.rename(tmp_path / "there")
    pixels = np.zeros((1, 56, 56, 3), np.uint8)
    assert np.isfinite(run(tmp_path / "there" / "vision_encoder.onnx", {"pixels": pixels})[0]).all()


def test_bf16_checkpoints_can_be_shared(reference: Any, tmp_path: Path) -> None:
    split_checkpoint(write_original(reference, tmp_path / "whole", dtype=torch.bfloat16), tmp_path / "model")
    shared = export_vision_encoder(tmp_path / "model", tmp_path / "model", share=True)
    assert shared.error is not None
    assert shared.error < 1e-4
    assert shared.shared_bytes > 30_000


def test_weights_outside_the_output_are_refused(half_models: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--output"):
        export_vision_encoder(half_models["original"], tmp_path, share=True)
    assert not list(tmp_path.iterdir())
