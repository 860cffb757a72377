"""Compiles and launches the kernel of decode.cu: a step of up to 16 new tokens behind the KV cache in one launch."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass

from litevlm_ros.config import MOST_LOGITS
from litevlm_ros.engines.text_blocks import padded_vocabulary
from litevlm_ros.errors import EngineError
from litevlm_ros.model_config import TextConfig
from litevlm_ros.precision import WORD_PRECISION
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kept_files import KeptFiles
from litevlm_ros.runtime.tensorrt.kernels.cooperative import CooperativeKernel
from litevlm_ros.runtime.tensorrt.kernels.module import NUMBER_MACROS, compile_kernels, compiler_version, read_source
from litevlm_ros.runtime.tensorrt.kernels.teams import Teams, teams_on

DECODE_SOURCES = (
    "tensor.cuh",
    "stored.cuh",
    "share.cuh",
    "room.cuh",
    "stream.cuh",
    "step.cuh",
    "norm.cuh",
    "attend.cuh",
    "rotate.cuh",
    "product.cuh",
    "outputs.cuh",
    "choice.cuh",
    "decode.cu",
)
"""The sources of the kernel, in this order."""

DECODE_SIZES = (1, 8, MOST_LOGITS)
"""The most new tokens of each variant of the kernel. A wide model's larger ones may need more than a GPU has."""

_TOO_LARGE = "too little shared memory"
"""Words of the compiler's error, from stream.cuh, for a variant that needs more shared memory than a GPU has."""

COUNT_BYTES = 3 * 32 * 4
"""Bytes of the counters by which blocks wait for each other: zero before the first launch, and after each one."""

_LEAST_CAPABILITY = (8, 0)
_WARPS = 14
"""Warps of a block that compute. One more copies weights."""
_THREADS = 32 * (_WARPS + 1)
_RESERVED_BYTES = 1024
"""Bytes of a block's shared memory that CUDA and the kernel's own variables take."""
_DIGITS = 12
"""The digits of a SHA-256 in a file's name."""


@dataclass(frozen=True)
class WeightFormat:
    """The way in which the weights of all layers are stored: `packing` fp8, int8 or int4, or '' for plain numbers.

    `block` is the number of inputs that share a scale of int4, and 0 for the others.
    """

    packing: str = ""
    block: int = 0

    @property
    def words(self) -> str:
        """The packing of the tables of words beside such layers."""
        return WORD_PRECISION if self.packing else ""

    def __str__(self) -> str:
        return f"int4 in blocks of {self.block}" if self.block else self.packing or "16 bits"


_FORMATS = {"": "Plain", "fp8": "Fp8", "int8": "Int8", "int4": "Int4"}
"""Packing → its type in stored.cuh."""
_STEP_COLUMNS = {"": 32, "fp8": 64, "int8": 64, "int4": 64}
"""Packing → the columns that four lanes take at once, of which each product's inputs are a multiple."""
_BLOCKS = (128, 64)
"""The blocks of int4."""


@dataclass(frozen=True)
class Step:
    """The argument of the kernel, `struct Step` of step.cuh: addresses in device memory, and then numbers.

    The comments there say what each address holds. `allowed`, `penalised` and `penalty` are 0 where nothing is masked
    or penalised, and `word_scales` is 0 where words are stored as numbers. `steps` and `ring` are 0 unless the kernel
    is to make the next token the next step's input.
    """

    layers: int
    embedding: int
    word_scales: int
    visual: int
    final_norm: int
    frequencies: int
    ids: int
    positions: int
    lengths: int
    sums: int
    best: int
    best_at: int
    counts: int
    logits: int
    next_tokens: int
    bad: int
    allowed: int
    penalised: int
    penalty: int
    steps: int
    ring: int
    eps: float
    visual_is_bf16: int
    ring_size: int

    def packed(self) -> bytes:
        """Returns the structure's bytes, with padding to whole words of 8 bytes."""
        return STEP_LAYOUT.pack(*astuple(self))


STEP_LAYOUT = struct.Struct("<21Qfii4x")
"""The layout of Step."""


def sum_words(config: TextConfig) -> int:
    """Returns the words of 4 bytes of the sums over the layers, zero before the first launch, as step.cuh says."""
    return 3 * MOST_LOGITS * config.hidden_size


def units_of_mlp(config: TextConfig, stored: WeightFormat) -> int:
    """Returns the units in which channels of the MLP are given to teams, as share.cuh says."""
    return config.intermediate_size // _STEP_COLUMNS[stored.packing]


def decode_macros(
    config: TextConfig, computed: str, stored: WeightFormat, tokens: int, teams: Teams, most_shared_bytes: int
) -> Mapping[str, str]:
    """Returns the macros that the kernel for up to `tokens` new tokens, one of DECODE_SIZES, is compiled with.

    `computed` is 'fp16' or 'bf16'. `teams` has at most as many teams as `units_of_mlp`. A block may have
    `most_shared_bytes` bytes of shared memory.
    """
    numbers = {
        "HIDDEN": config.hidden_size,
        "HEADS": config.num_heads,
        "KV_HEADS": config.num_kv_heads,
        "HEAD_DIM": config.head_dim,
        "INNER": config.intermediate_size,
        "LAYERS": config.num_layers,
        "VOCABULARY": config.vocab_size,
        "ROWS_OF_HEAD": padded_vocabulary(config),
        "TOKENS": tokens,
        "WARPS": _WARPS,
        "TEAMS": teams.count,
        "TEAM": teams.size,
        "GROUP": stored.block or _BLOCKS[0],
        "SHARED_BYTES": most_shared_bytes - _RESERVED_BYTES,
    }
    return {
        **NUMBER_MACROS[computed],
        **{name: f"{number}" for name, number in numbers.items()},
        "FORMAT": _FORMATS[stored.packing],
        "WORD_FORMAT": _FORMATS[stored.words],
        **({"QK_NORM": "1"} if config.qk_norm else {}),
    }


def decode_obstacle(
    config: TextConfig, computed: str, stored: WeightFormat, compute_capability: tuple[int, int]
) -> str:
    """Says for people why the kernel cannot compute a model on a GPU; returns '' if it can."""
    return next(_obstacles(config, computed, stored, compute_capability), "")


def _obstacles(
    config: TextConfig, computed: str, stored: WeightFormat, compute_capability: tuple[int, int]
) -> Iterator[str]:
    if compute_capability < _LEAST_CAPABILITY:
        found, least = (".".join(map(str, each)) for each in (compute_capability, _LEAST_CAPABILITY))
        yield f"this GPU has compute capability {found}, and they need {least}"
    if stored.packing and computed != "fp16":
        yield f"weights stored in {stored} are computed in {computed}, and they take them in fp16 only"
    if stored.packing == "int4" and stored.block not in _BLOCKS:
        yield f"weights are stored in {stored}, and they take blocks of {' or '.join(map(str, _BLOCKS))}"
    multiple = _STEP_COLUMNS[stored.packing]
    widths = {
        "the width of a head": (config.head_dim, multiple),
        "the hidden size": (config.hidden_size, multiple),
        "the width of the MLP": (config.intermediate_size, multiple),
    }
    for what, (size, of) in widths.items():
        if size % of:
            yield f"{what} is {size}, and with weights in {stored} it has to be a multiple of {of}"


class DecodeKernels:
    """The variants of the kernel for one model, enqueued on the device's stream. The device must be current."""

    def __init__(
        self, device: CudaDevice, config: TextConfig, computed: str, stored: WeightFormat, kept: KeptFiles
    ) -> None:
        """Loads all variants that this GPU has the shared memory for.

        What `kept` does not hold is compiled, which takes seconds, and is kept there. Raises EngineError if NVRTC is
        missing, or if NVRTC or the driver refuses the kernel for a single token, or another for a different reason.
        """
        self._device, self._kept = device, kept
        self._source = read_source(*DECODE_SOURCES)
        self._loaded: dict[int, CooperativeKernel] = {}
        shared_bytes = device.most_shared_bytes - _RESERVED_BYTES
        self.teams = teams_on(device, config.num_heads, units_of_mlp(config, stored), _THREADS, shared_bytes)
        """The division of the blocks."""
        macros = {
            tokens: decode_macros(config, computed, stored, tokens, self.teams, device.most_shared_bytes)
            for tokens in DECODE_SIZES
        }
        try:
            with ThreadPoolExecutor(len(macros)) as threads:
                codes = {tokens: threads.submit(self._code, defined) for tokens, defined in macros.items()}
            for tokens, code in codes.items():
                try:
                    self._loaded[tokens] = self._load(*code.result(), macros[tokens])
                except EngineError as error:
                    if not self._loaded or _TOO_LARGE not in str(error):
                        raise
                    break  # larger ones need even more
        except EngineError:
            self.close()
            raise

    @property
    def sizes(self) -> tuple[int, ...]:
        """The most new tokens of each variant that is loaded, the smallest first."""
        return tuple(self._loaded)

    def launch(self, tokens: int, step: Step) -> None:
        """Enqueues a step of up to `tokens` new tokens, one of `sizes`. Raises EngineError."""
        self._loaded[tokens].launch(step.packed())

    def close(self) -> None:
        """Unloads the kernels. None of them may be running."""
        for kernel in self._loaded.values():
            kernel.close()
        self._loaded.clear()

    def _code(self, macros: Mapping[str, str]) -> tuple[str, bytes]:
        """Returns the name under which a variant's machine code is kept, and the code."""
        made_of = repr((self._source, sorted(macros.items()), self._device.compute_capability, compiler_version()))
        name = f"decode-{macros['TOKENS']}-{hashlib.sha256(made_of.encode()).hexdigest()[:_DIGITS]}.kernels"
        return name, self._kept.read(name) or self._compile(name, macros)

    def _compile(self, name: str, macros: Mapping[str, str]) -> bytes:
        code = compile_kernels(self._source, self._device.compute_capability, macros)
        self._kept.write(name, code)
        return code

    def _load(self, name: str, code: bytes, macros: Mapping[str, str]) -> CooperativeKernel:
        shape = self.teams.blocks, _THREADS, int(macros["SHARED_BYTES"])
        try:
            return CooperativeKernel(self._device, code, "decode", *shape)
        except EngineError:  # the kept file may be damaged, or the driver older than when it was made
            return CooperativeKernel(self._device, self._compile(name, macros), "decode", *shape)
