"""Programs of the text decoder's blocks: one for each number of new tokens and of logits, and one for decode steps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from litevlm_ros.config import MOST_LOGITS
from litevlm_ros.engines.shapes import logit_rows, next_size, prompt_rows
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.text import TextKernels
from litevlm_ros.runtime.tensorrt.program import Piece, Program
from litevlm_ros.runtime.tensorrt.text_buffers import RING, TextBuffers
from litevlm_ros.runtime.tensorrt.text_layers import TextLayers

MOST_PROMPTS = 8
"""The number of prompt sizes, those of drafts aside, whose programs are kept; beyond, the one that was used longest ago
is dropped. Where TensorRT computes the blocks, a program has two or three plans, and TensorRT-RTX 1.4 takes 73 MB of an
H100's memory for each."""


class BlockPrograms:
    """Makes and keeps the programs. The device must be current, and no decode step may be running, in every call."""

    def __init__(self, device: CudaDevice, layers: TextLayers, kernels: TextKernels, buffers: TextBuffers) -> None:
        """Makes none of them yet."""
        self._device, self._layers, self._kernels, self._buffers = device, layers, kernels, buffers
        self._sizes = prompt_rows(buffers.most_new)
        self._step: Program | None = None
        self.prompts: OrderedDict[tuple[int, int], Program] = OrderedDict()
        """The programs that are kept, by numbers of new tokens and of logits; the one that was used last is last."""

    def prompt(self, count: int, wanted: int) -> Program:
        """Returns the program that reads `count` tokens and computes the logits of the last `wanted`, in rows from 0.

        Its inputs are `TextBuffers.prompt`. Raises EngineError.
        """
        new, logits = next_size(count, self._sizes), next_size(wanted, logit_rows())
        key = new, logits
        if key not in self.prompts:
            kept = [each for each in self.prompts if each[0] > MOST_LOGITS]
            if new > MOST_LOGITS and len(kept) >= MOST_PROMPTS:
                self.prompts.pop(kept[0]).close()
            layers = self._layers.pieces(new, logits, self._buffers.prompt)
            name = f"the text decoder for {new} tokens and {logits} logits"
            self.prompts[key] = prompt_program(self._device, name, layers, self._buffers)
        self.prompts.move_to_end(key)
        return self.prompts[key]

    def step(self) -> Program:
        """Returns the program that reads the token of `write_state`, or what the last step found.

        Raises EngineError.
        """
        if self._step is None:
            buffers, state = self._buffers, self._buffers.state
            pieces = list(self._layers.pieces(1, 1, state))
            pieces.append(
                lambda: self._kernels.advance(
                    next_token=buffers.next_tokens,
                    bad=buffers.bad,
                    input_id=state.ids,
                    position=state.positions,
                    lengths=state.lengths,
                    step=buffers.step,
                    ring=buffers.ring_address,
                    ring_size=RING,
                )
            )
            self._step = idle_program(self._device, "the text decoder's step", pieces, buffers)
        return self._step

    def forget_graphs(self) -> None:
        """Has all programs recorded anew, as blocks' working memory has moved. None of them may be running."""
        for program in self._programs():
            program.forget_graph()

    def close(self) -> None:
        """Frees all programs, and the blocks that nothing else uses. None of them may be running."""
        for program in self._programs():
            program.close()
        self.prompts.clear()
        self._step = None

    def _programs(self) -> Iterator[Program]:
        yield from self.prompts.values()
        if self._step is not None:
            yield self._step


def prompt_program(device: CudaDevice, name: str, pieces: Iterable[Piece], buffers: TextBuffers) -> Program:
    """Makes a program of `pieces` that reads what `write_prompt` wrote and whose results `read_results` returns.

    The copies from and to pinned memory are parts of the graph, so that a single launch does everything. Raises
    EngineError.
    """
    return idle_program(device, name, [buffers.upload_prompt, *pieces, buffers.download_results], buffers)


def idle_program(device: CudaDevice, name: str, pieces: Iterable[Piece], buffers: TextBuffers) -> Program:
    """Makes a program, which runs once on inputs that leave nothing behind. Raises EngineError."""
    buffers.write_idle()
    program = Program(device, name, list(pieces))
    buffers.clear_idle()
    return program
