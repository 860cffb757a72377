"""Reads the `config.json` of a checkpoint: typed access to its keys, with errors that name the file and the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_directory import TEXT, VISION


def read_config(file: Path) -> dict[str, Any]:
    """Parses a `config.json`. Raises CheckpointError, which names the file, if it is missing or no JSON object."""
    try:
        parsed = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{file} is missing; a model directory holds {VISION}/ and {TEXT}/, each with its "
            "config.json. Download a model with `ros2 run litevlm_ros download_models`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:  # JSON's and UTF-8's are ValueErrors
        raise CheckpointError(f"{file} cannot be read as JSON: {error}. Download the model again") from error
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{file} holds a {type(parsed).__name__}, not a JSON object. Download the model again")
    return parsed


class ConfigSection:
    """One JSON object of a configuration file. A key whose value is null counts as absent.

    `prefix` is the path of the object in the file, such as 'vision_config.'. The methods raise CheckpointError.
    """

    def __init__(self, values: dict[str, Any], file: Path, prefix: str = "") -> None:
        self.values = values
        self.file = file
        self.prefix = prefix

    def get(self, key: str, default: Any = None) -> Any:
        """Returns the value of `key`, or `default` if it is absent."""
        value = self.values.get(key)
        return default if value is None else value

    def section(self, *keys: str) -> ConfigSection:
        """Returns the object under the first of `keys` that there is."""
        for key in keys:
            if isinstance(self.values.get(key), dict):
                return ConfigSection(self.values[key], self.file, f"{self.prefix}{key}.")
        raise CheckpointError(
            f"{self.file}: {' or '.join(keys)} is missing. Is this the config.json of an InternVL model?"
        )

    def integer(self, key: str, default: int | None = None) -> int:
        """Returns an integer. A list of equal integers, such as [height, width] of a square, counts as one."""
        value = self.get(key, default)
        if isinstance(value, (list, tuple)) and value and all(side == value[0] for side in value):
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(key, value, "a square size as an integer" if "size" in key else "an integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Returns a number."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.refuse(key, value, "a number")
        return float(value)

    def texts(self, key: str) -> list[str]:
        """Returns a list of texts, empty if the key is absent."""
        value = self.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.refuse(key, value, "a list of texts")
        return value

    def require(self, key: str, default: Any, *supported: Any) -> None:
        """Raises CheckpointError if the value of `key`, or `default` if it is absent, is not a supported one."""
        value = self.get(key, default)
        if value not in supported:
            self.refuse(key, value, " or ".join(repr(choice) for choice in supported))

    def refuse(self, key: str, value: Any, supported: str) -> NoReturn:
        """Raises the CheckpointError for a value that is not supported."""
        raise CheckpointError(f"{self.file}: {self.prefix}{key} is {value!r}; supported: {supported}")
