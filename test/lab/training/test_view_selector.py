from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

pytest.importorskip("onnxruntime", reason="runs the graph")

from litevlm_ros.convert import onnx_check
from litevlm_ros.convert.onnx_graphs import export_graph, save_graph
from litevlm_ros.errors import EngineError
from litevlm_ros.lab.training import view_selector
from litevlm_ros.lab.training.view_choices import Choice, training_choices
from litevlm_ros.lab.training.view_selector import ViewSelectorModel, save, train, vocabulary
from litevlm_ros.vision.learned_view_selection import PADDING, LearnedSelector, encode_words, word_rows
from litevlm_ros.vision.view_selection import LexicalSelector
from litevlm_ros.vision.view_selector_graph import ViewSelectorGraph

SIX = ("front", "front_left", "front_right", "back", "back_left", "back_right")


@pytest.fixture(scope="module")
def choices() -> list[Choice]:
    return training_choices(scenes=40, seed=0)


@pytest.fixture(scope="module")
def trained(choices: list[Choice], tmp_path_factory: pytest.TempPathFactory) -> tuple[ViewSelectorModel, Path]:
    """A selector after a short training on small batches, and its graph."""
    words = vocabulary(choices)
    notes: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view_selector, "_BATCH", 48)
        model = train(choices, words, steps=160, seed=0, notify=notes.append)
    assert "step 160: loss" in notes[0]
    file = tmp_path_factory.mktemp("selector") / "selector.onnx"
    save(model, words, file)
    return model, file


@pytest.mark.slow
def test_a_short_training_learns_what_lexical_selection_cannot_know(trained: tuple[ViewSelectorModel, Path]) -> None:
    selector = LearnedSelector(trained[1], LexicalSelector())
    assert selector.cameras == SIX
    assert selector.select("Should we stop?", SIX) == ("front",)
    assert LexicalSelector().select("Should we stop?", SIX) == SIX
    assert selector.select("Is there a crossing behind us?", SIX) == ("back",)
    assert selector.select("How many cars are there around us?", SIX) == SIX


def test_training_is_seeded(choices: list[Choice]) -> None:
    words = vocabulary(choices)
    same = [train(choices[:40], words, 2, 1, lambda line: None).state_dict() for _ in range(2)]
    other = train(choices[:40], words, 2, 2, lambda line: None).state_dict()
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0])
    assert any(not torch.equal(same[0][name], other[name]) for name in other)


def test_the_graph_gives_the_modules_logits_and_fits_old_runtimes(
    choices: list[Choice], trained: tuple[ViewSelectorModel, Path]
) -> None:
    model, file = trained
    words = vocabulary(choices)
    graph = onnx.load(file)
    assert graph.opset_import[0].version == 17
    assert file.stat().st_size < 200_000
    selector = ViewSelectorGraph(file)
    for text in (words[0], " ".join(words[:3]), f"{words[1]} " * 48):
        rows = encode_words(text, word_rows(words))
        with torch.no_grad():
            expected = model(torch.tensor(rows))
        torch.testing.assert_close(torch.tensor(selector.logits(rows)), expected, rtol=1e-4, atol=1e-4)


def test_the_folded_graph_chooses_as_one_of_the_whole_module(
    choices: list[Choice], trained: tuple[ViewSelectorModel, Path], tmp_path: Path
) -> None:
    model, file = trained
    whole = export_graph(model, (torch.ones(5, dtype=torch.int64),), ({0: "S"},), ["words"], ["logits"])
    whole.metadata_props.update({entry.key: entry.value for entry in onnx.load(file).metadata_props})
    save_graph(whole, tmp_path / "whole.onnx")
    assert len(onnx.load(file).graph.node) < 0.75 * len(list(whole.graph))
    folded, unfolded = (LearnedSelector(one, LexicalSelector()) for one in (file, tmp_path / "whole.onnx"))
    for question in {choice.question for choice in choices}:
        assert folded.select(question, SIX) == unfolded.select(question, SIX), question


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    model = ViewSelectorModel(5, 6).eval()
    padded = torch.tensor([[2, 3, PADDING, PADDING], [5, 1, 4, 3]])
    with torch.no_grad():
        torch.testing.assert_close(model(padded)[0], model(torch.tensor([2, 3])), rtol=1e-4, atol=1e-5)
        assert model(padded).shape == (2, 6)


def test_a_graph_that_computes_something_else_is_not_written(
    trained: tuple[ViewSelectorModel, Path], choices: list[Choice], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(onnx_check.TOLERANCE, torch.float32, 1e-12)
    with pytest.raises(EngineError, match="logits is off by"):
        save(trained[0], vocabulary(choices), tmp_path / "selector.onnx")
    assert not list(tmp_path.iterdir())
