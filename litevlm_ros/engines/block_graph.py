"""The graph of a block: a part of a network whose weights are inputs, so that one engine serves every layer.

A block is written in ONNX's text syntax (https://onnx.ai/onnx/repo-docs/Syntax.html) and needs no package until it is
parsed. Its activations have `R` rows, a size that each plan fixes; everything else is fixed by the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OPSET = 17
"""The version of ONNX's operators that blocks are written in. TensorRT 10.3 reads it."""

UNIT = "unit"
"""The name of an fp32 input [1, 1] that is always 1, which TensorRT does not know."""

ROWS = "R"
"""The name of the size that plans fix."""

FLOAT = "float"
"""ONNX's name of fp32."""
TYPES = {"fp16": "float16", "bf16": "bfloat16"}
"""Precision in which a block multiplies → ONNX's name of its type."""
_NUMBERS = {"float": 1, "float16": 10, "bfloat16": 16}
"""ONNX's names of types → their numbers in `TensorProto.DataType`, for Cast."""


def wide_type(kind: str) -> str:
    """Returns ONNX's name of the type in which biases are added behind products of the type `kind`.

    See `Body.linear` for the reason.
    """
    return FLOAT if kind == "float16" else kind


@dataclass(frozen=True)
class BlockTensor:
    """An input or output of a block. `shape` holds sizes, or ROWS; `type` is ONNX's name, such as 'float16'."""

    name: str
    type: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.type}[{', '.join(map(str, self.shape))}] {self.name}"


@dataclass(frozen=True)
class BlockGraph:
    """A block: `activations` and `weights` are its inputs, and `body` is the text between its braces."""

    name: str
    activations: tuple[BlockTensor, ...]
    weights: tuple[BlockTensor, ...]
    outputs: tuple[BlockTensor, ...]
    body: str

    def text(self) -> str:
        """Returns the whole model in ONNX's text syntax."""
        inputs = ", ".join(map(str, (*self.activations, *self.weights)))
        outputs = ", ".join(map(str, self.outputs))
        header = f'<ir_version: 8, opset_import: ["" : {OPSET}]>'
        return f"{header}\n{self.name} ({inputs}) => ({outputs})\n{{\n{self.body}}}\n"

    def serialized(self) -> bytes:
        """Returns the ONNX model as TensorRT's parser takes it. Needs the package onnx."""
        import onnx

        model: onnx.ModelProto = onnx.parser.parse_model(self.text())
        onnx.checker.check_model(model)
        return model.SerializeToString()


class Body:
    """Collects the statements of a block. Methods append them and return the name of their result."""

    def __init__(self, kind: str) -> None:
        """`kind` is ONNX's name of the type in which the block multiplies."""
        self.kind = kind
        self.wide = wide_type(kind)
        """The type of what follows a product in its kernel: biases, factors, and the value that `gelu` takes."""
        self._uses_unit = False
        self._lines: list[str] = []
        self._count = 0

    def __str__(self) -> str:
        return "".join(f"  {line}\n" for line in self._lines)

    def op(self, call: str, name: str = "") -> str:
        """Appends `name = call` and returns the name, which is made up if none is given."""
        self._count += 1
        name = name or f"t{self._count}"
        self._lines.append(f"{name} = {call}")
        return name

    def cast(self, value: str, kind: str, name: str = "") -> str:
        """Converts to the type `kind`."""
        return self.op(f"Cast<to = {_NUMBERS[kind]}>({value})", name)

    def constant(self, value: float) -> str:
        """An fp32 scalar."""
        return self.op(f"Constant<value_float = {value!r}>()")

    def integers(self, values: Sequence[int]) -> str:
        """An int64 vector, as Reshape and Slice take it."""
        return self.op(f"Constant<value_ints = [{', '.join(map(str, values))}]>()")

    def linear(self, rows: str, weight: str, bias: str = "", factor: str = "", *, to: str, name: str = "") -> str:
        """Returns [R, N] of the type `to`: `rows` [R, K] times a checkpoint's weight [N, K], plus a bias [1, N], times
        a factor. Bias and factor are `wide`.

        In fp16, TensorRT sums up in the type in which a product leaves its kernel, and sums of 4096 numbers in fp16 are
        off by 0.2 %. So an fp32 operation follows each product, in the same kernel: a bias, a factor (UNIT where there
        is no other), or the conversion for an fp32 output of the block. A norm would take the operation over into its
        own kernel, so what a norm reads leaves the block before it, but for the attention's output projection, which
        adds fewer numbers.

        In bf16 it sums up in fp32 in any case. There no fp32 operation may follow, because a kernel of TensorRT-RTX 1.4
        that multiplies, computes in fp32 and then converts to bf16 writes nonsense on an H100.
        """
        if self.wide == FLOAT and to != FLOAT and not bias and not factor:
            factor, self._uses_unit = UNIT, True
        steps = [f"Gemm<transB = 1>({rows}, {weight})"]
        steps += [f"Cast<to = {_NUMBERS[self.wide]}>({{}})"] if self.wide != self.kind else []
        steps += [f"Add({{}}, {bias})"] if bias else []
        steps += [f"Mul({{}}, {factor})"] if factor else []
        steps += [f"Cast<to = {_NUMBERS[to]}>({{}})"] if to != self.wide else []
        result = ""
        for step in steps:
            result = self.op(step.format(result), name if step is steps[-1] else "")
        return result

    def unit(self) -> tuple[BlockTensor, ...]:
        """Returns the input UNIT, if the statements so far read it."""
        return (BlockTensor(UNIT, FLOAT, (1, 1)),) if self._uses_unit else ()

    def layer_norm(self, rows: str, weight: str, bias: str, eps: float) -> str:
        """LayerNorm over the last axis of fp32 rows, with fp32 weights; the result has the block's type."""
        return self.cast(self.op(f"LayerNormalization<axis = -1, epsilon = {eps!r}>({rows}, {weight}, {bias})"),
                         self.kind)  # fmt: skip

    def rms_norm(self, rows: str, weight: str, eps: float) -> str:
        """x / rms(x) * weight over the last axis of fp32 rows, with fp32 weights; the result has the block's type."""
        mean = self.op(f"ReduceMean<axes = [-1], keepdims = 1>({self.op(f'Mul({rows}, {rows})')})")
        root = self.op(f"Sqrt({self.op(f'Add({mean}, {self.constant(eps)})')})")
        return self.cast(self.op(f"Mul({self.op(f'Div({rows}, {root})')}, {weight})"), self.kind)

    def gelu(self, value: str) -> str:
        """GELU of a value that is `wide`, as x / 2 * (1 + tanh(0.80015 x + 0.03470415 x³)), in the block's type.

        It is off by at most 2.7e-4, about a rounding of fp16 at 1. With the exact one, whose Erf is slow in a product's
        kernel, TensorRT-RTX needs a tenth more time for a whole layer. The form is that of Hendrycks and Gimpel
        (arXiv 1606.08415), with coefficients for the smallest largest error.
        """
        square = self.op(f"Mul({value}, {value})")
        cubic = self.op(f"Mul({square}, {self._wide_constant(0.03470415)})")
        slope = self.op(f"Add({cubic}, {self._wide_constant(0.80015)})")
        bend = self.op(f"Tanh({self.op(f'Mul({value}, {slope})')})")
        half = self.op(f"Mul({value}, {self._wide_constant(0.5)})")
        active = self.op(f"Add({half}, {self.op(f'Mul({half}, {bend})')})")
        return active if self.wide == self.kind else self.cast(active, self.kind)

    def silu_gate(self, gate: str, up: str) -> str:
        """silu(gate) * up, computed in fp32."""
        wide = self.cast(gate, FLOAT)
        active = self.op(f"Mul({wide}, {self.op(f'Sigmoid({wide})')})")
        return self.cast(self.op(f"Mul({active}, {self.cast(up, FLOAT)})"), self.kind)

    def _wide_constant(self, value: float) -> str:
        constant = self.constant(value)
        return constant if self.wide == FLOAT else self.cast(constant, self.wide)
