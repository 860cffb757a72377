"""The text blocks compute what the torch module computes, from whose checkpoint their weights are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from block_runs import Array, BlockRunner, relative, run_blocks

torch = pytest.importorskip("torch", reason="the reference is a torch module: pip install 'litevlm_ros[convert]'")

from litevlm_ros.convert.qwen import QwenDecoder, rotate  # noqa: E402
from litevlm_ros.engines.block_parameters import text_runs  # noqa: E402
from litevlm_ros.engines.text_blocks import padded_vocabulary, qkv_width, text_blocks  # noqa: E402
from litevlm_ros.model_config import TextConfig  # noqa: E402

TEXT = TextConfig(48, 96, 3, 4, 2, 12, 1e-6, 1e6, 101, True, 512)
QWEN3 = replace(TEXT, head_dim=24, qkv_bias=False, qk_norm=True)
NEW = 5

TOLERANCES = {"fp16": 1e-3, "bf16": 1e-6}
"""Precision → largest relative error. Roundings of fp16 make 3.5e-4. Blocks in bf16 run in fp32: see block_runs.py."""


@pytest.mark.parametrize("config", [TEXT, replace(TEXT, tie_word_embeddings=False), replace(TEXT, num_layers=2), QWEN3])
@pytest.mark.parametrize("precision", TOLERANCES)
def test_all_layers_equal_the_torch_module(config: TextConfig, precision: str) -> None:
    torch.manual_seed(2)
    module = QwenDecoder(config)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() == 2 else 0.5
            parameter.copy_((scale * torch.randn(parameter.shape)).half().float())
        ids, positions = torch.randint(0, config.vocab_size, (NEW,)), torch.arange(NEW)
        empty = [torch.zeros(0, config.num_kv_heads, config.head_dim)] * config.num_layers
        past, visual = torch.tensor([0]), torch.zeros(1, config.hidden_size)
        expected = module(ids, positions, past, positions, visual, empty, empty)[0].numpy()
        embedded = module.embed(ids, visual).numpy()
    parameters = {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}
    logits = run_blocks(
        text_blocks(config, precision),
        text_runs(config, precision),
        parameters,
        {"sum": embedded},
        lambda index, qkv: _attend(module, index, qkv),
    )
    assert logits.shape == (NEW, padded_vocabulary(config))
    assert relative(logits[:, : config.vocab_size], expected) < TOLERANCES[precision]
    assert np.all(logits[:, config.vocab_size :] == 0), "the rows behind the vocabulary are zero"


def _attend(module: Any, index: int, qkv: Array) -> Array:
    config = module.config
    assert qkv.shape == (NEW, qkv_width(config))
    heads = torch.tensor(qkv).float().reshape(NEW, -1, config.head_dim)
    split = [config.num_heads, config.num_kv_heads, config.num_kv_heads]
    query, key, value = heads.split(split, 1)
    cos, sin = module.rotary(torch.arange(NEW), torch.float32)
    empty = torch.zeros(0, config.num_kv_heads, config.head_dim)
    mask = module.mask(NEW, torch.tensor([0]), 0)
    mixed = module.layers[index].attention(rotate(query, cos, sin), rotate(key, cos, sin), value, mask, empty, empty)
    return np.asarray(mixed)


def test_the_sum_over_the_layers_passes_the_largest_number_of_fp16() -> None:
    """That of Qwen2-1.5B does, which is why it is fp32. So is a change of it, which may pass that number too."""
    qkv, mlp, head = map(BlockRunner, text_blocks(TEXT, "fp16"))
    rng = np.random.default_rng(3)
    weights = {
        tensor.name: 0.1 * rng.standard_normal(tensor.shape)
        for block in text_blocks(TEXT, "fp16")
        for tensor in block.weights
    }
    total, change = (1e6 * rng.standard_normal((NEW, TEXT.hidden_size)).astype(np.float32) for _ in range(2))
    residual, packed = qkv(weights, sum=total, change=change)
    assert relative(residual, total + change) < 1e-6
    assert np.isfinite(packed).all()
    attention = rng.standard_normal((NEW, TEXT.num_heads * TEXT.head_dim))
    next_total, _ = mlp(weights, attention=attention, residual=residual)
    assert relative(next_total, residual) < 1e-3
    (logits,) = head(weights, sum=next_total, change=change)
    assert np.isfinite(logits).all()


def test_one_mlp_passes_the_largest_number_of_fp16() -> None:
    _, block, _ = text_blocks(TEXT, "fp16")
    weights = {tensor.name: np.ones(tensor.shape) for tensor in block.weights}
    weights["down"] = np.full(weights["down"].shape, 4.0)
    attention, residual = np.zeros((NEW, TEXT.num_heads * TEXT.head_dim)), np.ones((NEW, TEXT.hidden_size))
    _, change = BlockRunner(block)(weights, attention=attention, residual=residual)
    # Each gate and each value is the sum of as many ones as there are columns: silu(48) * 48, times 96 rows, times 4.
    np.testing.assert_allclose(change, 4.0 * TEXT.intermediate_size * TEXT.hidden_size**2, rtol=1e-3)
    assert change.min() > np.finfo(np.float16).max


@pytest.mark.parametrize("config", [TEXT, QWEN3])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_graphs_are_sound_and_leave_only_the_rows_open(config: TextConfig, precision: str) -> None:
    for block in text_blocks(config, precision):
        graph = onnx.load_from_string(block.serialized())
        onnx.checker.check_model(graph, full_check=True)
        sizes = {size.dim_param for value in graph.graph.input for size in value.type.tensor_type.shape.dim}
        assert sizes == {"R", ""}
        assert not graph.graph.initializer, "weights are inputs"
