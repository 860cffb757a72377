"""Reads the `config.json` of a checkpoint: typed access to its keys, with errors that name the file and the key."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any, NoReturn

from litevlm_ros.errors import CheckpointError, printable
from litevlm_ros.model_directory import TEXT, VISION

_MOST_BYTES = 4 << 20
"""Largest configuration that is read; the largest of published checkpoints have some hundred kilobytes."""
_MOST_LEVELS = 32
"""Deepest nesting that is read, so that no other code runs out of stack."""
_MOST_NUMBER = 1e30
"""Largest number that is read; that of published checkpoints is the 1e7 of rotary positions."""
MOST = 2**31 - 1
"""Largest integer that a configuration may hold unless its key has another bound."""


def read_config(file: Path) -> dict[str, Any]:
    """Parses a `config.json`, or another JSON object that describes a model.

    Raises CheckpointError, which names the file, if it is missing, too large, nested too deep or no JSON object.
    """
    try:
        with file.open("rb") as opened:
            contents = opened.read(_MOST_BYTES + 1)
        if len(contents) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES >> 20} MB")
        parsed = json.loads(contents.decode("utf-8"))
        if not _is_shallow(parsed, _MOST_LEVELS):
            raise RecursionError("it is nested too deep")
        # JSON can hold half of a character, which no file or library takes.
        json.dumps(parsed, ensure_ascii=False).encode()
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


def _is_shallow(value: Any, levels: int) -> bool:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_shallow(item, levels - 1) for item in below)


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

    def integer(self, key: str, default: int | None = None, *, most: int = MOST) -> int:
        """Returns an integer of at most `most`. A list of equal ones, such as [height, width] of a square, is one."""
        value = self.get(key, default)
        if isinstance(value, (list, tuple)) and value and all(side == value[0] for side in value):
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(key, value, "a square size as an integer" if "size" in key else "an integer")
        if abs(value) > most:
            self.refuse(key, value, f"an integer up to {most}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Returns a finite number."""
        value = self.get(key, default)
        # JSON has integers that no float holds, and Python reads NaN and Infinity too.
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _MOST_NUMBER:
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
        shown = printable(reprlib.repr(value), 100)
        raise CheckpointError(f"{self.file}: {self.prefix}{key} is {shown}; supported: {supported}")
