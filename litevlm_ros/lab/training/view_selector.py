"""The learned view selector as a torch module: latents, one per camera, that read a question (arXiv 2506.07416)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from litevlm_ros.vision.learned_view_selection import MOST_WORDS, PADDING

_WIDTH, _HEADS, _LAYERS = 32, 4, 2


class ViewSelectorModel(nn.Module):
    """A transformer encoder over the words, whose result the latents attend to."""

    def __init__(self, vocabulary: int, cameras: int) -> None:
        """`vocabulary`: how many words it knows."""
        super().__init__()
        self.words = nn.Embedding(1 + vocabulary, _WIDTH, padding_idx=PADDING)
        self.places = nn.Parameter(0.1 * torch.randn(MOST_WORDS, _WIDTH))
        self.layers = nn.ModuleList(_Block() for _ in range(_LAYERS))
        self.latents = nn.Parameter(torch.randn(cameras, _WIDTH))
        self.reader = _Block()
        self.norm = nn.LayerNorm(_WIDTH)
        self.score = nn.Linear(_WIDTH, 1)

    def forward(self, words: Tensor) -> Tensor:
        """int64 [S], or [B, S] with PADDING behind shorter questions -> logits [C], or [B, C]."""
        text = self.words(words) + self.places[: words.shape[-1]]
        mask = torch.where(words == PADDING, -1e4, 0.0).unsqueeze(-2).unsqueeze(-3)
        for layer in self.layers:
            text = layer(text, text, mask)
        latents = self.latents.expand(*words.shape[:-1], *self.latents.shape)
        return self.score(self.norm(self.reader(latents, text, mask))).squeeze(-1)


class _Block(nn.Module):
    """What asks attends to what is read, then thinks by itself; pre-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(_WIDTH) for _ in range(3))
        self.ask, self.read = nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, 2 * _WIDTH)
        self.give = nn.Linear(_WIDTH, _WIDTH)
        self.think = nn.Sequential(nn.Linear(_WIDTH, 2 * _WIDTH), nn.GELU(), nn.Linear(2 * _WIDTH, _WIDTH))

    def forward(self, asking: Tensor, reading: Tensor, mask: Tensor) -> Tensor:
        """[..., Q, width] and [..., S, width]; `mask` [..., 1, 1, S] is added to the attention's scores."""
        query = _heads(self.ask(self.norms[0](asking)))
        key, value = (_heads(part) for part in self.read(self.norms[1](reading)).chunk(2, dim=-1))
        weights = functional.softmax(query @ key.transpose(-1, -2) * (_WIDTH // _HEADS) ** -0.5 + mask, dim=-1)
        asking = asking + self.give((weights @ value).transpose(-2, -3).flatten(-2))
        return asking + self.think(self.norms[2](asking))


def _heads(rows: Tensor) -> Tensor:
    """[..., S, width] -> [..., heads, S, width / heads]."""
    return rows.unflatten(-1, (_HEADS, _WIDTH // _HEADS)).transpose(-2, -3)
