"""The error for a model whose numbers are infinite or NaN, in the same words for every backend."""

from __future__ import annotations

from litevlm_ros.errors import NotFiniteError
from litevlm_ros.model_directory import PLAIN, TEXT
from litevlm_ros.precision import computed_in, precision_flag

_FP16_LARGEST = 65504


def not_finite(part: str, precision: str, layer: int | None = None) -> NotFiniteError:
    """Returns the error to raise when `part` (VISION or TEXT), which runs in `precision`, gave infinite or NaN numbers.

    `layer` is the first layer, counted from 0 as in the checkpoint, whose output is not finite. It is None where only
    the result is known to be bad: the logits or the visual tokens.
    """
    name, flag = part.replace("_", " "), precision_flag(part)
    result = "its logits are" if part == TEXT else "its visual tokens are"
    if precision != PLAIN and computed_in(precision) == "fp16":
        stored = "" if precision == "fp16" else f", in which {precision} is computed"
        where = f"the {name}: {result} infinite or NaN, so a layer gives"
        if layer is not None:
            where = f"layer {layer} of the {name}: its attention or MLP gives"
        return NotFiniteError(
            f"{where} numbers beyond what fp16 holds ({_FP16_LARGEST}){stored}. Use bf16, which holds larger ones: "
            f"`ros2 run litevlm_ros build_engines {flag} bf16` and the parameter {_parameter(flag)}: bf16. Without a "
            "GPU use fp32: `ros2 run litevlm_ros export_onnx` and the parameters vision_precision: auto and "
            "text_precision: auto"
        )
    where = f"the {name}: {result}"
    if layer is not None:
        where = f"layer {layer} of the {name}: the numbers of its attention or MLP are"
    built = "bf16" if precision == "bf16" else "fp16"
    return NotFiniteError(
        f"{where} infinite or NaN in {precision}, which holds all that a sound model computes. So the weights are "
        "damaged or the checkpoint is broken: download it again (`ros2 run litevlm_ros download_models`), then make "
        f"its graphs and engines again (`ros2 run litevlm_ros export_onnx`, `ros2 run litevlm_ros build_engines {flag} "
        f"{built}`)"
    )


def _parameter(flag: str) -> str:
    """Returns the node's parameter for one of the tools' options, such as text_precision for --text-precision."""
    return flag.removeprefix("--").replace("-", "_")
