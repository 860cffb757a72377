"""Training samples: scenes that worker processes render, and a buffer on the device that batches are drawn from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.lab.training import packing
from litevlm_ros.lab.training.demo_model import IMAGE_SIZE
from litevlm_ros.lab.training.packing import TOKENS_PER_VIEW, Pack, Vocabulary
from litevlm_ros.lab.world.scene import Scene, generate
from litevlm_ros.lab.world.splits import FIRST_HELD_OUT_SEED

VARIANTS = 3
"""Sets of questions drawn for each scene, since pictures cost more than questions."""

_BATCH = 8
"""Scenes in a batch of new ones."""

Sample = dict[str, Tensor]
"""`pixels` uint8 [6, size, size, 3], `labels` uint8 [6, T, 3], `single` int16 [variants, 6, 4, length], `multi` int16
[variants, 4, length], `order` int16 [variants, 6]: the cameras in the order in which `multi` shows them."""


def sample(scene: Scene, words: Vocabulary, rng: np.random.Generator, *, unseen: bool = False) -> Sample:
    """Returns pictures, grid labels and several variants of packed questions of one scene."""
    singles, multis, orders = [], [], []
    for _ in range(VARIANTS):
        singles.append(
            [_rows(packing.single_view_pack(scene, camera, words, rng, unseen=unseen)) for camera in DEMO_CAMERAS]
        )
        count = int(rng.choice((2, 3, 4, 5, 6), p=(0.15, 0.15, 0.1, 0.1, 0.5)))
        # The cameras' usual order mostly, any order sometimes.
        picked = rng.permutation(len(DEMO_CAMERAS)) if rng.random() < 0.3 else np.arange(len(DEMO_CAMERAS))
        chosen = picked[:count] if rng.random() < 0.5 else np.sort(rng.permutation(len(DEMO_CAMERAS))[:count])
        multis.append(
            _rows(packing.multi_view_pack(scene, [DEMO_CAMERAS[i] for i in chosen], words, rng, unseen=unseen))
        )
        orders.append(np.concatenate([chosen, np.setdiff1d(np.arange(len(DEMO_CAMERAS)), chosen)]))
    grid = math.isqrt(TOKENS_PER_VIEW)
    return {
        "pixels": torch.from_numpy(packing.pictures(scene, IMAGE_SIZE, rng)),
        "labels": torch.from_numpy(packing.grid_labels(scene, grid).reshape(len(DEMO_CAMERAS), TOKENS_PER_VIEW, 3)),
        "single": torch.from_numpy(np.array(singles, np.int16)),
        "multi": torch.from_numpy(np.array(multis, np.int16)),
        "order": torch.from_numpy(np.array(orders, np.int16)),
    }


def _rows(pack: Pack) -> npt.NDArray[np.int32]:
    return np.stack([pack.ids, pack.targets, pack.segment, pack.positions])


class _SceneStream(IterableDataset[Sample]):
    """An endless stream of training samples. Worker w of n draws the scenes start + w, start + w + n, ..."""

    def __init__(self, tokenizer: Tokenizer, start: int) -> None:
        self.tokenizer, self.start = tokenizer.to_str(), start

    def __iter__(self) -> Iterator[Sample]:
        torch.set_num_threads(1)
        words = Vocabulary.of(Tokenizer.from_str(self.tokenizer))
        worker = get_worker_info()
        seed, stride = (self.start + worker.id, worker.num_workers) if worker else (self.start, 1)
        while True:
            scene_seed = seed % FIRST_HELD_OUT_SEED
            yield sample(generate(scene_seed), words, np.random.default_rng((scene_seed, 1)))
            seed += stride


class FreshScenes:
    """Batches of new scenes, rendered in the background, which can be taken without waiting."""

    def __init__(self, tokenizer: Tokenizer, start: int, workers: int) -> None:
        """Renders the scenes from seed `start` on in `workers` processes, or in the caller's where there are none."""
        scenes: DataLoader[Sample] = DataLoader(
            _SceneStream(tokenizer, start),
            batch_size=_BATCH,
            num_workers=workers,
            prefetch_factor=8 if workers else None,
        )
        self._stream = iter(scenes)
        # Its one thread waits for the workers, so that `ready` can tell whether they have a batch.
        self._waiter = ThreadPoolExecutor(1, "scenes") if workers else None
        self._coming = self._wait()

    @property
    def ready(self) -> bool:
        """True if `take` need not wait for a worker; always True without workers, where it renders a batch itself."""
        return self._coming is None or self._coming.done()

    def take(self) -> Sample:
        """Returns the next batch, [8, ...] of what `sample` returns."""
        if self._coming is None:
            return next(self._stream)
        batch = self._coming.result()
        self._coming = self._wait()
        return batch

    def close(self) -> None:
        """Ends the background work."""
        if self._waiter:
            self._waiter.shutdown()

    def _wait(self) -> Future[Sample] | None:
        return self._waiter.submit(next, self._stream) if self._waiter else None


class SampleBuffer:
    """A ring of samples on the device, from which each step draws at random."""

    def __init__(self, capacity: int, device: str) -> None:
        """Makes room for `capacity` scenes."""
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
        """Draws `count` samples at random, with one variant of their questions."""
        at = torch.randint(self.filled, (count,), generator=generator).to(self.device)
        variant = int(torch.randint(VARIANTS, (), generator=generator))
        rows = self._rows.items()
        return {name: value[at] if name in ("pixels", "labels") else value[at, variant] for name, value in rows}
