"""Steps of up to 16 new tokens as one kernel: its buffers, the table of its weights, and programs that launch it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from litevlm_ros.config import MOST_LOGITS
from litevlm_ros.engines.shapes import next_size
from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.decode import COUNT_BYTES, DecodeKernels, Step, sum_words
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Slots
from litevlm_ros.runtime.tensorrt.numbers import FLOAT_BYTES
from litevlm_ros.runtime.tensorrt.packed_weights import StoredWeight
from litevlm_ros.runtime.tensorrt.program import Program
from litevlm_ros.runtime.tensorrt.text_buffers import RING, TextBuffers, TextInputs
from litevlm_ros.runtime.tensorrt.text_programs import idle_program, prompt_program
from litevlm_ros.runtime.tensorrt.weights import RunWeights, TextWeights

_INT_BYTES = 4
_MATRICES = ("qkv_weight", "o_proj", "gate_up", "down")
"""The matrices of a layer in the order of `enum Product` in share.cuh."""


def layer_matrices(weights: TextWeights) -> Iterator[StoredWeight]:
    """Yields the matrices of all layers as they are stored."""
    for run in weights.runs[:-1]:
        yield from (run.stored[name] for name in _MATRICES if name in run.stored)


class DecodeSteps:
    """Makes and keeps the programs. The device must be current, and no decode step may be running, in every call."""

    def __init__(
        self,
        config: TextConfig,
        kernels: DecodeKernels,
        weights: TextWeights,
        buffers: TextBuffers,
        device: CudaDevice,
        memory: DeviceMemory,
        *,
        visual_is_bf16: bool,
    ) -> None:
        """Allocates what the kernel works on besides `buffers`. Raises EngineError if memory is short."""
        self._config, self._kernels, self._weights = config, kernels, weights
        self._buffers, self._device, self._memory = buffers, device, memory
        self._visual_is_bf16 = visual_is_bf16
        table = np.array([*self._layers()], np.uint64)
        candidates = MOST_LOGITS * kernels.teams.blocks
        self._at = Slots(memory, "decode kernel", {
            "layers": table.nbytes,
            "sums": FLOAT_BYTES * sum_words(config),
            "best": FLOAT_BYTES * candidates,
            "best_at": _INT_BYTES * candidates,
            "counts": COUNT_BYTES,
        })  # fmt: skip
        memory.write(self._at["layers"], table)
        self._prompts: dict[int, Program] = {}
        self._step: Program | None = None

    @property
    def most_tokens(self) -> int:
        """The most tokens that a program reads: MOST_LOGITS, unless this GPU has too little shared memory for them."""
        return self._kernels.sizes[-1]

    def prompt(self, count: int) -> Program:
        """Returns the program that reads up to `count` tokens, at most `most_tokens`, and computes the logits of each.

        Its inputs are `TextBuffers.prompt`; row t of its results belongs to token t. Raises EngineError.
        """
        tokens = next_size(count, self._kernels.sizes)
        if tokens not in self._prompts:
            step = self._argument(self._buffers.prompt)
            name = f"the text decoder for up to {tokens} tokens"
            pieces = [lambda: self._kernels.launch(tokens, step)]
            self._prompts[tokens] = prompt_program(self._device, name, pieces, self._buffers)
        return self._prompts[tokens]

    def step(self) -> Program:
        """Returns the program that reads the token of `write_state`, or what the last step found.

        Raises EngineError.
        """
        if self._step is None:
            step = self._argument(self._buffers.state, steps=self._buffers.step)
            pieces = [lambda: self._kernels.launch(1, step)]
            self._step = idle_program(self._device, "the text decoder's step", pieces, self._buffers)
        return self._step

    def close(self) -> None:
        """Frees programs, kernels and buffers. None of them may be running."""
        for program in (*self._prompts.values(), *filter(None, [self._step])):
            program.close()
        self._prompts.clear()
        self._step = None
        self._kernels.close()
        self._memory.release(self._at.address)

    def _argument(self, inputs: TextInputs, steps: int = 0) -> Step:
        """Returns the kernel's argument. With `steps`, the next token becomes the next step's input."""
        at, buffers, head = self._at, self._buffers, self._weights.runs[-1]
        return Step(
            layers=at["layers"],
            embedding=self._weights.embedding.values,
            word_scales=self._weights.embedding.scales,
            visual=buffers.visual,
            final_norm=head.addresses["norm"],
            frequencies=buffers.frequencies,
            ids=inputs.ids,
            positions=inputs.positions,
            lengths=inputs.lengths,
            sums=at["sums"],
            best=at["best"],
            best_at=at["best_at"],
            counts=at["counts"],
            logits=buffers.logits,
            next_tokens=buffers.next_tokens,
            bad=buffers.bad,
            allowed=0,
            penalised=0,
            penalty=0,
            steps=steps,
            ring=buffers.ring_address if steps else 0,
            eps=self._config.rms_norm_eps,
            visual_is_bf16=int(self._visual_is_bf16),
            ring_size=RING,
        )

    def _layers(self) -> Iterator[tuple[int, ...]]:
        """Yields `struct Layer` of share.cuh for each layer."""
        runs = iter(self._weights.runs)
        head = self._weights.head
        for index in range(self._config.num_layers):
            qkv, mlp = next(runs), next(runs)
            yield _layer(qkv, mlp, head, self._buffers.keys(index), self._buffers.values(index))


def _layer(qkv: RunWeights, mlp: RunWeights, head: StoredWeight, keys: int, values: int) -> tuple[int, ...]:
    matrices = [*({**qkv.stored, **mlp.stored}[name] for name in _MATRICES), head]
    return (
        *(matrix.values for matrix in matrices),
        *(matrix.scales for matrix in matrices),
        qkv.addresses.get("qkv_bias", 0),
        qkv.addresses["input_norm"],
        mlp.addresses["post_norm"],
        qkv.addresses.get("q_norm", 0),
        qkv.addresses.get("k_norm", 0),
        keys,
        values,
    )
