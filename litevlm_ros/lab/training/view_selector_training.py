"""Trains the learned view selector and writes its graph."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from litevlm_ros.convert.onnx_graphs import export_graph, save_graph
from litevlm_ros.lab.training.view_choices import Choice
from litevlm_ros.lab.training.view_selector import ViewSelectorModel
from litevlm_ros.lab.world.scene import CAMERAS
from litevlm_ros.vision.learned_view_selection import MOST_WORDS, PADDING, encode_words, split_words, word_rows
from litevlm_ros.vision.view_selection import LexicalSelector

BATCH = 128
_LEARNING_RATE = 3e-3
_CAUTION = 4.0
"""How much worse it is to leave out a view that is needed than to keep one that is not."""


def vocabulary(choices: Sequence[Choice]) -> list[str]:
    """The words of some questions, in the alphabet's order."""
    return sorted({word for choice in choices for word in split_words(choice.question)})


def train(
    choices: Sequence[Choice], words: Sequence[str], steps: int, seed: int, notify: Callable[[str], object]
) -> ViewSelectorModel:
    """A selector for the demo cameras. `notify` is given a line now and then. The same arguments give the same."""
    torch.manual_seed(seed)
    model = ViewSelectorModel(len(words), len(CAMERAS))
    inputs, lexical, needed = _tensors(choices, words)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    threshold = LexicalSelector().threshold
    for step in range(1, steps + 1):
        picked = torch.randint(len(inputs), (BATCH,))
        # The sum is what selection compares with its threshold.
        longest = int((inputs[picked] != PADDING).sum(1).max())
        margin = model(inputs[picked, :longest]) + lexical[picked] - threshold
        loss = functional.binary_cross_entropy_with_logits(margin, needed[picked], pos_weight=torch.tensor(_CAUTION))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0 or step == steps:
            wrong = ((margin > 0) != (needed[picked] > 0)).any(1).float().mean()
            notify(f"step {step}: loss {loss.item():.5f}, {100 * wrong.item():.1f} % of the batch chosen wrong")
    return model.eval()


def save(model: ViewSelectorModel, words: Sequence[str], file: Path) -> None:
    """Writes the graph with the cameras and words that it was trained for."""
    graph = export_graph(model, (torch.ones(5, dtype=torch.int64),), ({0: "S"},), ["words"], ["logits"])
    graph.metadata_props.update({"cameras": json.dumps(CAMERAS), "vocabulary": json.dumps(list(words))})
    save_graph(graph, file)


def _tensors(choices: Sequence[Choice], words: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of words int64 [n, S], lexical scores [n, C], and 1 for each camera that is needed [n, C]."""
    rows = word_rows(words)
    selector = LexicalSelector()
    encoded = [torch.tensor(encode_words(choice.question, rows)[:MOST_WORDS]) for choice in choices]
    lexical = [[*selector.scores(choice.question, CAMERAS).values()] for choice in choices]
    needed = [[float(camera in choice.cameras) for camera in CAMERAS] for choice in choices]
    padded = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True, padding_value=PADDING)
    return padded, torch.tensor(lexical), torch.tensor(needed)
