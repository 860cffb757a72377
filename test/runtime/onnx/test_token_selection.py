from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_internvl import model_directory

pytest.importorskip("onnxruntime", reason="runs graphs: pip install 'litevlm_ros[onnxruntime]'")

from litevlm_ros.backend import Backend
from litevlm_ros.config import PipelineConfig, TokenSelectionConfig
from litevlm_ros.convert.checkpoint import load_text_decoder
from litevlm_ros.convert.onnx_graphs import save_graph
from litevlm_ros.convert.token_scorer import TokenScorer, scorer_graph
from litevlm_ros.errors import ConfigError, EngineError, NotFiniteError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import CHECKSUMS
from litevlm_ros.runtime.load import load_backend
from litevlm_ros.runtime.onnx.token_selection import HostVisualTokens
from litevlm_ros.vision.token_selection import choose

TOKENS, WIDTH = 4, 48


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_directory(), tmp_path / "model"))


def load(directory: Path) -> Backend:
    return load_backend(PipelineConfig(directory, backend="onnxruntime"), ModelConfig.from_directory(directory))


def visual(tiles: int) -> HostVisualTokens:
    rows = np.random.default_rng(0).standard_normal((tiles * TOKENS, WIDTH)).astype(np.float32)
    return HostVisualTokens(rows)


def write_scorer(directory: Path, tokens: int = TOKENS) -> Any:
    import torch

    module = TokenScorer(load_text_decoder(directory), tokens)
    torch.nn.init.normal_(module.head.weight, generator=torch.Generator().manual_seed(0))
    save_graph(scorer_graph(module), directory / "token_scorer.onnx")
    return module


@pytest.mark.parametrize("method", ["random", "diversity", "similarity"])
def test_it_gathers_what_is_chosen_in_each_tile(method: str) -> None:
    tokens = visual(3)
    selection = load(model_directory()).token_selector(TokenSelectionConfig(method, 0.5)).select(tokens)
    kept = choose(tokens.rows.reshape(3, TOKENS, WIDTH), method, 2)
    assert selection.places.tolist() == [TOKENS * tile + place for tile in range(3) for place in kept[tile]]
    np.testing.assert_array_equal(selection.visual.rows, tokens.rows[selection.places])  # type: ignore[attr-defined]


def test_the_scorer_keeps_what_its_network_scores_highest(directory: Path) -> None:
    import torch

    module, tokens = write_scorer(directory), visual(5)
    selection = load(directory).token_selector(TokenSelectionConfig("scorer", 0.25)).select(tokens)
    scores = module(torch.from_numpy(tokens.rows.reshape(5, TOKENS, WIDTH)))
    assert selection.places.tolist() == (scores.argmax(1) + TOKENS * torch.arange(5)).tolist()


def test_a_scorer_that_is_missing_or_of_another_model_is_explained(directory: Path) -> None:
    scorer = TokenSelectionConfig("scorer")
    backend = load(directory)
    with pytest.raises(ConfigError, match=rf"{directory}/token_scorer.onnx is missing; train one with `ros2 run"):
        backend.token_selector(scorer)
    write_scorer(directory, tokens=9)
    with pytest.raises(EngineError, match=r"token_scorer.onnx belongs to another model .* train_token_scorer --model"):
        backend.token_selector(scorer)
    (directory / CHECKSUMS).unlink()
    (directory / "token_scorer.onnx").write_bytes(b"nonsense")
    with pytest.raises(EngineError, match=r"token_scorer.onnx cannot be loaded: .* train_token_scorer --model"):
        backend.token_selector(scorer)


def test_scores_that_are_not_finite_name_the_training(directory: Path) -> None:
    import torch

    module = TokenScorer(load_text_decoder(directory), TOKENS)
    torch.nn.init.constant_(module.head.bias, float("nan"))
    save_graph(scorer_graph(module), directory / "token_scorer.onnx")
    selector = load(directory).token_selector(TokenSelectionConfig("scorer", 0.25))
    with pytest.raises(
        NotFiniteError, match=r"token_scorer.onnx is damaged; .* train_token_scorer --model .* to diver"
    ):
        selector.select(visual(2))
