from __future__ import annotations

from typing import Any

import pytest
import torch

from litevlm_ros.convert.transformers_model import load_transformers


@pytest.mark.parametrize("name", ["original", "native", "native-tied", "original-qwen3"])
def test_it_has_the_weights_of_the_checkpoint(
    name: str, models: Any, reference: Any, tied_reference: Any, qwen3_reference: Any
) -> None:
    references = {"tied": tied_reference, "qwen3": qwen3_reference}
    expected = references.get(name.rpartition("-")[2], reference)
    found = load_transformers(models[name], torch.float32, "cpu")
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[4, 8, 15, 16, 23, 42]])
    with torch.no_grad():
        for module in (found, expected):
            module.features = module.model.get_image_features(
                pixel_values=pixels, vision_feature_layer=-1, vision_feature_select_strategy="default", return_dict=True
            ).pooler_output
            module.logits = module.lm_head(module.model.language_model(input_ids=ids).last_hidden_state)
    torch.testing.assert_close(found.features, expected.features, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)


def test_half_precision_keeps_the_rotary_frequencies(models: Any) -> None:
    found = load_transformers(models["native"], torch.float16, "cpu")
    assert found.lm_head.weight.dtype == torch.float16
    assert found.model.language_model.rotary_emb.inv_freq.dtype == torch.float32
