"""The stages of an answer by transformers' classes, with the weights, tiles and token ids of our pipeline.

Two ways: 'eager' with a cache that grows, and 'compiled' with a static cache and `torch.compile`, which makes CUDA
graphs of the vision encoder and of a decode step, as transformers' own documentation does. The loops around them are
leaner than `generate`: tokens stay on the device until the answer is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litevlm_ros.backend import Tiles, TokenIds
from litevlm_ros.convert.transformers_model import load_transformers
from litevlm_ros.lab.benchmarking.stages import Workload
from litevlm_ros.vision.tiling import IMAGENET_MEAN, IMAGENET_STD

_ROW_MULTIPLE = 64


def cache_rows(tokens: int, most: int) -> int:
    """Returns the rows of a static cache for `tokens` tokens, filled up for its kernels, of a model that has `most`."""
    return -(-min(tokens, most) // _ROW_MULTIPLE) * _ROW_MULTIPLE


class TransformersStages:
    """The model of a model directory in transformers' classes, stage by stage."""

    def __init__(self, model: Path, way: str, *, dtype: torch.dtype, device: str, max_context: int) -> None:
        """`way` is 'eager' or 'compiled'. Raises CheckpointError."""
        from transformers import DynamicCache, StaticCache

        self.model = load_transformers(model, dtype, device)
        self._device = device
        self._dtype = dtype
        mean, deviation = (torch.tensor(values, device=device) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self._scale, self._shift = 1 / (255 * deviation), mean / deviation
        self._vocab_size = self.model.config.text_config.vocab_size
        self._new_cache: Callable[[], Any] = DynamicCache
        self._see: Callable[[Tensor], Tensor] = self._features
        self._step: Callable[[Tensor, Tensor, Any], Tensor] = self._next_token
        if way == "compiled":
            self._static = StaticCache(config=self.model.config, max_cache_len=max_context)
            self._new_cache = self._reset
            # One compilation for each number of tiles: kernels of any number would be slower.
            self._see = torch.compile(self._features, mode="reduce-overhead", dynamic=False)
            self._step = torch.compile(self._next_token, mode="reduce-overhead", fullgraph=True)

    @torch.no_grad()
    def encode(self, tiles: Tiles | Tensor) -> Tensor:
        """Encodes uint8 tiles [N, size, size, 3], on the host or the device, into visual tokens [N * T, H] there."""
        pixels = torch.as_tensor(tiles).to(self._device).float() * self._scale - self._shift
        torch.compiler.cudagraph_mark_step_begin()
        return self._see(pixels.permute(0, 3, 1, 2).to(self._dtype)).clone()

    @torch.no_grad()
    def prefill(self, ids: TokenIds, visual: Tensor) -> tuple[Tensor, Any]:
        """Reads a prompt in our ids (V + i is row i of `visual`). Returns the likeliest token [1, 1] and the cache."""
        cache = self._new_cache()
        return self._next_of(self.embed(ids, visual), torch.arange(len(ids), device=self._device)[None], cache), cache

    @torch.no_grad()
    def decode(self, token: Tensor, position: int, cache: Any, count: int) -> list[Tensor]:
        """Returns `count` more tokens, each [1, 1]."""
        tokens = []
        place = torch.tensor([[position]], device=self._device)
        for _ in range(count):
            torch.compiler.cudagraph_mark_step_begin()
            token = self._step(token, place, cache).clone()
            tokens.append(token)
            place = place + 1
        return tokens

    def ids(self, tokens: Sequence[Tensor]) -> list[int]:
        """Copies tokens, each [1, 1], to the host, at once."""
        return torch.cat(list(tokens), 1)[0].tolist()

    @torch.no_grad()
    def logits(self, ids: TokenIds, visual: Tensor) -> Tensor:
        """Returns the logits [S, V] of all tokens of a prompt in our ids, read at once."""
        hidden = self.model.model.language_model(inputs_embeds=self.embed(ids, visual)).last_hidden_state
        logits: Tensor = self.model.lm_head(hidden)[0]
        return logits

    def embed(self, ids: TokenIds, visual: Tensor) -> Tensor:
        """Returns the embeddings [1, S, H] of our ids."""
        rows = torch.from_numpy(ids).to(self._device)
        is_visual = rows >= self._vocab_size
        embeddings: Tensor = self.model.get_input_embeddings()(rows.where(~is_visual, 0))
        embeddings[is_visual] = visual[rows[is_visual] - self._vocab_size].to(embeddings.dtype)
        return embeddings[None]

    def synchronize(self) -> None:
        """Waits for the device."""
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()

    def now(self) -> float:
        """Waits for the device, and returns the time in ms from some moment on."""
        self.synchronize()
        return 1e3 * time.perf_counter()

    def _features(self, pixels: Tensor) -> Tensor:
        found = self.model.model.get_image_features(
            pixel_values=pixels, vision_feature_layer=-1, vision_feature_select_strategy="default", return_dict=True
        )
        features: Tensor = found.pooler_output
        return features.flatten(0, 1)

    def _next_token(self, token: Tensor, position: Tensor, cache: Any) -> Tensor:
        return self._next_of(self.model.get_input_embeddings()(token), position, cache)

    def _next_of(self, embeddings: Tensor, positions: Tensor, cache: Any) -> Tensor:
        text = self.model.model.language_model
        hidden = text(inputs_embeds=embeddings, position_ids=positions, past_key_values=cache).last_hidden_state
        return self.model.lm_head(hidden[:, -1]).argmax(-1, keepdim=True)

    def _reset(self) -> Any:
        self._static.reset()
        return self._static


def time_stages(stages: TransformersStages, work: Workload, tokens: int, runs: int) -> dict[str, list[float]]:
    """Returns the ms of `runs` answers of exactly `tokens` tokens by stage, after two that are not counted.

    The stages are 'preprocess' (ours), 'vision', 'prefill', 'decode_token' and 'total', which is all of them.
    """
    times: dict[str, list[float]] = {name: [] for name in ("preprocess", "vision", "prefill", "decode_token", "total")}
    for run in range(-2, runs):
        marks = [stages.now()]
        tiles = work.tiles()
        marks.append(stages.now())
        visual = stages.encode(tiles)
        marks.append(stages.now())
        token, cache = stages.prefill(work.prompt, visual)
        marks.append(stages.now())
        stages.decode(token, len(work.prompt), cache, tokens - 1)
        marks.append(stages.now())
        if run >= 0:
            preprocess, vision, prefill, decode = np.diff(marks).tolist()
            found = (preprocess, vision, prefill, decode / max(1, tokens - 1), marks[-1] - marks[0])
            for name, value in zip(times, found, strict=True):
                times[name].append(value)
    return times
