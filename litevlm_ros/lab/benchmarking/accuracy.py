"""Compares what engines compute with transformers: visual tokens in fp32, and the choice of each next token.

Engines are asked first and closed, and transformers reads the same tiles, visual tokens and ids afterwards. So the two
models need not be in memory at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from litevlm_ros.backend import Backend, TokenIds
from litevlm_ros.lab.benchmarking.exact_stages import sample_prompt, sample_tiles
from litevlm_ros.lab.benchmarking.gpu_access import Gpu
from litevlm_ros.model_config import ModelConfig

NOISE = 3
"""A token is compared if its margin is more than so many times the difference of transformers' fp16 and fp32 logits."""
TILES = (1, 6)

_PROMPT = 320
_WORDS = 64
_ANSWER = 64


@dataclass(frozen=True)
class Observation:
    """Results of engines: visual tokens of each number of tiles, and an answer to a prompt behind one tile."""

    visual: Mapping[int, npt.NDArray[np.float32]]
    prompt: TokenIds
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Accuracy:
    """`visual_errors` maps numbers of tiles to the relative error of their visual tokens against fp32.

    Of the `tokens` of a greedy answer, `equal` are the first choice of transformers in fp16. `clear` have a margin of
    more than NOISE times the noise there, and of those `differing` are not its choice. `distinct` counts different
    tokens: an answer that repeats itself compares little.
    """

    visual_errors: dict[int, float]
    tokens: int
    distinct: int
    equal: int
    clear: int
    differing: int


def observe(backend: Backend, model: ModelConfig, gpu: Gpu) -> Observation:
    """Has a TensorRT backend encode TILES and answer. Raises EngineError."""
    encoded = {count: backend.vision.encode(sample_tiles(count, model.vision.image_size)) for count in TILES}
    rows = model.vision.tokens_per_tile
    ids = sample_prompt(model.text.vocab_size, max(_PROMPT, rows + _WORDS), rows)
    backend.text.cache.truncate(0)
    first = int(backend.text.forward(ids, np.arange(len(ids)), encoded[1]).next_tokens[-1])
    tokens = (first, *backend.text.decode_greedy(first, len(ids), _ANSWER - 1))
    return Observation({count: gpu.read(backend, visual) for count, visual in encoded.items()}, ids, tokens)


def judge(seen: Observation, directory: Path) -> Accuracy:
    """Compares with transformers on the GPU. Needs PyTorch. Raises CheckpointError."""
    import torch

    from litevlm_ros.lab.benchmarking.transformers_stages import TransformersStages

    size = ModelConfig.from_directory(directory).vision.image_size
    # TF32 keeps ten bits of a number, which is no reference.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    visual = torch.from_numpy(seen.visual[1]).cuda()
    # transformers reads our tokens, so that each choice is compared alone.
    whole = np.concatenate((seen.prompt, np.array(seen.tokens[:-1], np.int64)))
    answer = slice(len(seen.prompt) - 1, None)
    logits, errors = [], {}
    for dtype in (torch.float32, torch.float16):
        reference = TransformersStages(directory, "eager", dtype=dtype, device="cuda", max_context=0)
        logits.append(reference.logits(whole, visual)[answer].float().cpu())
        if dtype is torch.float32:
            for count, found in seen.visual.items():
                expected = reference.encode(sample_tiles(count, size)).cpu().numpy()
                errors[count] = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
        del reference
        torch.cuda.empty_cache()
    full, half = logits
    noise = (half - full).abs().max(-1).values
    best = half.topk(2, -1)
    clear = (best.values[:, 0] - best.values[:, 1] > NOISE * noise).numpy()
    same = best.indices[:, 0].numpy() == np.array(seen.tokens)
    return Accuracy(
        visual_errors=errors,
        tokens=len(seen.tokens),
        distinct=len(set(seen.tokens)),
        equal=int(same.sum()),
        clear=int(clear.sum()),
        differing=int((clear & ~same).sum()),
    )
