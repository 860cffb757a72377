"""The blocks of the text decoder as cuDNN's matrix products with kernels of this package between them.

They compute what the graphs of `engines/text_blocks.py` say. TensorRT-RTX 1.4 takes 22 µs of an H100 for gate and up of
448 rows where cuDNN takes 14, and so on: a layer needs a quarter less time. They are ready at once, for cuDNN has these
products compiled, and each of them takes no device memory, where a plan of TensorRT-RTX takes 73 MB. The product with
a head that is packed is a kernel of this package, too.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from litevlm_ros.engines.text_blocks import padded_vocabulary, qkv_width
from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.block import ScratchBlock
from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn
from litevlm_ros.runtime.tensorrt.cudnn_product import CudnnProduct
from litevlm_ros.runtime.tensorrt.kernels.head import HeadKernel
from litevlm_ros.runtime.tensorrt.kernels.rows import RowKernels
from litevlm_ros.runtime.tensorrt.memory import Room
from litevlm_ros.runtime.tensorrt.numbers import FLOAT_BYTES, NUMBER_BYTES
from litevlm_ros.runtime.tensorrt.packed_weights import scales_of


class QkvProducts(ScratchBlock):
    """The block 'qkv': the sum and its last change → their sum, and queries, keys and values, not yet rotated."""

    def __init__(
        self, cudnn: Cudnn, kernels: RowKernels, config: TextConfig, computed: str, rows: int, scratch: Room
    ) -> None:
        """Raises CudnnRefusal if cuDNN does not compute it, and EngineError if there is no room."""
        width, packed = config.hidden_size, qkv_width(config)
        super().__init__(rows, scratch, {"normalised": NUMBER_BYTES * rows * width})
        self._kernels = kernels
        self._has_bias, self._has_norms = config.qkv_bias, config.qk_norm
        self._product = CudnnProduct(cudnn, rows, width, packed, computed, result=computed)

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        """See Block."""
        normalised, qkv = self._places()["normalised"], addresses["qkv"]
        added = addresses["sum"], addresses["change"], addresses["input_norm"], addresses["residual"]
        self._kernels.add_and_normalise(*added, normalised, self._rows)
        self._product.enqueue(normalised, addresses["qkv_weight"], qkv)
        if self._has_bias:
            self._kernels.add_bias(qkv, addresses["qkv_bias"], self._rows)
        if self._has_norms:
            self._kernels.normalise_heads(qkv, addresses["q_norm"], addresses["k_norm"], self._rows)


class MlpProducts(ScratchBlock):
    """The block 'mlp': the rest of a layer behind its attention, output projection and MLP."""

    def __init__(
        self, cudnn: Cudnn, kernels: RowKernels, config: TextConfig, computed: str, rows: int, scratch: Room
    ) -> None:
        """Raises CudnnRefusal if cuDNN does not compute it, and EngineError if there is no room."""
        width, inner, mixed = config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim
        sizes = {
            "mixed": FLOAT_BYTES * rows * width,
            "normalised": NUMBER_BYTES * rows * width,
            "gate_up": 2 * NUMBER_BYTES * rows * inner,
            "active": NUMBER_BYTES * rows * inner,
        }
        super().__init__(rows, scratch, sizes)
        self._kernels = kernels
        # What is added to the sum over the layers is fp32: one MLP of a real model may pass fp16's largest number.
        self._o_proj = CudnnProduct(cudnn, rows, mixed, width, computed, result="fp32")
        self._gate_up = CudnnProduct(cudnn, rows, width, 2 * inner, computed, result=computed)
        self._down = CudnnProduct(cudnn, rows, inner, width, computed, result="fp32")

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        """See Block."""
        at, kernels, rows = self._places(), self._kernels, self._rows
        self._o_proj.enqueue(addresses["attention"], addresses["o_proj"], at["mixed"])
        added = addresses["residual"], at["mixed"], addresses["post_norm"], addresses["sum"]
        kernels.add_and_normalise(*added, at["normalised"], rows)
        self._gate_up.enqueue(at["normalised"], addresses["gate_up"], at["gate_up"])
        kernels.silu_gate(at["gate_up"], at["active"], rows)
        self._down.enqueue(at["active"], addresses["down"], addresses["change"])


class _Head(ScratchBlock):
    """The block 'head': the last layer's sum and change → the logits of the rows whose logits are asked for."""

    def __init__(self, kernels: RowKernels, config: TextConfig, rows: int, scratch: Room) -> None:
        """Raises EngineError if there is no room."""
        width = config.hidden_size
        sizes = {"total": FLOAT_BYTES * rows * width, "normalised": NUMBER_BYTES * rows * width}
        super().__init__(rows, scratch, sizes)
        self._kernels = kernels

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        """See Block."""
        at = self._places()
        added = addresses["sum"], addresses["change"], addresses["norm"], at["total"]
        self._kernels.add_and_normalise(*added, at["normalised"], self._rows)
        self._multiply(at["normalised"], addresses)

    @abstractmethod
    def _multiply(self, normalised: int, addresses: Mapping[str, int]) -> None:
        """Enqueues the product of `normalised` rows and the head."""


class HeadProducts(_Head):
    """The block 'head' with a head of numbers."""

    def __init__(
        self, cudnn: Cudnn, kernels: RowKernels, config: TextConfig, computed: str, rows: int, scratch: Room
    ) -> None:
        """Raises CudnnRefusal if cuDNN does not compute it, and EngineError if there is no room."""
        super().__init__(kernels, config, rows, scratch)
        outputs = padded_vocabulary(config)
        self._product = CudnnProduct(cudnn, rows, config.hidden_size, outputs, computed, result=computed)

    def _multiply(self, normalised: int, addresses: Mapping[str, int]) -> None:
        self._product.enqueue(normalised, addresses["head"], addresses["logits"])


class PackedHead(_Head):
    """The block 'head' with a head in int8, whose scales lie at the address `scales_of("head")`."""

    def __init__(self, product: HeadKernel, kernels: RowKernels, config: TextConfig, rows: int, scratch: Room) -> None:
        """Raises EngineError if there is no room."""
        super().__init__(kernels, config, rows, scratch)
        self._product = product

    def _multiply(self, normalised: int, addresses: Mapping[str, int]) -> None:
        scales = addresses[scales_of("head")]
        self._product.multiply(normalised, addresses["head"], scales, addresses["logits"], self._rows)
