"""Which precision an engine is built in: the one that was asked for, or the nearest that the GPU has."""

from __future__ import annotations

from dataclasses import dataclass

from litevlm_ros.engines.fingerprint import format_capability
from litevlm_ros.engines.sidecar import PRECISIONS, TEXT, VISION
from litevlm_ros.errors import ConfigError

FP8_CAPABILITY = (8, 9)
"""The first compute capability with FP8 matrix products (TensorRT's support matrix). Jetson Orin has (8, 7)."""

FP8_FORMS = ("tensor", "channel", "weights")
"""How FP8 is scaled: weights and activations with one scale each; weights with one for each output; or weights so, and
activations left in fp16. Which is fastest is the GPU's and TensorRT's matter: `benchmark --precisions` tells."""

_INSTEAD_OF_FP8 = {VISION: "int8", TEXT: "int4"}
"""At most FP8's size. Decoding is bound by the bytes of the weights, encoding images by arithmetic."""


@dataclass(frozen=True)
class Precision:
    """What was asked for, what is built, and why they differ; `reason` is '' where they do not."""

    asked: str
    built: str
    reason: str = ""


def choose_precision(part: str, asked: str, capability: tuple[int, int] | None, *, strict: bool = False) -> Precision:
    """The precision in which to build `part` (VISION or TEXT) for a GPU; None stands for any GPU.

    Raises ConfigError if `asked` is unknown, or if it cannot be built and `strict` allows nothing else.
    """
    if asked not in PRECISIONS:
        raise ConfigError(f"precision is {asked!r}; allowed: {', '.join(PRECISIONS)}. Use fp16 for the most accurate")
    if asked == "fp8" and capability is not None and capability < FP8_CAPABILITY:
        reason = (
            f"a GPU of compute capability {format_capability(capability)} has no FP8, which needs "
            f"{format_capability(FP8_CAPABILITY)} or newer"
        )
        choice = Precision(asked, _INSTEAD_OF_FP8[part], reason)
    elif asked == "int4" and part == VISION:
        choice = Precision(asked, "int8", "encoding images is bound by arithmetic, which INT4 weights do not speed up")
    else:
        return Precision(asked, asked)
    if strict:
        flag = f"--{part.partition('_')[0]}-precision {choice.built}"
        raise ConfigError(f"the {part.replace('_', ' ')} cannot be built in {asked}: {choice.reason}; leave out "
                          f"--strict or say {flag}")  # fmt: skip
    return choice
