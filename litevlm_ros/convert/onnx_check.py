"""Comparison of an exported graph, in ONNX Runtime, with the torch module it was drawn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from litevlm_ros.convert.draft_head import DraftHead
from litevlm_ros.convert.intern_vit import InternVisionEncoder
from litevlm_ros.convert.onnx_graphs import draft_inputs, text_inputs
from litevlm_ros.convert.qwen import QwenDecoder
from litevlm_ros.convert.token_scorer import TokenScorer
from litevlm_ros.errors import EngineError, NotFiniteError

TOLERANCE = {torch.float32: 1e-4, torch.float16: 3e-2}
"""Largest relative error of a graph against its module that is allowed, by dtype."""
EIGHT_BIT_TOLERANCE = 0.25
"""The same for graphs that multiply in 8 bits. Any mistake in how weights are stored gives errors of 1."""


def check_vision_graph(file: Path, module: InternVisionEncoder, tolerance: float | None = None) -> float:
    """Returns the relative error of `file` on random tiles. Raises EngineError beyond `tolerance`, or TOLERANCE."""
    size = module.config.image_size
    pixels = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(pixels)
    return compare(file, {"pixels": pixels}, {"visual_tokens": expected}, module.positions.dtype, tolerance)


def check_text_graph(file: Path, module: QwenDecoder, tolerance: float | None = None) -> float:
    """Returns the relative error of `file` in a prefill and a decode step.

    Raises EngineError beyond `tolerance`, or TOLERANCE.
    """
    prefill = _check_text(file, module, text_inputs(module, new=9, rows=8, wanted=3, visual=4), tolerance)
    decode = _check_text(file, module, text_inputs(module, new=1, rows=16, wanted=1, visual=1), tolerance)
    return max(prefill, decode)


def check_draft_graph(file: Path, module: DraftHead) -> float:
    """Returns the relative error of `file` for several tokens and for one. Raises EngineError beyond TOLERANCE."""
    return max(_check_draft(file, module, draft_inputs(module, new, rows)) for new, rows in ((6, 8), (1, 16)))


def check_scorer_graph(file: Path, module: TokenScorer) -> float:
    """Returns the relative error of `file` on random visual tokens. Raises EngineError beyond TOLERANCE."""
    shape = 2, module.tokens_per_tile, module.norm.weight.shape[0]
    visual = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(visual)
    return compare(file, {"visual_tokens": visual}, {"scores": expected}, module.norm.weight.dtype)


def _check_draft(file: Path, module: DraftHead, inputs: tuple[Tensor, ...]) -> float:
    names = ("input_ids", "hidden", "past_length", "past_key", "past_value")
    with torch.no_grad():
        _, *results = module(*inputs)
    expected = dict(zip(("next_hidden", "new_key", "new_value"), results, strict=True))
    return compare(file, dict(zip(names, inputs, strict=True)), expected, module.fuse.weight.dtype)


def _check_text(
    file: Path,
    module: QwenDecoder,
    inputs: tuple[torch.Tensor | list[torch.Tensor], ...],
    tolerance: float | None,
) -> float:
    with torch.no_grad():
        logits, _, hidden, new_keys, new_values = module(*inputs)
    scalars = ("input_ids", "position_ids", "past_length", "logit_positions", "visual_tokens")
    feeds = {name: value for name, value in zip(scalars, inputs[:5], strict=True) if isinstance(value, Tensor)}
    expected = {"logits": logits, "hidden": hidden}
    for kind, values in (("key", inputs[5]), ("value", inputs[6])):
        feeds |= {f"past_{kind}.{layer}": value for layer, value in enumerate(values)}
    for kind, outputs in (("key", new_keys), ("value", new_values)):
        expected |= {f"new_{kind}.{layer}": value for layer, value in enumerate(outputs)}
    return compare(file, feeds, expected, module.norm.weight.dtype, tolerance)


def compare(
    file: Path,
    feeds: dict[str, Tensor],
    expected: dict[str, Tensor],
    dtype: torch.dtype,
    tolerance: float | None = None,
) -> float:
    """Returns the largest relative error of what `file` computes from `feeds` against `expected`, both by name.

    Raises EngineError beyond `tolerance`, by default the TOLERANCE of `dtype`, and NotFiniteError if `expected` is not
    finite. The message does not name the file, which may have a temporary name.
    """
    for name, wanted in expected.items():
        if not wanted.isfinite().all():
            raise NotFiniteError(
                f"torch's own {name} are infinite or NaN, so the model's numbers go beyond what "
                f"{str(dtype).removeprefix('torch.')} holds, or its weights are damaged. Export it in fp32, and build "
                "engines with `ros2 run litevlm_ros build_engines --precision bf16`"
            )
    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        results = session.run(list(expected), {name: value.numpy() for name, value in feeds.items()})
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise EngineError(f"ONNX Runtime cannot run it: {error}") from error
    worst, allowed = 0.0, TOLERANCE[dtype] if tolerance is None else tolerance
    for (name, wanted), result in zip(expected.items(), results, strict=True):
        off = relative_error(result, wanted.numpy())
        if not off <= allowed:
            raise EngineError(f"its {name} is off by {off:.2g} against torch, relative; allowed {allowed:.2g}")
        worst = max(worst, off)
    return worst


def relative_error(result: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest absolute difference over the largest absolute expected value.

    It is NaN if any number is not finite.
    """
    difference = np.abs(result.astype(np.float64) - expected.astype(np.float64)).max()
    return float(difference / np.abs(expected.astype(np.float64)).max())
