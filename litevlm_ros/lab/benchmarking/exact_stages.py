"""Stages of fixed sizes, timed alone: so many tiles, so many tokens, one token behind so many others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from litevlm_ros.backend import Backend, Tiles, TokenIds
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.benchmarking.gpu_access import Gpu
from litevlm_ros.lab.benchmarking.roofline import Cost, decode_cost, prefill_cost, vision_cost
from litevlm_ros.lab.benchmarking.stages import camera_image, median_ms
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.types import View
from litevlm_ros.vision.tiling import HostTiler

if TYPE_CHECKING:
    from litevlm_ros.lab.benchmarking.transformers_stages import TransformersStages

RESOLUTION = (1280, 720)
CUT_VIEWS = 6
_STEPS = 32


@dataclass(frozen=True)
class Stage:
    """`kind` is 'vision', 'prefill' or 'decode'; `size` its tiles, its tokens, or the tokens before it."""

    kind: str
    size: int

    @property
    def title(self) -> str:
        """The stage in words."""
        if self.kind == "vision":
            return f"vision, {self.size} tile{'s' * (self.size > 1)}"
        return f"prefill of {self.size} tokens" if self.kind == "prefill" else f"token behind {self.size} others"

    def cost(self, model: ModelConfig, vision: str, text: str) -> Cost:
        """Returns the bytes and FLOPs that it needs with weights in these precisions."""
        if self.kind == "vision":
            return vision_cost(model, self.size, vision)
        return (prefill_cost if self.kind == "prefill" else decode_cost)(model, self.size, text)


STAGES = (
    *(Stage("vision", tiles) for tiles in (1, 6, 12)),
    *(Stage("prefill", tokens) for tokens in (448, 1792)),
    *(Stage("decode", tokens) for tokens in (448, 1792)),
)
"""The stages that are compared. Prompts of InternVL2-1B have 448 tokens for one view and 1792 for six, nearly."""
COMPILED_TILES = (1, 6)
"""The numbers of tiles for which transformers' vision encoder is compiled. torch.compile takes some 20 s for each, so
12 tiles are left out: a whole comparison is to take two minutes."""


def fitting(stages: Sequence[Stage], model: ModelConfig, capacity: int) -> tuple[Stage, ...]:
    """Returns the stages for which a cache of `capacity` rows is large enough."""
    room = min(capacity, model.text.max_position_embeddings) - _STEPS
    return tuple(stage for stage in stages if stage.kind == "vision" or stage.size <= room)


def sample_views(count: int) -> list[View]:
    """Draws any number of camera images of RESOLUTION."""
    return [View(f"camera {index}", camera_image(index, *RESOLUTION)) for index in range(count)]


def sample_tiles(count: int, size: int) -> Tiles:
    """Draws smooth patterns, each different: uint8 [count, size, size, 3]."""
    rows, columns = np.indices((size, size)) / size
    waves = [
        np.stack([127 + 127 * np.sin((3 + tile + channel) * (rows + (tile + 1) * columns)) for channel in range(3)], -1)
        for tile in range(count)
    ]
    return np.stack(waves).astype(np.uint8)


def sample_prompt(vocab_size: int, length: int, visual: int) -> TokenIds:
    """Returns ids [length] of `visual` visual tokens among words."""
    words = np.arange(length - visual) * 37 % min(200, vocab_size - 20) + 20
    before = min(10, len(words))
    return np.concatenate((words[:before], vocab_size + np.arange(visual), words[before:]))


def tiles_in(model: ModelConfig, tokens: int) -> int:
    """Returns the number of tiles whose visual tokens are in a prompt of `tokens` tokens beside some words."""
    return min(CUT_VIEWS, (tokens - 1) // model.vision.tokens_per_tile)


def time_engines(
    backend: Backend, model: ModelConfig, stages: Sequence[Stage], runs: int, gpu: Gpu
) -> dict[Stage, float]:
    """Returns the median ms of each stage of a backend with a tiler on the device. Raises LiteVLMError.

    Tiles lie on the device already, as they do when a view has been cut there.
    """
    if backend.tiler is None:
        raise ConfigError(f"{backend.description} cuts no tiles on the device; use backend: tensorrt")
    tiler, text = backend.tiler(model, 1), backend.text

    def time(stage: Stage) -> float:
        tiles = stage.size if stage.kind == "vision" else tiles_in(model, stage.size)
        cut = tiler.cut(sample_views(max(1, tiles))).tiles
        gpu.wait()
        if stage.kind == "vision":
            return median_ms(lambda: backend.vision.encode(cut), runs)
        visual = backend.vision.encode(cut)
        ids = sample_prompt(model.text.vocab_size, stage.size, tiles * model.vision.tokens_per_tile)

        def prefill() -> None:
            text.cache.truncate(0)
            text.forward(ids, np.arange(len(ids)), visual)

        def decode() -> None:
            text.cache.truncate(stage.size)
            for _ in text.decode_greedy(int(ids[0]), stage.size, _STEPS):
                pass

        if stage.kind == "prefill":
            return median_ms(prefill, runs)
        prefill()
        return median_ms(decode, runs) / _STEPS

    return {stage: time(stage) for stage in stages}


def time_transformers(
    reference: TransformersStages, model: ModelConfig, stages: Sequence[Stage], runs: int
) -> dict[Stage, float]:
    """Returns the median ms of each stage in transformers' classes, with tiles on the device as for engines."""
    import torch

    def encode(pixels: Any) -> None:
        reference.encode(pixels)
        reference.synchronize()

    def time(stage: Stage) -> float:
        if stage.kind == "vision":
            pixels = torch.from_numpy(sample_tiles(stage.size, model.vision.image_size)).cuda()
            return median_ms(partial(encode, pixels), runs)
        rows = tiles_in(model, stage.size) * model.vision.tokens_per_tile
        visual = torch.randn(max(1, rows), model.text.hidden_size, device="cuda")
        ids = sample_prompt(model.text.vocab_size, stage.size, rows)
        read: list[tuple[Any, Any]] = []

        def prefill() -> None:
            read[:] = [reference.prefill(ids, visual)]
            reference.synchronize()

        def decode() -> None:
            token, cache = read[0]
            reference.decode(token, stage.size, cache, _STEPS)
            reference.synchronize()

        if stage.kind == "prefill":
            return median_ms(prefill, runs)
        return median_ms(decode, runs, before=prefill) / _STEPS

    return {stage: time(stage) for stage in stages}


def time_cutting(backend: Backend, model: ModelConfig, runs: int, gpu: Gpu) -> dict[str, float]:
    """Returns the median ms of cutting CUT_VIEWS views of RESOLUTION on the 'host' and on the 'device', pixels done."""
    views = sample_views(CUT_VIEWS)
    host = HostTiler(model, 1)
    times = {"host": median_ms(lambda: host.cut(views), runs)}
    if backend.tiler is not None:
        tiler = backend.tiler(model, 1)

        def cut() -> None:
            tiler.cut(views)
            gpu.wait()

        times["device"] = median_ms(cut, runs)
    return times
