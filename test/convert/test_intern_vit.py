from __future__ import annotations

from typing import Any

import pytest
import torch
from published_checkpoints import reference_model, write_original

from litevlm_ros.convert.checkpoint import load_vision_encoder
from litevlm_ros.convert.intern_vit import gelu
from litevlm_ros.vision.tiling import IMAGENET_MEAN, IMAGENET_STD

TOLERANCE = 1e-4


def relative(result: torch.Tensor, expected: torch.Tensor) -> float:
    assert result.shape == expected.shape
    return float((result - expected).abs().max() / expected.abs().max())


def tiles(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 56, 56, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    values = (pixels.float() / 255 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    return values.permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["original", "native"])
def test_every_layer_computes_what_transformers_computes(name: str, models: Any, reference: Any) -> None:
    encoder = load_vision_encoder(models[name])
    pixels = tiles(3)
    tower = reference.model.vision_tower(normalised(pixels), output_hidden_states=True)
    hidden = encoder.embed(pixels)
    width = hidden.shape[-1]
    assert relative(hidden, tower.hidden_states[0].reshape(-1, width)) < TOLERANCE
    for layer, before, expected in zip(encoder.layers, tower.hidden_states, tower.hidden_states[1:], strict=False):
        previous = hidden
        hidden = layer(hidden)
        assert relative(hidden, expected.reshape(-1, width)) < TOLERANCE
        assert relative(hidden, before.reshape(-1, width)) > 0.1, "a layer that does nothing proves nothing"
        assert previous is not hidden
    features = tower.last_hidden_state[:, 1:].reshape(3, 4, 4, width)
    shuffled = reference.model.pixel_shuffle(features, scale_factor=0.5).reshape(12, 4 * width)
    assert relative(encoder.pixel_shuffle(hidden), shuffled) < TOLERANCE


@pytest.mark.parametrize("name", ["original", "native"])
@pytest.mark.parametrize("count", [1, 4])
def test_visual_tokens_equal_transformers(name: str, count: int, models: Any, reference: Any) -> None:
    pixels = tiles(count)
    expected = reference.model.get_image_features(normalised(pixels)).pooler_output
    result = load_vision_encoder(models[name])(pixels)
    assert result.shape == (count, 4, 48)
    assert relative(result, expected) < TOLERANCE


def test_no_qkv_bias(tmp_path: Any) -> None:
    from litevlm_ros.convert.checkpoint_split import split_checkpoint

    model = reference_model(qkv_bias=False)
    split_checkpoint(write_original(model, tmp_path / "whole"), tmp_path / "model")
    pixels = tiles(2)
    expected = model.model.get_image_features(normalised(pixels)).pooler_output
    assert relative(load_vision_encoder(tmp_path / "model")(pixels), expected) < TOLERANCE


def test_tiles_do_not_see_each_other(models: Any) -> None:
    encoder = load_vision_encoder(models["original"])
    pixels = tiles(3)
    torch.testing.assert_close(encoder(pixels)[1:2], encoder(pixels[1:2]))


def test_gelu_is_exact() -> None:
    values = torch.linspace(-6, 6, 1001)
    torch.testing.assert_close(gelu(values), torch.nn.functional.gelu(values))
