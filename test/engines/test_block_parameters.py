"""Every run of a block has a parameter for each of its weights, and every parameter is in one run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from litevlm_ros.engines.block_parameters import POSITIONS, BlockParameter, embedding, text_runs, vision_runs
from litevlm_ros.engines.text_blocks import text_blocks
from litevlm_ros.engines.vision_blocks import vision_blocks
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig

VISION = VisionConfig(32, 64, 3, 2, 56, 14)
TEXT = TextConfig(48, 80, 3, 6, 2, 8, 1e-6, 1e4, 97, False, 512)
MODEL = ModelConfig(VISION, TEXT, "Hermes-2", True, 12)


def names(runs: tuple[tuple[BlockParameter, ...], ...]) -> list[str]:
    return [parameter.name for run in runs for parameter in run]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_each_layer_is_a_run_of_qkv_and_one_of_mlp(layers: int) -> None:
    model = replace(MODEL, vision=replace(VISION, num_layers=layers), text=replace(TEXT, num_layers=layers))
    for runs, (*first, qkv, mlp, last) in (
        (vision_runs(model, "fp16"), vision_blocks(model, "fp16")),
        (text_runs(model.text, "bf16"), text_blocks(model.text, "bf16")),
    ):
        graphs = [*first, *[qkv, mlp] * layers, last]
        assert [tuple(parameter.tensor for parameter in run) for run in runs] == [graph.weights for graph in graphs]
        assert len(names(runs)) == len(set(names(runs)))
        of_each = {index: sum(f"layers.{index}." in name for name in names(runs)) for index in range(layers)}
        assert set(of_each.values()) == {14 if "patch_embedding.weight" in names(runs) else 7}


def test_a_model_has_the_biases_and_norms_that_its_architecture_has() -> None:
    qwen3 = replace(TEXT, qkv_bias=False, qk_norm=True)
    first, *_ = text_runs(qwen3, "fp16")
    assert [each.name.removeprefix("layers.0.") for each in first] == [
        "input_norm.weight", "qkv.weight", "q_norm.weight", "k_norm.weight"
    ]  # fmt: skip
    assert {each.shape for each in first[2:]} == {(8,)}


def test_a_run_reads_the_parameters_of_its_own_layer() -> None:
    _, *layers, _ = vision_runs(MODEL, "fp16")
    found = [{parameter.tensor.name: parameter.name for parameter in run} for run in layers]
    assert found[2]["norm1_bias"] == "layers.1.norm1.bias"
    assert found[2]["qkv_weight"] == "layers.1.qkv.weight"
    assert found[3]["fc1"] == "layers.1.fc1.weight"
    assert found[3]["scale2"] == "layers.1.ls2"
    *layers, _ = text_runs(TEXT, "fp16")
    found = [{parameter.tensor.name: parameter.name for parameter in run} for run in layers]
    assert found[4]["input_norm"] == "layers.2.input_norm.weight"
    assert found[5]["post_norm"] == "layers.2.post_norm.weight"


@pytest.mark.parametrize(
    ("precision", "matrix", "behind"), [("fp16", "float16", "float"), ("bf16",) + ("bfloat16",) * 2]
)
def test_types_are_those_of_matrices_of_what_follows_them_and_of_norms(
    precision: str, matrix: str, behind: str
) -> None:
    """Biases and factors, which follow a product, have the type of `Body.wide`."""
    for run in (*vision_runs(MODEL, precision), *text_runs(TEXT, precision)):
        for parameter in run:
            is_wide = "norm" in parameter.name or parameter.name == POSITIONS
            expected = "float" if is_wide else matrix if len(parameter.shape) == 2 else behind
            assert parameter.tensor.type == expected, parameter
            if parameter.name.endswith(".bias") and not is_wide:
                assert parameter.tensor.shape == (1, *parameter.shape)


def test_padding_is_known() -> None:
    (patches,) = (each for each in vision_runs(MODEL, "fp16")[0] if each.tensor.name == "patch_embedding")
    assert (patches.shape, patches.tensor.shape) == ((32, 588), (32, 592))
    (head,) = (each for each in text_runs(TEXT, "fp16")[-1] if each.tensor.name == "head")
    assert (head.name, head.shape, head.tensor.shape) == ("lm_head.weight", (97, 48), (104, 48))
    table = embedding(TEXT, "bf16")
    assert (table.name, table.shape, table.tensor.shape, table.tensor.type) == (
        "embed_tokens.weight", (97, 48), (104, 48), "bfloat16"
    )  # fmt: skip
    tied = text_runs(replace(TEXT, tie_word_embeddings=True), "fp16")[-1]
    assert [each.name for each in tied if each.tensor.name == "head"] == ["embed_tokens.weight"]
    others = [each for run in vision_runs(MODEL, "fp16") for each in run if each != patches]
    assert all(each.shape == each.tensor.shape or (1, *each.shape) == each.tensor.shape for each in others)
