"""Where the model that ships with the package is, and what makes a directory one. Knows no ROS: tools use it too."""

from __future__ import annotations

import shutil
from pathlib import Path

from litevlm_ros.errors import ConfigError
from litevlm_ros.installation import shipped
from litevlm_ros.model_config import TEXT_DIRECTORY, VISION_DIRECTORY

_DEMO_MODEL = Path("models") / "demo"


def demo_model_directory() -> Path:
    """The demo model of this checkout, of the sourced ROS workspaces (the last sourced first), or of pip's prefix.

    Raises ConfigError if it is in none of them.
    """
    try:
        return shipped(_DEMO_MODEL)
    except ConfigError as error:
        raise ConfigError(f"the demo model is not installed: {error}. Give a model directory") from None


def copy_description(model: Path, output: Path) -> None:
    """Copies what the model directory `model` has beside weights: configurations and tokenizer.

    With graphs or engines, `output` then runs as any model directory. It may be `model` itself. Raises OSError.
    """
    if output.resolve() == model.resolve():
        return
    for part in (VISION_DIRECTORY, TEXT_DIRECTORY):
        (output / part).mkdir(parents=True, exist_ok=True)
        for file in (model / part).iterdir():
            if file.is_file() and ".safetensors" not in file.name:
                shutil.copyfile(file, output / part / file.name)
