"""An option that names the precisions of both halves of a model: `fp16/int4`."""

from __future__ import annotations

from litevlm_ros.config import PRECISIONS
from litevlm_ros.errors import ConfigError


def precision_pair(option: str, text: str) -> tuple[str, str]:
    """Vision encoder's and text decoder's. Raises ConfigError that names the option."""
    vision, _, language = text.partition("/")
    for precision in (vision, language):
        if precision not in PRECISIONS:
            raise ConfigError(f"{option} has {text!r}; allowed: VISION/TEXT, each one of {', '.join(PRECISIONS)}")
    return vision, language
