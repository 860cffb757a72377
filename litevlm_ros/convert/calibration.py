"""Range of the inputs of a model's linear layers on real pictures and questions, which sets the scales of quantization.

Each picture passes through vision encoder and text decoder in fp32, with the prompt that a pipeline would build. Hooks
on the linear layers collect the statistics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.convert.qwen2 import Qwen2Decoder
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
"""Makes the calibration data, which takes seconds: called only when something is quantized."""


@dataclass
class InputStatistics:
    """Statistics of the K inputs of one linear layer: the largest magnitude, and the sum of squares of each input."""

    largest: float = 0.0
    squares: Tensor = field(default_factory=lambda: torch.zeros(0))
    rows: int = 0

    @property
    def importance(self) -> Tensor:
        """Mean square of each input, fp32 [K]."""
        return self.squares / max(1, self.rows)

    def add(self, inputs: Tensor) -> None:
        """Adds `inputs` [..., K] to the statistics."""
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        squares = rows.square().sum(0).cpu()
        self.squares = squares if not self.rows else self.squares + squares
        self.largest = max(self.largest, float(rows.abs().max()))
        self.rows += len(rows)


def measure_inputs(part: str, model: Path, data: CalibrationData) -> dict[str, InputStatistics]:
    """Returns the statistics of each linear layer of `part` (VISION or TEXT) of a model directory, by module name.

    Raises CheckpointError.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = ModelConfig.from_directory(model)
    vision = load_vision_encoder(model).to(device)
    tiles = [make_tiles(image, 1, config.vision.image_size, config.use_thumbnail) for image in data.images]
    with torch.inference_mode(), device:  # the modules make tensors of their own
        if part != TEXT:
            with _measured(vision) as statistics:
                for pixels in tiles:
                    vision(torch.tensor(pixels))
            return statistics
        visual = [vision(torch.tensor(pixels)).flatten(0, 1) for pixels in tiles]
        del vision
        text = load_text_decoder(model).to(device)
        with _measured(text) as statistics:
            for index, (tokens, pixels) in enumerate(zip(visual, tiles, strict=True)):
                _answer(text, data.prompt(index, len(pixels)), tokens)
        return statistics


def _answer(text: Qwen2Decoder, prompt: list[int], visual: Tensor) -> None:
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
def _measured(module: nn.Module) -> Iterator[dict[str, InputStatistics]]:
    """Yields the statistics of all linear layers of `module`, which fill up while the context is open."""
    statistics: dict[str, InputStatistics] = {}
    handles = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            found = statistics.setdefault(name, InputStatistics())
            handles.append(layer.register_forward_pre_hook(lambda _, inputs, found=found: found.add(inputs[0])))
    try:
        yield statistics
    finally:
        for handle in handles:
            handle.remove()
