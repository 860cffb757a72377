"""The blocks of the vision encoder as cuDNN's matrix products with kernels of this package between them.

They compute what the graphs of `engines/vision_blocks.py` say. A plan of TensorRT-RTX 1.4 has what follows a product in
the product's own kernel. cuDNN's plain products are faster than those, which pays for the kernels between them where
rows are few. They round once, and take no device memory, where a plan of TensorRT-RTX takes 73 MB.
"""

from __future__ import annotations

from collections.abc import Mapping

from litevlm_ros.engines.vision_blocks import patch_width
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.tensorrt.block import ScratchBlock
from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn
from litevlm_ros.runtime.tensorrt.cudnn_product import CudnnProduct
from litevlm_ros.runtime.tensorrt.kernels.vision_rows import VisionRowKernels
from litevlm_ros.runtime.tensorrt.memory import Room
from litevlm_ros.runtime.tensorrt.numbers import FLOAT_BYTES, NUMBER_BYTES


class PatchProducts(ScratchBlock):
    """The block 'patches': patches → the sum that the layers begin with."""

    def __init__(
        self, cudnn: Cudnn, kernels: VisionRowKernels, model: ModelConfig, computed: str, rows: int, scratch: Room
    ) -> None:
        """Raises CudnnRefusal if cuDNN does not compute it."""
        super().__init__(rows, scratch, {})
        self._kernels, config = kernels, model.vision
        self._product = CudnnProduct(cudnn, rows, patch_width(config), config.hidden_size, computed, result="fp32")

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        """See Block."""
        self._product.enqueue(addresses["patches"], addresses["patch_embedding"], addresses["sum"])
        self._kernels.add_positions(addresses["sum"], addresses["positions"], self._rows)


class QkvProducts(ScratchBlock):
    """The block 'qkv': the sum and its last change → their sum, and queries, keys and values."""

    def __init__(
        self, cudnn: Cudnn, kernels: VisionRowKernels, model: ModelConfig, computed: str, rows: int, scratch: Room
    ) -> None:
        """Raises CudnnRefusal if cuDNN does not compute it, and EngineError if there is no room."""
        self._kernels, self._width, self._has_bias = kernels, model.vision.hidden_size, model.vision.qkv_bias
        super().__init__(rows, scratch, {"normalised": NUMBER_BYTES * rows * self._width})
        self._product = CudnnProduct(cudnn, rows, self._width, 3 * self._width, computed, result=computed)

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        """See Block."""
        normalised = self._places()["normalised"]
        self._kernels.add_and_normalise(
            addresses["sum"],
            addresses["change"],
            addresses["norm1_weight"],
            addresses["norm1_bias"],
            addresses["residual"],
            normalised,
            self._rows,
        )
        self._product.enqueue(normalised, addresses["qkv_weight"], addresses["qkv"])
        if self._has_bias:
            self._kernels.add_bias(addresses["qkv"], addresses["qkv_bias"], self._rows, 3 * self._width)


class MlpProducts(ScratchBlock):
    """The block 'mlp': the rest of a layer behind its attention, output projection and MLP."""

    def __init__(
        self, cudnn: Cudnn, kernels: VisionRowKernels, model: ModelConfig, computed: str, rows: int, scratch: Room
    ) -> None:
        """Raises CudnnRefusal if cuDNN does not compute it, and EngineError if there is no room."""
        width, inner = model.vision.hidden_size, model.vision.intermediate_size
        sizes = {
            "product": FLOAT_BYTES * rows * width,  # of both products that are added to the sum
            "normalised": NUMBER_BYTES * rows * width,
            "active": NUMBER_BYTES * rows * inner,
        }
        super().__init__(rows, scratch, sizes)
        self._kernels, self._inner = kernels, inner
        self._proj = CudnnProduct(cudnn, rows, width, width, computed, result="fp32")
        self._fc1 = CudnnProduct(cudnn, rows, width, inner, computed, result=computed)
        self._fc2 = CudnnProduct(cudnn, rows, inner, width, computed, result="fp32")

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        """See Block."""
        at, kernels, rows = self._places(), self._kernels, self._rows
        self._proj.enqueue(addresses["attention"], addresses["proj"], at["product"])
        kernels.add_scaled_and_normalise(
            addresses["residual"],
            at["product"],
            addresses["proj_bias"],
            addresses["scale1"],
            addresses["norm2_weight"],
            addresses["norm2_bias"],
            addresses["sum"],
            at["normalised"],
            rows,
        )
        self._fc1.enqueue(at["normalised"], addresses["fc1"], at["active"])
        kernels.gelu(at["active"], addresses["fc1_bias"], rows, self._inner)
        self._fc2.enqueue(at["active"], addresses["fc2"], at["product"])
        kernels.scale_change(at["product"], addresses["fc2_bias"], addresses["scale2"], addresses["change"], rows)


class ProjectorProducts(ScratchBlock):
    """The block 'projector': the last layer's sum and change → visual tokens."""

    def __init__(
        self, cudnn: Cudnn, kernels: VisionRowKernels, model: ModelConfig, computed: str, rows: int, scratch: Room
    ) -> None:
        """Raises CudnnRefusal if cuDNN does not compute it, and EngineError if there is no room."""
        config, self._width = model.vision, model.text.hidden_size
        self._kernels, self._tokens = kernels, rows // (1 + config.grid**2) * config.tokens_per_tile
        sizes = {
            "normalised": NUMBER_BYTES * self._tokens * config.projector_size,
            "active": NUMBER_BYTES * self._tokens * self._width,
        }
        super().__init__(rows, scratch, sizes)
        inner, width = config.projector_size, self._width
        self._first = CudnnProduct(cudnn, self._tokens, inner, width, computed, result=computed)
        self._second = CudnnProduct(cudnn, self._tokens, width, width, computed, result=computed)

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        """See Block."""
        at, kernels, tokens = self._places(), self._kernels, self._tokens
        weight, bias = addresses["norm_weight"], addresses["norm_bias"]
        kernels.fold_and_normalise(addresses["sum"], addresses["change"], weight, bias, at["normalised"], tokens)
        self._first.enqueue(at["normalised"], addresses["projector1"], at["active"])
        kernels.gelu(at["active"], addresses["projector1_bias"], tokens, self._width)
        self._second.enqueue(at["active"], addresses["projector2"], addresses["visual_tokens"])
        kernels.add_bias(addresses["visual_tokens"], addresses["projector2_bias"], tokens, self._width)
