from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_checkpoints import write_original
from safetensors.torch import load_file, save_file

from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.convert.checkpoint_split import split_checkpoint
from litevlm_ros.errors import CheckpointError

PIXELS = torch.randint(0, 256, (2, 56, 56, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.state_dict())


@pytest.mark.parametrize("name", ["original-sharded", "native"])
def test_every_layout_gives_the_same_weights(name: str, models: Any) -> None:
    for load in (load_vision_encoder, load_text_decoder):
        expected, found = state(load(models["original"])), state(load(models[name]))
        assert expected.keys() == found.keys()
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], rtol=0, atol=0)


def test_shards_are_read_where_they_lie(models: Any, checkpoints: Any, tmp_path: Path) -> None:
    """A text half that keeps its shards, as a stock Qwen2 of many gigabytes has them."""
    shutil.copytree(models["original"], tmp_path / "model")
    text = tmp_path / "model" / "text_decoder"
    whole = load_file(text / "model.safetensors")
    (text / "model.safetensors").unlink()
    keys = sorted(whole)
    shards = {"one.safetensors": keys[:10], "two.safetensors": keys[10:]}
    for file, held in shards.items():
        save_file({key: whole[key] for key in held}, text / file)
    index = {"weight_map": {key: file for file, held in shards.items() for key in held}}
    (text / "model.safetensors.index.json").write_text(json.dumps(index))
    expected, found = state(load_text_decoder(models["original"])), state(load_text_decoder(tmp_path / "model"))
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wanted", [torch.float32, torch.float16])
def test_dtypes(stored: Any, wanted: Any, reference: Any, tmp_path: Path) -> None:
    split_checkpoint(write_original(reference, tmp_path / "whole", dtype=stored), tmp_path / "model")
    decoder = load_text_decoder(tmp_path / "model", wanted)
    expected = reference.model.language_model.layers[0].mlp.down_proj.weight.to(stored).to(wanted)
    assert torch.equal(decoder.layers[0].down.weight, expected)
    assert {parameter.dtype for parameter in decoder.parameters()} == {wanted}
    assert decoder.inverse_frequencies.dtype == torch.float32
    assert not decoder.training


def test_positions_are_summed_before_they_are_rounded(models: Any) -> None:
    exact = load_vision_encoder(models["original"]).positions
    assert torch.equal(load_vision_encoder(models["original"], torch.float16).positions, exact.half())


def test_tied_embeddings_are_one_parameter(models: Any) -> None:
    decoder = load_text_decoder(models["original-tied"])
    assert decoder.lm_head.weight is decoder.embed_tokens.weight
    assert load_text_decoder(models["original"]).lm_head.weight.shape == (97, 48)


Change = Callable[[dict[str, torch.Tensor]], None]


def changed(model: Path, target: Path, half: str, change: Change) -> Path:
    shutil.copytree(model, target)
    file = target / half / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    return target


def spoil(key: str, tensor: torch.Tensor | None) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        if tensor is None:
            del tensors[key]
        else:
            tensors[key] = tensor

    return change


VISION_PROBLEMS = [
    ("vision_model.encoder.layers.1.ls2", None, "is missing"),
    ("vision_model.embeddings.class_embedding", None, "is missing"),
    ("vision_model.encoder.layers.1.attn.qkv.bias", torch.zeros(95), r"\[95\]"),
    ("vision_model.embeddings.position_embedding", torch.zeros(1, 65, 32), "not interpolated"),
    ("vision_model.embeddings.patch_embedding.weight", torch.zeros(32, 3, 16, 16), r"\[32, 3, 16, 16\]"),
    ("vision_model.encoder.layers.2.norm1.weight", torch.zeros(32), "unexpected"),
    ("mlp1.1.weight", torch.full((48, 128), float("nan")), "not finite"),
]

TEXT_PROBLEMS = [
    ("language_model.model.layers.2.mlp.up_proj.weight", None, "is missing"),
    ("language_model.lm_head.weight", None, r"lm_head\.weight is missing"),
    ("language_model.model.layers.0.self_attn.k_proj.weight", torch.zeros(48, 48), r"\[48, 48\]"),
    ("language_model.model.layers.0.self_attn.o_proj.weight", torch.tensor(1.0), r"\[\]"),
    ("language_model.model.layers.0.self_attn.q_norm.weight", torch.zeros(8), "unexpected"),
    ("language_model.model.norm.weight", torch.full((48,), float("inf")), "not finite"),
]


@pytest.mark.parametrize(("key", "tensor", "words"), VISION_PROBLEMS)
def test_vision_weights_that_do_not_fit(key: str, tensor: Any, words: str, models: Any, tmp_path: Path) -> None:
    model = changed(models["original"], tmp_path / "model", "vision_encoder", spoil(key, tensor))
    with pytest.raises(CheckpointError, match=words) as caught:
        load_vision_encoder(model)
    assert key in str(caught.value)
    assert str(model / "vision_encoder") in str(caught.value)


@pytest.mark.parametrize(("key", "tensor", "words"), TEXT_PROBLEMS)
def test_text_weights_that_do_not_fit(key: str, tensor: Any, words: str, models: Any, tmp_path: Path) -> None:
    model = changed(models["original"], tmp_path / "model", "text_decoder", spoil(key, tensor))
    with pytest.raises(CheckpointError, match=words) as caught:
        load_text_decoder(model)
    assert key.removeprefix("language_model.") in str(caught.value)
    assert str(model / "text_decoder") in str(caught.value)


def test_all_problems_are_reported_together(models: Any, tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if ".layers.1." in key]:
            del tensors[key]
        tensors["surprise"] = torch.zeros(1)

    with pytest.raises(CheckpointError) as caught:
        load_text_decoder(changed(models["original"], tmp_path / "model", "text_decoder", change))
    assert str(caught.value).count("is missing") == 8
    assert "and 5 more" in str(caught.value)


def test_fp16_overflow_is_reported_and_fp32_still_loads(models: Any, tmp_path: Path) -> None:
    key = "language_model.model.layers.0.self_attn.k_proj.bias"
    model = changed(models["original"], tmp_path / "model", "text_decoder", spoil(key, torch.full((16,), 7e4)))
    load_text_decoder(model)
    with pytest.raises(CheckpointError, match="not finite in float16"):
        load_text_decoder(model, torch.float16)


def test_buffers_that_old_checkpoints_carry_are_ignored(models: Any, tmp_path: Path) -> None:
    key = "language_model.model.layers.0.self_attn.rotary_emb.inv_freq"
    load_text_decoder(changed(models["original"], tmp_path / "model", "text_decoder", spoil(key, torch.zeros(4))))


def test_a_spare_output_projection_of_a_tied_model_is_ignored(models: Any, tmp_path: Path) -> None:
    spare = spoil("language_model.lm_head.weight", torch.zeros(97, 48))
    decoder = load_text_decoder(changed(models["original-tied"], tmp_path / "model", "text_decoder", spare))
    assert decoder.lm_head.weight.abs().max() > 0


@pytest.mark.parametrize(
    ("half", "load"), [("vision_encoder", load_vision_encoder), ("text_decoder", load_text_decoder)]
)
def test_another_model_altogether(half: str, load: Any, models: Any, tmp_path: Path) -> None:
    model = changed(models["original"], tmp_path / "model", half, lambda tensors: tensors.clear())
    with pytest.raises(CheckpointError, match="holds no"):
        load(model)
