"""Training of the token scorer, which tells the visual tokens that can go without changing what the model answers.

The decoder stays frozen and is its own teacher. Tokens are dropped softly: the attention of all layers to a visual
token is multiplied by a gate from 0 to 1, whose sum over each tile is the budget, and the loss is how far the answers
then are from those that read everything (relaxed selection after arXiv 1611.00712).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.convert.qwen import MASKED, QwenDecoder
from litevlm_ros.convert.token_scorer import TokenScorer
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.training.packing import IGNORED, Vocabulary, picture, single_view_pack
from litevlm_ros.lab.world.scene import generate
from litevlm_ros.lab.world.splits import token_scorer_seed
from litevlm_ros.model_directory import TEXT
from litevlm_ros.types import Notify

_LEAST_SHARE, _MOST_SHARE = 0.1, 0.5
"""Budgets that are trained for, as shares of a tile's tokens."""
_LEAST_GATE = 1e-4
_FIRST_TEMPERATURE, _LAST_TEMPERATURE = 0.6, 0.2
_WARM_UP_STEPS = 10
_BISECTIONS = 24
_NOTE_EVERY = 10


@dataclass(frozen=True)
class ScorerTraining:
    """Settings of a run. Building them raises ConfigError for values that cannot work."""

    model: Path
    """Model directory; its two checkpoints are read and stay as they are."""
    steps: int
    views: int
    """Views per step, each of another scene."""
    learning_rate: float
    seed: int
    threads: int = 1
    """CPU threads of PyTorch."""

    def __post_init__(self) -> None:
        token_scorer_seed(self.seed)
        for name in ("steps", "views", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; allowed: above 0. Leave it out for the default")


def train_scorer(training: ScorerTraining, notify: Notify) -> TokenScorer:
    """Trains a scorer and returns it. `notify` gets a line about the progress now and then. Raises CheckpointError."""
    torch.set_num_threads(training.threads)
    torch.manual_seed(training.seed)
    vision, decoder = load_vision_encoder(training.model), load_text_decoder(training.model)
    for module in (vision, decoder):
        module.requires_grad_(False)
    scorer = TokenScorer(decoder, vision.config.tokens_per_tile)
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=training.learning_rate, weight_decay=0.01)
    views = _views(training, vision.config.image_size)
    began, losses = time.monotonic(), []
    for step in range(training.steps):
        done = step / training.steps
        rate = min(1, (step + 1) / _WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * rate
        temperature = _FIRST_TEMPERATURE * (_LAST_TEMPERATURE / _FIRST_TEMPERATURE) ** done
        optimizer.zero_grad()
        for _ in range(training.views):
            pixels, ids, targets, segment, positions = next(views)
            with torch.no_grad():
                visual = vision(pixels)
            share = float(torch.empty(()).uniform_(_LEAST_SHARE, _MOST_SHARE))
            gates = soft_choice(scorer(visual), share, temperature)
            answers = targets != IGNORED
            rows = visual.flatten(0, 1)
            with torch.no_grad():
                wanted = read(decoder, ids, segment, positions, rows)[answers].log_softmax(-1)
            found = read(decoder, ids, segment, positions, rows, gates.flatten())[answers].log_softmax(-1)
            loss = functional.kl_div(found, wanted, reduction="batchmean", log_target=True)
            (loss / training.views).backward()
            losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(scorer.parameters(), 1.0)
        optimizer.step()
        if step % _NOTE_EVERY == _NOTE_EVERY - 1:
            notify(f"step {step + 1}: loss {np.mean(losses):.4f}, {time.monotonic() - began:.0f} s")
            losses.clear()
    return scorer.eval()


def soft_choice(scores: Tensor, share: float, temperature: float) -> Tensor:
    """Returns gates [N, T] from 0 to 1 for scores [N, T], which in each tile add up to `share` of its tokens.

    Logistic noise makes training explore; a lower `temperature` brings the gates closer to 0 and 1. The gradient
    respects the budget: a gate can open only as far as others close.
    """
    uniform = torch.rand_like(scores).clamp(1e-6, 1 - 1e-6)
    noisy = (scores + uniform.logit()) / temperature
    low, high = noisy.detach().amin(1, keepdim=True) - 20, noisy.detach().amax(1, keepdim=True) + 20
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        too_many = (noisy.detach() - middle).sigmoid().mean(1, keepdim=True) > share
        low, high = torch.where(too_many, middle, low), torch.where(too_many, high, middle)
    level = (low + high) / 2
    gates = (noisy.detach() - level).sigmoid()
    slopes = gates * (1 - gates)
    shift = (slopes * noisy).sum(1, keepdim=True) / slopes.sum(1, keepdim=True).clamp(min=1e-6)
    return (noisy - level - (shift - shift.detach())).sigmoid()


def read(
    decoder: QwenDecoder, ids: Tensor, segment: Tensor, positions: Tensor, visual: Tensor, gates: Tensor | None = None
) -> Tensor:
    """Returns logits [s, vocabulary] of one packed sequence.

    `visual` [M, H] are the rows that ids from the vocabulary's size on address; `gates` [M] scale attention to them.
    """
    order = torch.arange(len(ids))
    seen = (order[:, None] >= order) & ((segment == 0) | (segment[:, None] == segment))
    mask = torch.where(seen, 0.0, MASKED)
    if gates is not None:
        vocabulary = decoder.config.vocab_size
        rows = (ids - vocabulary).clamp(min=0)
        mask = mask + torch.where(ids >= vocabulary, gates[rows].clamp(min=_LEAST_GATE).log(), 0.0)
    group = decoder.config.num_heads // decoder.config.num_kv_heads
    mask = mask.unsqueeze(1).expand(-1, group, -1).reshape(-1, len(ids))
    hidden = decoder.embed(ids, visual)
    cos, sin = decoder.rotary(positions, hidden.dtype)
    no_past = hidden.new_zeros(0, decoder.config.num_kv_heads, decoder.config.head_dim)
    for layer in decoder.layers:
        hidden, _, _ = layer(hidden, cos, sin, mask, no_past, no_past)
    logits: Tensor = decoder.lm_head(decoder.norm(hidden))
    return logits


def _views(training: ScorerTraining, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Yields pixels [1, size, size, 3], and ids, targets, segments and positions [s] of questions about that view.

    One view at a time, whose few tokens then answer for all that is asked: several would teach less in the same time.
    """
    words = Vocabulary.of(Tokenizer.from_file(str(training.model / TEXT / "tokenizer.json")))
    for seed in itertools.count(token_scorer_seed(training.seed)):
        scene, rng = generate(seed), np.random.default_rng((seed, 3))
        camera = DEMO_CAMERAS[int(rng.integers(len(DEMO_CAMERAS)))]
        pack = single_view_pack(scene, camera, words, rng)
        used = pack.segment >= 0
        ids, targets, segment, positions = (
            torch.from_numpy(row[used]).long() for row in (pack.ids, pack.targets, pack.segment, pack.positions)
        )
        yield torch.tensor(picture(scene, camera, size, rng)).unsqueeze(0), ids, targets, segment, positions
