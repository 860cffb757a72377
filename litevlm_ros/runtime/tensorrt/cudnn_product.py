"""Matrix products by cuDNN, summed up in fp32 and rounded once.

The operation: https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/Matmul.html
"""

from __future__ import annotations

from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn, CudnnGraph, CudnnRefusal, Layout

_MULTIPLE = 8
"""The numbers of 16 bits that cuDNN, and the kernels between products, read at once."""


class CudnnProduct:
    """[R, K] times a checkpoint's weight [N, K], for fixed sizes."""

    def __init__(self, cudnn: Cudnn, rows: int, inner: int, columns: int, computed: str, *, result: str) -> None:
        """Builds it for numbers of type `computed` and a `result` [rows, columns] of that type or 'fp32'.

        Raises CudnnRefusal if rows are no multiple of 8 numbers or cuDNN has no kernel for that, and EngineError if
        there is no room for its memory.
        """
        for width in (inner, columns):
            if width % _MULTIPLE:
                raise CudnnRefusal(f"rows of {width} numbers are no multiple of the {_MULTIPLE} that are read at once")

        def define(graph: CudnnGraph) -> None:
            left = graph.input("rows", Layout((1, rows, inner), (rows * inner, inner, 1)), computed)
            right = graph.input("weight", Layout((1, inner, columns), (columns * inner, 1, inner)), computed)
            product = graph.operations.matmul(A=left, B=right, name="product")
            graph.output("result", product, Layout((1, rows, columns), (rows * columns, columns, 1)), result)

        self._kernel = cudnn.kernel("a matrix product", computed, define)

    def enqueue(self, rows: int, weight: int, result: int) -> None:
        """Enqueues it from and to these addresses. Raises CudnnRefusal if cuDNN does not run it."""
        self._kernel.enqueue({"rows": rows, "weight": weight, "result": result})
