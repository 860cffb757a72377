"""Scenes as training samples: drawn by worker processes, kept on the device, drawn from at random."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from litevlm_ros.lab.training import packing
from litevlm_ros.lab.training.demo_model import IMAGE_SIZE, TOKENS_PER_VIEW
from litevlm_ros.lab.training.packing import Pack, Vocabulary
from litevlm_ros.lab.world.scene import CAMERAS, COLOURS, FIRST_HELD_OUT_SEED, Scene, generate
from litevlm_ros.text.prompt import DEMO_TEMPLATE, PromptBuilder
from litevlm_ros.text.tokenizer import TextTokenizer

VARIANTS = 3
"""Sets of questions drawn for each scene. Pictures cost more than questions."""

Sample = dict[str, Tensor]
"""`pixels` uint8 [6, size, size, 3], `labels` uint8 [6, T, 3], `single` int16 [variants, 6, 4, length], `multi` int16
[variants, 4, length], `order` int16 [variants, 6]: the cameras in the order in which `multi` shows them."""


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Ids exactly as the pipeline builds them."""
    text = TextTokenizer(tokenizer)
    prompt = PromptBuilder(DEMO_TEMPLATE, text, tokenizer.get_vocab_size(), TOKENS_PER_VIEW)
    colours = [text.encode(f" {colour}") for colour in COLOURS]
    return Vocabulary(
        prefix=lambda cameras: prompt.prefix([(camera, 1) for camera in cameras]),
        suffix=prompt.suffix,
        text=text.encode,
        end=text.special("<|im_end|>"),
        colours=tuple(ids[0] for ids in colours if len(ids) == 1),
    )


def sample(scene: Scene, words: Vocabulary, rng: np.random.Generator, *, unseen: bool = False) -> Sample:
    """Pictures, grid labels and several variants of packed questions of one scene."""
    singles, multis, orders = [], [], []
    for _ in range(VARIANTS):
        singles.append(
            [_rows(packing.single_view_pack(scene, camera, words, rng, unseen=unseen)) for camera in CAMERAS]
        )
        count = int(rng.choice((2, 3, 4, 5, 6), p=(0.15, 0.15, 0.1, 0.1, 0.5)))
        # The cameras' usual order mostly, any order sometimes.
        picked = rng.permutation(len(CAMERAS)) if rng.random() < 0.3 else np.arange(len(CAMERAS))
        chosen = picked[:count] if rng.random() < 0.5 else np.sort(rng.permutation(len(CAMERAS))[:count])
        multis.append(_rows(packing.multi_view_pack(scene, [CAMERAS[i] for i in chosen], words, rng, unseen=unseen)))
        orders.append(np.concatenate([chosen, np.setdiff1d(np.arange(len(CAMERAS)), chosen)]))
    grid = math.isqrt(TOKENS_PER_VIEW)
    return {
        "pixels": torch.from_numpy(packing.pictures(scene, IMAGE_SIZE, rng)),
        "labels": torch.from_numpy(packing.grid_labels(scene, grid).reshape(len(CAMERAS), TOKENS_PER_VIEW, 3)),
        "single": torch.from_numpy(np.array(singles, np.int16)),
        "multi": torch.from_numpy(np.array(multis, np.int16)),
        "order": torch.from_numpy(np.array(orders, np.int16)),
    }


def _rows(pack: Pack) -> npt.NDArray[np.int32]:
    return np.stack([pack.ids, pack.targets, pack.segment, pack.positions])


class SceneStream(IterableDataset[Sample]):
    """An endless stream of training scenes; worker w of n draws seeds start + w, start + w + n, ..."""

    def __init__(self, tokenizer: Tokenizer, start: int) -> None:
        self.tokenizer, self.start = tokenizer.to_str(), start

    def __iter__(self) -> Iterator[Sample]:
        torch.set_num_threads(1)
        words = vocabulary(Tokenizer.from_str(self.tokenizer))
        worker = get_worker_info()
        seed, stride = (self.start + worker.id, worker.num_workers) if worker else (self.start, 1)
        while True:
            scene_seed = seed % FIRST_HELD_OUT_SEED
            yield sample(generate(scene_seed), words, np.random.default_rng((scene_seed, 1)))
            seed += stride


class SampleBuffer:
    """A ring of samples on the device, from which each step draws at random."""

    def __init__(self, capacity: int, device: str) -> None:
        self.capacity, self.device = capacity, device
        self.filled = self.written = 0
        self._rows: Sample = {}

    def add(self, batch: Sample) -> None:
        """Overwrites the oldest samples with a batch [count, ...]."""
        count = len(batch["pixels"])
        if not self._rows:
            self._rows = {
                name: torch.empty((self.capacity, *value.shape[1:]), dtype=value.dtype, device=self.device)
                for name, value in batch.items()
            }
        at = ((torch.arange(count) + self.written) % self.capacity).to(self.device)
        for name, value in batch.items():
            self._rows[name][at] = value.to(self.device, non_blocking=True)
        self.written += count
        self.filled = min(self.capacity, self.filled + count)

    def draw(self, count: int, generator: torch.Generator) -> Sample:
        """Random samples with one variant of their questions."""
        at = torch.randint(self.filled, (count,), generator=generator).to(self.device)
        variant = int(torch.randint(VARIANTS, (), generator=generator))
        rows = self._rows.items()
        return {name: value[at] if name in ("pixels", "labels") else value[at, variant] for name, value in rows}
