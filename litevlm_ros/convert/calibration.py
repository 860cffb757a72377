"""How large the inputs of linear layers get on real pictures and questions: what quantized values are scaled by.

One picture after the other goes through vision encoder and text decoder, in fp32, with the prompt that the pipeline
would build. The statistics follow from hooks on the linear layers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.convert.qwen2 import TextDecoder
from litevlm_ros.errors import ConfigError
from litevlm_ros.images.decoding import decode_compressed
from litevlm_ros.lab.world.questions import CAPTION_PROMPTS
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import CAMERAS, generate
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import TEXT
from litevlm_ros.text.prompt import PromptBuilder
from litevlm_ros.text.tokenizer import TextTokenizer
from litevlm_ros.types import RgbImage
from litevlm_ros.vision.tiling import make_tiles

MOST_IMAGES = 32
"""More change the scales of no layer much, and take long on a board's CPU."""

_RENDERED = 16
_ANSWER_TOKENS = 12
_QUESTIONS = (*CAPTION_PROMPTS, "Is there a car?", "How many people are there?", "What is the weather like?")


@dataclass(frozen=True)
class CalibrationData:
    """RGB pictures, and in words where they are from."""

    images: tuple[RgbImage, ...]
    description: str


def calibration_data(directory: Path | None) -> CalibrationData:
    """The first MOST_IMAGES pictures of `directory` by name; None: rendered street scenes. Raises ConfigError."""
    if directory is None:
        images = tuple(render(generate(seed), CAMERAS[seed % len(CAMERAS)]) for seed in range(_RENDERED))
        return CalibrationData(images, f"{_RENDERED} rendered street scenes, not pictures of a camera")
    if not directory.is_dir():
        raise ConfigError(f"calibration-images is {directory}; allowed: a directory of JPEG or PNG files. Correct it")
    files = sorted(file for file in directory.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise ConfigError(f"calibration-images is {directory}, where there are no JPEG or PNG files; put pictures of "
                          "your cameras there")  # fmt: skip
    used = files[:MOST_IMAGES]
    images = tuple(decode_compressed(file.suffix[1:].lower(), file.read_bytes()) for file in used)
    return CalibrationData(images, f"{len(images)} pictures of {directory.name}/")


@dataclass
class InputStatistics:
    """Of the inputs of one linear layer: the largest magnitude, and for each of K inputs the mean square."""

    largest: float = 0.0
    squares: Tensor = field(default_factory=lambda: torch.zeros(0))
    rows: int = 0

    @property
    def importance(self) -> Tensor:
        """fp32 [K]: the mean square of each input."""
        return self.squares / max(1, self.rows)

    def add(self, inputs: Tensor) -> None:
        """Counts `inputs` [..., K] in."""
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        squares = rows.square().sum(0).cpu()
        self.squares = squares if not self.rows else self.squares + squares
        self.largest = max(self.largest, float(rows.abs().max()))
        self.rows += len(rows)


def measure_inputs(part: str, model: Path, data: CalibrationData) -> dict[str, InputStatistics]:
    """Statistics of each linear layer of `part` (VISION or TEXT) of a model directory, by module name."""
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
        builder = PromptBuilder(
            config.template,
            TextTokenizer.from_directory(model),
            config.text.vocab_size,
            config.vision.tokens_per_tile,
        )
        with _measured(text) as statistics:
            for index, (tokens, pixels) in enumerate(zip(visual, tiles, strict=True)):
                camera = CAMERAS[index % len(CAMERAS)]
                question = _QUESTIONS[index % len(_QUESTIONS)]
                _answer(text, [*builder.prefix([(camera, len(pixels))]), *builder.suffix(question)], tokens)
        return statistics


def _answer(text: TextDecoder, prompt: list[int], visual: Tensor) -> None:
    """Reads the prompt and the start of the answer that the model gives."""
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
    """Statistics of all linear layers, filled while the context is open."""
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
