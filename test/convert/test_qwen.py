from __future__ import annotations

from typing import Any

import pytest
import torch

from litevlm_ros.convert.checkpoint import load_text_decoder
from litevlm_ros.convert.qwen import MASKED, QwenDecoder, RMSNorm

TOLERANCE = 1e-4


def relative(result: torch.Tensor, expected: torch.Tensor) -> float:
    assert result.shape == expected.shape
    return float((result - expected).abs().max() / expected.abs().max())


def empty_cache(decoder: QwenDecoder, rows: int = 4) -> list[torch.Tensor]:
    config = decoder.config
    return [torch.zeros(rows, config.num_kv_heads, config.head_dim) for _ in range(config.num_layers)]


def prefill(decoder: QwenDecoder, ids: torch.Tensor, rows: int = 4) -> Any:
    count = torch.arange(len(ids))
    visual = torch.zeros(1, decoder.config.hidden_size)
    cache = empty_cache(decoder, rows)
    return decoder(ids, count, torch.tensor([0]), count, visual, cache, cache)


@pytest.mark.parametrize("name", ["original", "native", "original-qwen3", "native-qwen3"])
def test_every_layer_computes_what_transformers_computes(
    name: str, models: Any, reference: Any, qwen3_reference: Any
) -> None:
    if "qwen3" in name:
        reference = qwen3_reference
    decoder = load_text_decoder(models[name])
    seen: list[torch.Tensor] = []
    for layer in decoder.layers:
        layer.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))
    ids = torch.tensor([4, 8, 15, 16, 23, 42])
    logits, best, hidden, new_keys, new_values = prefill(decoder, ids)
    assert relative(decoder.logits(hidden), logits) == 0
    expected = reference.model.language_model(input_ids=ids[None], output_hidden_states=True, use_cache=True)
    for index, hidden in enumerate(seen[:-1]):  # transformers returns the last layer's output after the final norm
        assert relative(hidden, expected.hidden_states[index + 1][0]) < TOLERANCE
        assert relative(hidden, expected.hidden_states[index][0]) > 0.1
    assert relative(decoder.norm(seen[-1]), expected.last_hidden_state[0]) < TOLERANCE
    for index, (key, value) in enumerate(zip(new_keys, new_values, strict=True)):
        cached = expected.past_key_values.layers[index]
        assert relative(key, cached.keys[0].transpose(0, 1)) < TOLERANCE
        assert relative(value, cached.values[0].transpose(0, 1)) < TOLERANCE
    expected_logits = reference.lm_head(expected.last_hidden_state)[0]
    assert relative(logits, expected_logits) < TOLERANCE
    assert best.tolist() == expected_logits.argmax(-1).tolist()


@pytest.mark.parametrize("name", ["original", "native", "original-tied", "native-tied", "native-qwen3"])
def test_a_conversation_with_the_cache_equals_the_whole_sequence_anew(
    name: str, models: Any, reference: Any, tied_reference: Any, qwen3_reference: Any, conversation: Any
) -> None:
    references = {"tied": tied_reference, "qwen3": qwen3_reference}
    errors = conversation(load_text_decoder(models[name]), references.get(name.rpartition("-")[2], reference))
    assert len(errors) == 7
    assert max(errors.values()) < TOLERANCE, errors


def test_qwen3_norms_the_heads_and_has_no_biases(models: Any) -> None:
    decoder = load_text_decoder(models["original-qwen3"])
    names = set(dict(decoder.named_parameters()))
    assert {"layers.2.q_norm.weight", "layers.2.k_norm.weight"} <= names
    assert not any(name.endswith("bias") for name in names)
    assert decoder.layers[0].q_norm.weight.shape == (16,)
    assert decoder.layers[0].o_proj.weight.shape == (48, 6 * 16)


def test_qwen2_for_causal_lm_directory(reference: Any, models: Any, tmp_path: Any, conversation: Any) -> None:
    from transformers import Qwen2ForCausalLM

    plain = Qwen2ForCausalLM(reference.config.text_config)
    plain.model.load_state_dict(reference.model.language_model.state_dict())
    plain.lm_head.load_state_dict(reference.lm_head.state_dict())
    (tmp_path / "vision_encoder").symlink_to(models["original"] / "vision_encoder")
    plain.save_pretrained(tmp_path / "text_decoder")
    errors = conversation(load_text_decoder(tmp_path), reference)
    assert max(errors.values()) < TOLERANCE, errors


def test_a_cache_of_no_rows_is_a_cache_without_valid_rows(models: Any) -> None:
    decoder = load_text_decoder(models["original"])
    ids = torch.tensor([1, 2, 3])
    torch.testing.assert_close(prefill(decoder, ids, rows=0)[0], prefill(decoder, ids, rows=6)[0])


def test_half_precision_survives_keys_of_great_size() -> None:
    """Qwen2's key biases reach hundreds: norms, scores and softmax must not overflow in fp16."""
    from litevlm_ros.model_config import TextConfig

    torch.manual_seed(0)
    config = TextConfig(64, 96, 2, 4, 2, 16, 1e-6, 1e6, 50, True, 512)
    decoder = QwenDecoder(config).eval()
    for layer in decoder.layers:
        layer.qkv.bias[:96] = 60 * torch.randn(96)
        layer.down.weight *= 100
    half = QwenDecoder(config).eval().half()
    half.load_state_dict(decoder.state_dict())
    ids, order, cache = torch.arange(9), torch.arange(9), empty_cache(decoder)
    visual = torch.zeros(1, 64)
    expected = decoder(ids, order, torch.tensor([0]), order, visual, cache, cache)[0]
    halves = [part.half() for part in cache]
    logits = half(ids, order, torch.tensor([0]), order, visual.half(), halves, halves)[0]
    assert logits.dtype == torch.float32
    assert relative(logits, expected) < 3e-2


def test_masked_is_finite_in_fp16_and_vanishes_in_softmax() -> None:
    scores = torch.tensor([0.0, MASKED], dtype=torch.float16)
    assert scores.isfinite().all()
    assert scores.float().softmax(-1).tolist() == [1.0, 0.0]


def test_rms_norm_of_great_values_in_fp16() -> None:
    norm = RMSNorm(8, 1e-6).half()
    result = norm(torch.full((1, 8), 6e4, dtype=torch.float16))
    torch.testing.assert_close(result, torch.ones(1, 8, dtype=torch.float16))
