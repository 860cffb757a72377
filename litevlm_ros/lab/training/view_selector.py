"""The learned view selector as a torch module, its training, and its graph.

One latent vector per camera attends to the question; its logit, added to the lexical score of the camera, decides
whether the view is kept (after arXiv 2506.07416).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.convert.onnx_check import compare
from litevlm_ros.convert.onnx_graphs import export_graph, save_graph
from litevlm_ros.lab.training.view_choices import Choice
from litevlm_ros.types import Notify
from litevlm_ros.vision.learned_view_selection import MOST_WORDS, PADDING, encode_words, split_words, word_rows
from litevlm_ros.vision.view_selection import LexicalSelector

_BATCH = 128
_LEARNING_RATE = 3e-3
_CAUTION = 4.0
"""Weight of leaving out a view that is needed, relative to keeping one that is not."""
_WIDTH, _HEADS, _LAYERS = 32, 4, 2


class ViewSelectorModel(nn.Module):
    """A transformer encoder over the words of a question, and one latent per camera that attends to its output."""

    def __init__(self, vocabulary: int, cameras: int) -> None:
        """Initializes a model that knows `vocabulary` words."""
        super().__init__()
        self.words = nn.Embedding(1 + vocabulary, _WIDTH, padding_idx=PADDING)
        self.places = nn.Parameter(0.1 * torch.randn(MOST_WORDS, _WIDTH))
        self.layers = nn.ModuleList(_Block() for _ in range(_LAYERS))
        self.latents = nn.Parameter(torch.randn(cameras, _WIDTH))
        self.reader = _Block()
        self.norm = nn.LayerNorm(_WIDTH)
        self.score = nn.Linear(_WIDTH, 1)

    def forward(self, words: Tensor) -> Tensor:
        """Returns logits [C] for words int64 [S], or [B, C] for [B, S] with PADDING behind shorter questions."""
        text = self.words(words) + self.places[: words.shape[-1]]
        mask = torch.where(words == PADDING, -1e4, 0.0).unsqueeze(-2).unsqueeze(-3)
        for layer in self.layers:
            text = layer(text, text, mask)
        latents = self.latents.expand(*words.shape[:-1], *self.latents.shape)
        return self.score(self.norm(self.reader(latents, text, mask))).squeeze(-1)


class _Block(nn.Module):
    """A pre-norm transformer block: queries attend to the text, then an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.query_norm, self.text_norm, self.mlp_norm = (nn.LayerNorm(_WIDTH) for _ in range(3))
        self.query, self.key_value = nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, 2 * _WIDTH)
        self.output = nn.Linear(_WIDTH, _WIDTH)
        self.inner, self.outer = nn.Linear(_WIDTH, 2 * _WIDTH), nn.Linear(2 * _WIDTH, _WIDTH)

    def forward(self, queries: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Maps queries [..., Q, width] and text [..., S, width] to [..., Q, width].

        `mask` [..., 1, 1, S] is added to the attention's scores.
        """
        query = _heads(self.query(self.query_norm(queries)))
        key, value = (_heads(part) for part in self.key_value(self.text_norm(text)).chunk(2, dim=-1))
        weights = functional.softmax(query @ key.transpose(-1, -2) * (_WIDTH // _HEADS) ** -0.5 + mask, dim=-1)
        queries = queries + self.output((weights @ value).transpose(-2, -3).flatten(-2))
        return queries + self.outer(functional.gelu(self.inner(self.mlp_norm(queries))))


def _heads(rows: Tensor) -> Tensor:
    """Splits [..., S, width] into [..., heads, S, width / heads]."""
    return rows.unflatten(-1, (_HEADS, _WIDTH // _HEADS)).transpose(-2, -3)


class FoldedSelector(nn.Module):
    """A trained selector for one question without PADDING, in half as many operations. This is what the graph holds.

    The time of a graph this small goes into the number of its operations rather than into their arithmetic. So whatever
    does not depend on the question is computed beforehand, here in float64 or by ONNX Runtime when it loads the graph.
    """

    def __init__(self, model: ViewSelectorModel) -> None:
        """Initializes a selector with the logits of `model`."""
        super().__init__()
        self.words, self.places, self.latents = model.words, model.places, model.latents
        self.layers = nn.ModuleList(_FoldedBlock(cast(_Block, layer)) for layer in model.layers)
        self.reader = _FoldedBlock(model.reader)
        self.score = _linear(*_behind(model.norm, model.score))

    def forward(self, words: Tensor) -> Tensor:
        """Returns logits [C] for words int64 [S]."""
        text = self.words(words) + self.places[: words.shape[0]]
        for layer in self.layers:
            normed = _normed(text)
            text = layer(text, normed, normed)
        read = self.reader(self.latents, _normed(self.latents), _normed(text))
        return self.score(_normed(read)).squeeze(-1)


class _FoldedBlock(nn.Module):
    """A `_Block` whose heads have the normed text itself as their keys and values.

    Let a head have the query Qn + a for a normed row n, the keys Km + b and the values Vm + c for the normed rows m of
    the text, and the output projection O. Its scores are K'(Qn + a) · m, for b adds the same to all of a query's
    scores, which changes no softmax. Its output is OV times the mean of the rows m by their weights, plus Oc, for the
    weights sum up to 1. So K'Q, K'a, OV and Oc are all that it needs.
    """

    def __init__(self, block: _Block) -> None:
        super().__init__()
        query, query_bias = _by_head(*_behind(block.query_norm, block.query))
        key_value, key_value_bias = _behind(block.text_norm, block.key_value)
        key, _ = _by_head(key_value[:_WIDTH], key_value_bias[:_WIDTH])
        value, value_bias = _by_head(key_value[_WIDTH:], key_value_bias[_WIDTH:])
        output = block.output.weight.double().unflatten(1, (_HEADS, -1)).transpose(0, 1)
        key = key.transpose(1, 2) * (_WIDTH // _HEADS) ** -0.5
        self.query = _linear((key @ query).flatten(0, 1), (key @ query_bias).flatten())
        self.output = _linear(
            (output @ value).transpose(0, 1).flatten(1), block.output.bias + (output @ value_bias).sum(0).flatten()
        )
        self.inner, self.outer = _linear(*_behind(block.mlp_norm, block.inner)), block.outer

    def forward(self, queries: Tensor, normed: Tensor, text: Tensor) -> Tensor:
        """Maps queries [Q, width] to [Q, width]. `normed` holds their normed rows, and `text` those of the text."""
        asked = self.query(normed).reshape(-1, _WIDTH)  # the heads of the first row, then those of the second
        read = functional.softmax(asked @ text.T, dim=-1) @ text
        queries = queries + self.output(read.reshape(-1, _HEADS * _WIDTH))
        inner = self.inner(_normed(queries))
        # ONNX Runtime makes one operation of a GELU that is written in this order.
        return queries + self.outer(inner * (torch.erf(inner / 2**0.5) + 1) * 0.5)


def _normed(rows: Tensor) -> Tensor:
    return functional.layer_norm(rows, (_WIDTH,))


def _behind(norm: nn.LayerNorm, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Returns the float64 weight and bias of a layer that maps `_normed` rows as `linear` maps those of `norm`."""
    weight = linear.weight.double()
    return weight * norm.weight, linear.bias + weight @ norm.bias.double()


def _by_head(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Splits the rows of a weight [width, width] and of a bias [width] into [heads, width / heads, width or 1]."""
    return weight.unflatten(0, (_HEADS, -1)), bias.unflatten(0, (_HEADS, -1)).unsqueeze(-1)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Returns a float32 layer with these parameters, [out, in] and [out]."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def vocabulary(choices: Sequence[Choice]) -> list[str]:
    """Returns the words of some questions in alphabetical order."""
    return sorted({word for choice in choices for word in split_words(choice.question)})


def train(
    choices: Sequence[Choice],
    words: Sequence[str],
    steps: int,
    seed: int,
    notify: Notify,
    threads: int = 1,
) -> ViewSelectorModel:
    """Trains a selector for the demo cameras; the same arguments give the same weights.

    `notify` gets a line about the progress now and then. `threads` are PyTorch's CPU threads.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    model = ViewSelectorModel(len(words), len(DEMO_CAMERAS))
    inputs, lexical, needed = _tensors(choices, words)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    threshold = LexicalSelector().threshold
    for step in range(1, steps + 1):
        picked = torch.randint(len(inputs), (_BATCH,))
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
    """Writes the folded graph with the cameras and words that it was trained for.

    Raises EngineError if it does not compute what `model` does; an older graph then stays.
    """
    graph = export_graph(FoldedSelector(model), (torch.ones(5, dtype=torch.int64),), ({0: "S"},), ["words"], ["logits"])
    graph.metadata_props.update({"cameras": json.dumps(DEMO_CAMERAS), "vocabulary": json.dumps(list(words))})
    question = 1 + torch.arange(MOST_WORDS // 2) % len(words)
    with torch.no_grad():
        expected = model(question)
    save_graph(graph, file, lambda made: compare(made, {"words": question}, {"logits": expected}, torch.float32))


def _tensors(choices: Sequence[Choice], words: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the words' rows int64 [n, S], lexical scores [n, C], and 1 for each camera that is needed [n, C]."""
    rows = word_rows(words)
    selector = LexicalSelector()
    encoded = [torch.tensor(encode_words(choice.question, rows)[:MOST_WORDS]) for choice in choices]
    lexical = [[*selector.scores(choice.question, DEMO_CAMERAS).values()] for choice in choices]
    needed = [[float(camera in choice.cameras) for camera in DEMO_CAMERAS] for choice in choices]
    padded = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True, padding_value=PADDING)
    return padded, torch.tensor(lexical), torch.tensor(needed)
