"""The hash of graphs recognises what an engine was built for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_internvl import model_directory

from litevlm_ros.engines import graphs
from litevlm_ros.engines.graphs import block_graphs, graph_hash
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.precision import PRECISIONS


@pytest.fixture(scope="module")
def model() -> ModelConfig:
    return ModelConfig.from_directory(model_directory())


@pytest.mark.parametrize(
    ("part", "names"),
    [(VISION, ["patches", "qkv", "mlp", "projector", "attention"]), (TEXT, ["qkv", "mlp", "head", "attention"])],
)
def test_a_part_has_its_blocks_and_the_fallback_for_attention(part: str, names: list[str], model: ModelConfig) -> None:
    assert [block.name for block in block_graphs(part, "fp16", model)] == names


def test_parts_and_computed_types_have_hashes_of_their_own(model: ModelConfig) -> None:
    hashes = {
        (part, precision): graph_hash(part, precision, model) for part in (VISION, TEXT) for precision in PRECISIONS
    }
    assert len(set(hashes.values())) == 4
    assert hashes[TEXT, "int8"] == hashes[TEXT, "fp16"], "packed weights are computed with in fp16"


@pytest.mark.parametrize("change", [{"hidden_size": 96}, {"rms_norm_eps": 1e-5}, {"vocab_size": 500}])
def test_another_model_has_another_hash(change: dict[str, float], model: ModelConfig) -> None:
    other = replace(model, text=replace(model.text, **change))
    assert graph_hash(TEXT, "fp16", other) != graph_hash(TEXT, "fp16", model)


def test_other_code_has_another_hash(model: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = graph_hash(TEXT, "fp16", model)
    blocks = graphs.text_blocks(model.text, "fp16")
    monkeypatch.setattr(graphs, "text_blocks", lambda *_: (replace(blocks[0], body="  # other\n"), *blocks[1:]))
    assert graph_hash(TEXT, "fp16", model) != before
