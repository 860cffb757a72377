"""Training of a draft head (EAGLE, arXiv 2401.15077) on recorded answers. The decoder stays as it is.

In use the head reads its own guesses from the second drafted token on. So it is trained in several passes over the same
answers, of which each reads the states that the pass before guessed (as in HASS, arXiv 2408.15766, but for attention,
which sees one pass).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from litevlm_ros.checksums import rewriting
from litevlm_ros.convert.checkpoint import load_text_decoder
from litevlm_ros.convert.draft_head import DraftHead, stored_name
from litevlm_ros.convert.qwen import MASKED
from litevlm_ros.files import replacing
from litevlm_ros.lab.training.draft_features import AnswerStates
from litevlm_ros.model_directory import HEAD_DIRECTORY, WEIGHTS
from litevlm_ros.types import Notify

_PASSES = 3
_BATCH_TOKENS = 256
_LEARNING_RATE = 1e-3
_WARM_UP_STEPS = 50
_LOG_EVERY = 50


@dataclass(frozen=True)
class _Batch:
    """Answers side by side, S tokens in all, with the tokens and hidden states that follow each."""

    tokens: Tensor
    """int64 [S], as `next_tokens`."""
    hidden: Tensor
    """fp32 [S, H], as `next_hidden`."""
    next_tokens: Tensor
    next_hidden: Tensor
    places: Tensor
    """int64 [S]: the place of each token in its answer."""
    mask: Tensor
    """fp32 [S * heads per group, S], as `TextLayer` takes it: a token sees its own answer up to itself."""

    @classmethod
    def of(cls, answers: Sequence[AnswerStates], group: int) -> _Batch:
        """Lays the answers side by side. `group` is the number of query heads that share a key head."""
        lengths = [len(answer.tokens) - 1 for answer in answers]
        places = torch.cat([torch.arange(length) for length in lengths])
        owner = torch.repeat_interleave(torch.arange(len(answers)), torch.tensor(lengths))
        order = torch.arange(len(owner))
        unseen = (owner[:, None] != owner) | (order[:, None] < order)
        return cls(
            torch.cat([answer.tokens[:-1] for answer in answers]),
            torch.cat([answer.hidden[:-1] for answer in answers]).float(),
            torch.cat([answer.tokens[1:] for answer in answers]),
            torch.cat([answer.hidden[1:] for answer in answers]).float(),
            places,
            (unseen * MASKED).unsqueeze(1).expand(-1, group, -1).flatten(0, 1),
        )


class HeadTraining:
    """A training run of a draft head. The same seed gives the same head."""

    def __init__(self, model: Path, seed: int, threads: int = 1) -> None:
        """Starts from the last layer of the decoder in `model`, on that many CPU threads.

        Raises CheckpointError if there is no decoder.
        """
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        self._random = random.Random(seed)
        text = load_text_decoder(model).requires_grad_(False)
        self.head = DraftHead(text)
        # The last layer maps hidden states to hidden states already.
        self.head.layer.load_state_dict(text.layers[-1].state_dict())
        self._group = text.config.num_heads // text.config.num_kv_heads

    def run(self, answers: Sequence[AnswerStates], steps: int, notify: Notify) -> None:
        """Fits the head to the answers in `steps` optimizer steps."""
        answers = [answer for answer in answers if len(answer.tokens) > 1]
        parameters = list(self.head.own.parameters())
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
        waiting: list[AnswerStates] = []
        began = time.monotonic()
        for step in range(1, steps + 1):
            picked: list[AnswerStates] = []
            while sum(len(answer.tokens) for answer in picked) < _BATCH_TOKENS:
                waiting = waiting or self._random.sample(answers, len(answers))
                picked.append(waiting.pop())
            loss = self._loss(_Batch.of(picked, self._group))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            if step % _LOG_EVERY == 0 or step == steps:
                notify(f"step {step} of {steps}: loss {loss.item():.3f}, {time.monotonic() - began:.0f} s")

    @torch.no_grad()
    def accuracy(self, answers: Sequence[AnswerStates]) -> list[float]:
        """Returns the share of right tokens in each pass: of the first, second and third drafted token."""
        right = [0] * _PASSES
        answers = [answer for answer in answers if len(answer.tokens) > 1]
        for first in range(0, len(answers), 32):
            batch = _Batch.of(answers[first : first + 32], self._group)
            for number, states in enumerate(self._passes(batch)):
                right[number] += int((self.head.text.logits(states).argmax(-1) == batch.next_tokens).sum())
        return [count / sum(len(answer.tokens) - 1 for answer in answers) for count in right]

    def save(self, model: Path) -> None:
        """Writes the head's own weights in fp16 below `model`."""
        directory = model / HEAD_DIRECTORY
        directory.mkdir(parents=True, exist_ok=True)
        weights = {stored_name(name): value.half().contiguous() for name, value in self.head.own.state_dict().items()}
        with rewriting(model, HEAD_DIRECTORY), replacing(directory / WEIGHTS) as unfinished:
            save_file(weights, unfinished, {"format": "pt"})

    def _loss(self, batch: _Batch) -> Tensor:
        """Returns cross entropy of the decoder's tokens plus distance from its states, averaged over the passes."""
        losses = [
            functional.cross_entropy(self.head.text.logits(states), batch.next_tokens)
            + functional.smooth_l1_loss(states, batch.next_hidden)
            for states in self._passes(batch)
        ]
        return torch.stack(losses).mean()

    def _passes(self, batch: _Batch) -> list[Tensor]:
        """Returns the hidden states [S, H] that each pass predicts."""
        text = self.head.text
        cos, sin = text.rotary(batch.places, batch.hidden.dtype)
        none = batch.hidden.new_zeros(0, text.config.num_kv_heads, text.config.head_dim)
        guessed: list[Tensor] = []
        hidden = batch.hidden
        for _ in range(_PASSES):
            ahead, _, _ = self.head.layer(self.head.fused(batch.tokens, hidden), cos, sin, batch.mask, none, none)
            guessed.append(text.norm(ahead))
            # The state of an answer's first token is never guessed.
            shifted = torch.cat((hidden[:1], guessed[-1][:-1].detach()))
            hidden = torch.where(batch.places[:, None] == 0, batch.hidden, shifted)
        return guessed


def _rate(step: int, steps: int) -> float:
    """Returns the factor of the learning rate at that step: a warm-up, then a cosine."""
    return min(1.0, (step + 1) / _WARM_UP_STEPS) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
