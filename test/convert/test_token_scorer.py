from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime", reason="runs graphs: pip install 'litevlm_ros[onnxruntime]'")
torch = pytest.importorskip("torch", reason="exports graphs: pip install 'litevlm_ros[convert]'")

from litevlm_ros.convert.checkpoint import load_text_decoder  # noqa: E402
from litevlm_ros.convert.onnx_graphs import save_graph  # noqa: E402
from litevlm_ros.convert.token_scorer import TokenScorer, scorer_graph  # noqa: E402

TOKENS = 4


def scorer(model: Path) -> TokenScorer:
    module = TokenScorer(load_text_decoder(model), TOKENS)
    torch.manual_seed(0)
    torch.nn.init.normal_(module.head.weight)
    return module.eval()


def visual(module: TokenScorer, tiles: int) -> torch.Tensor:
    width = module.norm.weight.shape[0]
    return torch.randn(tiles, TOKENS, width, generator=torch.Generator().manual_seed(1))


def test_it_starts_as_the_first_layer_and_scores_all_alike(models: dict[str, Path]) -> None:
    decoder = load_text_decoder(models["original"])
    module = TokenScorer(decoder, TOKENS)
    first, copied = decoder.layers[0].state_dict(), module.layer.state_dict()
    assert all(torch.equal(first[name], copied[name]) for name in first)
    assert all(a.data_ptr() != b.data_ptr() for a, b in zip(module.layer.parameters(), decoder.parameters()))  # noqa: B905
    scores = module(visual(module, 2))
    assert scores.shape == (2, TOKENS)
    assert scores.unique().numel() == 1


def test_tiles_are_scored_on_their_own_and_every_token_counts(models: dict[str, Path]) -> None:
    module = scorer(models["original"])
    tiles = visual(module, 3)
    with torch.no_grad():
        scores = module(tiles)
        torch.testing.assert_close(module(tiles[1:2]), scores[1:2], atol=1e-5, rtol=1e-4)
        tiles[1, 3] += 1
        changed = module(tiles)
    assert (changed[1] != scores[1]).all(), "also of the tokens before"
    torch.testing.assert_close(changed[[0, 2]], scores[[0, 2]])


def test_the_graph_computes_it_for_any_number_of_tiles(models: dict[str, Path], tmp_path: Path) -> None:
    module = scorer(models["original"])
    save_graph(scorer_graph(module), tmp_path / "token_scorer.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "token_scorer.onnx")
    for count in (1, 5):
        tiles = visual(module, count)
        (scores,) = session.run(["scores"], {"visual_tokens": tiles.numpy()})
        np.testing.assert_allclose(scores, module(tiles).detach(), atol=1e-4, rtol=1e-4)
