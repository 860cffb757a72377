from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from litevlm_ros.lab.training.view_choices import training_choices
from litevlm_ros.lab.training.view_selector import ViewSelectorModel
from litevlm_ros.lab.training.view_selector_training import save, train, vocabulary
from litevlm_ros.vision.learned_view_selection import PADDING, LearnedSelector, encode_words
from litevlm_ros.vision.view_selection import LexicalSelector

SIX = ("front", "front_left", "front_right", "back", "back_left", "back_right")


@pytest.mark.slow
def test_a_short_training_learns_what_lexical_selection_cannot_know(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="runs the graph")
    torch.set_num_threads(1)
    choices = training_choices(scenes=40, seed=0)
    words, notes = vocabulary(choices), []
    file = tmp_path / "selector.onnx"
    save(train(choices, words, steps=120, seed=0, notify=notes.append), words, file)
    again = train(choices, words, steps=2, seed=1, notify=notes.append).state_dict()
    same = train(choices, words, steps=2, seed=1, notify=notes.append).state_dict()
    assert all(torch.equal(again[name], same[name]) for name in same), "seeded"
    assert "step 120: loss" in notes[0]

    selector = LearnedSelector(file, LexicalSelector())
    assert selector.cameras == SIX
    assert selector.select("Should we stop?", SIX) == ("front",)
    assert LexicalSelector().select("Should we stop?", SIX) == SIX
    assert selector.select("Is there a crossing behind us?", SIX) == ("back",)
    assert selector.select("How many cars are there around us?", SIX) == SIX


def test_the_graph_gives_the_modules_logits_and_fits_old_runtimes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="runs the graph")
    torch.manual_seed(0)
    model, words, file = ViewSelectorModel(3, len(SIX)).eval(), ["a", "b", "c"], tmp_path / "selector.onnx"
    save(model, words, file)
    graph = onnx.load(file)
    assert graph.opset_import[0].version == 17
    assert file.stat().st_size < 200_000
    selector = LearnedSelector(file, LexicalSelector())
    for text in ("a", "c b a", "b " * 48):
        rows = encode_words(text, {"a": 1, "b": 2, "c": 3})
        with torch.no_grad():
            expected = model(torch.tensor(rows))
        torch.testing.assert_close(torch.from_numpy(selector.logits(rows)), expected, rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    model = ViewSelectorModel(5, 6).eval()
    padded = torch.tensor([[2, 3, PADDING, PADDING], [5, 1, 4, 3]])
    with torch.no_grad():
        torch.testing.assert_close(model(padded)[0], model(torch.tensor([2, 3])), rtol=1e-4, atol=1e-5)
        assert model(padded).shape == (2, 6)
