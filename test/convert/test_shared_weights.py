from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from litevlm_ros.convert.checkpoint_split import split_checkpoint
from litevlm_ros.convert.model_export import export_text_decoder, export_vision_encoder
from litevlm_ros.convert.onnx_export import text_inputs
from litevlm_ros.errors import ConfigError


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


@pytest.mark.parametrize("name", ["original", "native-tied"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_vision_results_are_the_same_bits(name: str, dtype: str, half_models: Any, tmp_path: Path) -> None:
    model = half_models[name]
    plain = export_vision_encoder(model, tmp_path, dtype)
    shared = export_vision_encoder(model, model, dtype, share=True)
    assert plain.shared_bytes == 0
    assert shared.shared_bytes > 30_000
    assert shared.bytes < plain.bytes / 1.5
    pixels = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3), np.uint8)
    for left, right in zip(run(plain.file, {"pixels": pixels}), run(shared.file, {"pixels": pixels}), strict=True):
        np.testing.assert_array_equal(left, right)
    assert {entry["location"] for entry in external(shared.file).values()} == {"vision_encoder/model.safetensors"}


@pytest.mark.parametrize("name", ["original", "native-tied"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_text_results_are_the_same_bits(name: str, dtype: str, half_models: Any, tmp_path: Path) -> None:
    from litevlm_ros.convert.checkpoint import load_text_decoder

    model = half_models[name]
    plain = export_text_decoder(model, tmp_path, dtype)
    shared = export_text_decoder(model, model, dtype, share=True)
    assert shared.shared_bytes > 80_000
    module = load_text_decoder(model, torch.float16 if dtype == "fp16" else torch.float32)
    ids, positions, length, wanted, visual, keys, values = text_inputs(module, new=6, rows=9, wanted=2, visual=3)
    feeds = {"input_ids": ids, "position_ids": positions, "past_length": length, "logit_positions": wanted}
    feeds |= {"visual_tokens": visual}
    feeds |= {f"past_key.{layer}": key for layer, key in enumerate(keys)}
    feeds |= {f"past_value.{layer}": value for layer, value in enumerate(values)}
    arrays = {key: value.numpy() for key, value in feeds.items()}
    for left, right in zip(run(plain.file, arrays), run(shared.file, arrays), strict=True):
        np.testing.assert_array_equal(left, right)
    pointers = external(shared.file)
    assert any("gate_proj" in key for key in pointers)
    assert any("embed_tokens" in key for key in pointers), "a tied table must be shared too"
    assert {entry["location"] for entry in pointers.values()} == {"text_decoder/model.safetensors"}


def test_the_directory_can_be_moved(half_models: Any, tmp_path: Path) -> None:
    model = tmp_path / "here"
    shutil.copytree(half_models["original"], model)
    export_vision_encoder(model, model, share=True)
    model.rename(tmp_path / "there")
    pixels = np.zeros((1, 56, 56, 3), np.uint8)
    assert np.isfinite(run(tmp_path / "there" / "vision_encoder.onnx", {"pixels": pixels})[0]).all()


def test_bf16_checkpoints_can_be_shared(reference: Any, save_original: Any, tmp_path: Path) -> None:
    split_checkpoint(save_original(reference, tmp_path / "whole", dtype=torch.bfloat16), tmp_path / "model")
    shared = export_text_decoder(tmp_path / "model", tmp_path / "model", share=True)
    assert shared.error is not None
    assert shared.error < 1e-4


def test_weights_outside_the_output_are_refused(half_models: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--output"):
        export_vision_encoder(half_models["original"], tmp_path, share=True)
    assert not list(tmp_path.iterdir())
