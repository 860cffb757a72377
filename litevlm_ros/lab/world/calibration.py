"""Pictures and questions that INT4's scales are chosen with: a user's own pictures, or rendered street scenes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.errors import ConfigError
from litevlm_ros.images.compressed import decode_compressed
from litevlm_ros.lab.world.questions import CAPTION_PROMPTS
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import generate
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.text.prompt import PromptBuilder
from litevlm_ros.text.tokenizer import TextTokenizer
from litevlm_ros.types import RgbImage

if TYPE_CHECKING:
    from litevlm_ros.convert.calibration import CalibrationData

MOST_IMAGES = 32
"""More pictures change the scales of no layer much, and take long on a board's CPU."""

RENDERED = 16
"""Street scenes that are rendered where there are no pictures."""
_QUESTIONS = (*CAPTION_PROMPTS, "Is there a car?", "How many people are there?", "What is the weather like?")


def calibration_data(model: Path, directory: Path | None = None, rendered: int = RENDERED) -> CalibrationData:
    """Returns pictures, each with a question in the prompt format of the model directory `model`.

    They are the first MOST_IMAGES JPEG and PNG files of `directory` by name, or `rendered` street scenes if it is None.
    Raises ConfigError if there are none, ImageError for a damaged one, and CheckpointError.
    """
    # Imported here: it needs PyTorch, and engines that are up to date do not.
    from litevlm_ros.convert.calibration import CalibrationData

    images, description = _rendered(rendered) if directory is None else _read(directory)
    config = ModelConfig.from_directory(model)
    builder = PromptBuilder(
        config.template,
        TextTokenizer.from_directory(model),
        config.text.vocab_size,
        config.vision.tokens_per_tile,
    )

    def prompt(index: int, tiles: int) -> list[int]:
        camera = DEMO_CAMERAS[index % len(DEMO_CAMERAS)]
        question = _QUESTIONS[index % len(_QUESTIONS)]
        return [*builder.prefix([(camera, tiles)]), *builder.suffix(question)]

    return CalibrationData(images, description, prompt)


def _rendered(count: int) -> tuple[tuple[RgbImage, ...], str]:
    images = tuple(render(generate(seed), DEMO_CAMERAS[seed % len(DEMO_CAMERAS)]) for seed in range(count))
    return images, f"{count} rendered street scenes, not pictures of a camera"


def _read(directory: Path) -> tuple[tuple[RgbImage, ...], str]:
    if not directory.is_dir():
        raise ConfigError(f"calibration-images is {directory}; allowed: a directory of JPEG or PNG files. Correct it")
    files = sorted(file for file in directory.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise ConfigError(
            f"calibration-images is {directory}, where there are no JPEG or PNG files; put pictures of your cameras "
            "there"
        )
    images = tuple(decode_compressed(file.suffix[1:].lower(), file.read_bytes()) for file in files[:MOST_IMAGES])
    return images, f"{len(images)} pictures of {directory.name}/"
