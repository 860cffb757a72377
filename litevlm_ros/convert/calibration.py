"""The importance of the inputs of a model's linear layers on real pictures and questions, for the scales of INT4.

Each picture passes through vision encoder and text decoder in fp32, with the prompt that a pipeline would build. Hooks
on the linear layers collect the mean square of each input.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.convert.qwen import QwenDecoder
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import TEXT
from litevlm_ros.types import RgbImage
from litevlm_ros.vision.tiling import make_tiles

_ANSWER_TOKENS = 12


@dataclass(frozen=True)
class CalibrationData:
    """Pictures of what a model will see, with a question about each.

    `description` says in words where the pictures are from. `prompt(index, tiles)` returns the token ids of the prompt
    about picture `index` when it is cut into `tiles` tiles; ids from the vocabulary size on stand for visual tokens.
    """

    images: tuple[RgbImage, ...]
    description: str
    prompt: Callable[[int, int], list[int]]


Calibration = Callable[[], CalibrationData]
"""Makes the calibration data, which takes seconds: called only for a precision that needs it."""


def data_for(precision: str, calibration: Calibration | None) -> CalibrationData | None:
    """Makes the calibration data for `precision`: None for all but int4, whose scales alone may clip weights."""
    return calibration() if calibration and precision == "int4" else None


@dataclass
class _InputSquares:
    """The sum of the squares of each of the K inputs of a linear layer, fp32 [K], over `rows` rows."""

    total: Tensor
    rows: int = 0

    def add(self, inputs: Tensor) -> None:
        """Adds `inputs` [..., K]."""
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        # In place: small tensors that stay, between large ones that go, would leave holes in the heap.
        self.total += rows.square().sum(0).cpu()
        self.rows += len(rows)


def measure_importance(part: str, model: Path, data: CalibrationData) -> dict[str, Tensor]:
    """Returns the mean square of each input, fp32 [K], of each linear layer of `part` (VISION or TEXT), by module name.

    One part at a time is in memory, in fp32, and none is left. Raises CheckpointError if the weights of the model
    directory `model` cannot be loaded.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = ModelConfig.from_directory(model)
    tiles = [make_tiles(image, 1, config.vision.image_size, config.use_thumbnail) for image in data.images]
    visual, importance = _encode_pictures(model, tiles, device)
    # PyTorch keeps what it frees on a GPU, and a board's GPU has the memory that packing needs next.
    torch.cuda.empty_cache()
    if part == TEXT:
        prompts = [data.prompt(index, len(pixels)) for index, pixels in enumerate(tiles)]
        importance = _answer_prompts(model, prompts, visual, device)
        torch.cuda.empty_cache()
    return importance


def _encode_pictures(
    model: Path, tiles: Sequence[npt.NDArray[np.uint8]], device: torch.device
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Returns the visual tokens [rows, hidden] of each picture's tiles, and the importance in the vision encoder."""
    vision = load_vision_encoder(model).to(device)
    with torch.inference_mode(), device, _measured(vision) as importance:  # the modules make tensors of their own
        visual = [vision(torch.tensor(pixels)).flatten(0, 1) for pixels in tiles]
    return visual, importance


def _answer_prompts(
    model: Path, prompts: Sequence[list[int]], visual: Sequence[Tensor], device: torch.device
) -> dict[str, Tensor]:
    """Returns the importance in the text decoder, which reads each prompt with the visual tokens of its picture."""
    text = load_text_decoder(model).to(device)
    with torch.inference_mode(), device, _measured(text) as importance:
        for prompt, tokens in zip(prompts, visual, strict=True):
            _answer(text, prompt, tokens)
    return importance


def _answer(text: QwenDecoder, prompt: list[int], visual: Tensor) -> None:
    """Runs the prefill of `prompt` and the first decode steps of the model's answer."""
    config = text.config
    empty = torch.zeros(0, config.num_kv_heads, config.head_dim)
    keys = values = [empty] * config.num_layers
    ids, length = torch.tensor(prompt), 0
    for _ in range(_ANSWER_TOKENS):
        count = len(ids)
        positions = torch.arange(length, length + count)
        last, past = torch.tensor([count - 1]), torch.tensor([length])
        _, ids, _, new_keys, new_values = text(ids, positions, past, last, visual, keys, values)
        keys = [torch.cat(pair) for pair in zip(keys, new_keys, strict=True)]
        values = [torch.cat(pair) for pair in zip(values, new_values, strict=True)]
        length += count


@contextlib.contextmanager
def _measured(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yields a dictionary that gets the importance of the inputs of all linear layers of `module` as the block ends."""
    squares: dict[str, _InputSquares] = {}
    importance: dict[str, Tensor] = {}
    handles = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            found = squares.setdefault(name, _InputSquares(torch.zeros(layer.in_features, device="cpu")))
            handles.append(layer.register_forward_pre_hook(lambda _, inputs, found=found: found.add(inputs[0])))
    try:
        yield importance
    finally:
        for handle in handles:
            handle.remove()
    importance |= {name: found.total / found.rows for name, found in squares.items() if found.rows}
