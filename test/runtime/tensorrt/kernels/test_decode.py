"""The shapes that the decode kernel takes, the macros it is compiled with, and its argument."""

from __future__ import annotations

import struct
from dataclasses import fields
from pathlib import Path

import pytest
from internvl2_1b import INTERNVL2_1B

from litevlm_ros.lab.benchmarking.kernel_resources import read_log
from litevlm_ros.model_config import ModelConfig, TextConfig
from litevlm_ros.runtime.tensorrt.kernels.decode import (
    DECODE_SOURCES,
    STEP_LAYOUT,
    Step,
    WeightFormat,
    decode_macros,
    decode_obstacle,
    units_of_mlp,
)
from litevlm_ros.runtime.tensorrt.kernels.module import compile_with_log, read_source
from litevlm_ros.runtime.tensorrt.kernels.teams import Teams, divided

TEXT = INTERNVL2_1B.text
DEMO = ModelConfig.from_directory(Path(__file__).parents[4] / "models/demo").text
QWEN3 = TextConfig(1024, 3072, 28, 16, 8, 128, 1e-6, 1e6, 151936, True, 32768, qkv_bias=False, qk_norm=True)
"""Qwen3-0.6B, the text decoder of InternVL3.5-1B."""
SHARED_BYTES = {(8, 7): 166912, (8, 9): 101376, (9, 0): 232448}
"""Compute capability → the most shared memory of a block."""
PLAIN, FP8, INT4 = WeightFormat(), WeightFormat("fp8"), WeightFormat("int4", 128)


@pytest.mark.parametrize("stored", [PLAIN, FP8, WeightFormat("int8"), INT4, WeightFormat("int4", 64)])
def test_internvl2_1b_is_taken_in_all_formats(stored: WeightFormat) -> None:
    for capability in ((8, 0), (8, 7), (9, 0), (12, 0)):
        assert decode_obstacle(TEXT, "fp16", stored, capability) == ""


@pytest.mark.parametrize(
    ("changes", "computed", "stored", "capability", "message"),
    [
        ({}, "fp16", PLAIN, (7, 5), "this GPU has compute capability 7.5, and they need 8.0"),
        ({}, "bf16", FP8, (9, 0), "weights stored in fp8 are computed in bf16, and they take them in fp16 only"),
        ({}, "fp16", WeightFormat("int4", 32), (9, 0), "in int4 in blocks of 32, and they take blocks of 128 or 64"),
        ({"head_dim": 48}, "fp16", PLAIN, (9, 0), "a head is 48, and with weights in 16 bits it .* a multiple of 32"),
        ({"hidden_size": 928}, "fp16", FP8, (9, 0), "hidden size is 928, and with weights in fp8 .* a multiple of 64"),
        ({"head_dim": 96}, "fp16", INT4, (9, 0), "a head is 96, and with weights in int4 .* a multiple of 64"),
        ({"intermediate_size": 4832}, "fp16", INT4, (9, 0), "the MLP is 4832, and .* in int4 .* a multiple of 64"),
    ],
)  # fmt: skip
def test_what_it_does_not_take_is_said(
    changes: dict[str, int], computed: str, stored: WeightFormat, capability: tuple[int, int], message: str
) -> None:
    config = TextConfig(**{**vars(TEXT), **changes})
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(decode_obstacle(config, computed, stored, capability))


def test_macros_are_those_of_model_format_and_gpu() -> None:
    macros = decode_macros(TEXT, "fp16", WeightFormat("int4", 64), 8, Teams(15, 8), 232448)
    assert macros == {
        "NUMBER_IS_HALF": "1", "HIDDEN": "896", "HEADS": "14", "KV_HEADS": "2", "HEAD_DIM": "64", "INNER": "4864",
        "LAYERS": "24", "VOCABULARY": "151655", "ROWS_OF_HEAD": "151656", "TOKENS": "8", "WARPS": "14",
        "TEAMS": "15", "TEAM": "8", "GROUP": "64", "SHARED_BYTES": "231424", "FORMAT": "Int4",
        "WORD_FORMAT": "Int8",
    }  # fmt: skip
    assert decode_macros(TEXT, "bf16", PLAIN, 1, Teams(8, 1), 101376)["FORMAT"] == "Plain"
    assert "QK_NORM" in decode_macros(QWEN3, "fp16", PLAIN, 1, Teams(16, 8), 232448)


def test_channels_of_the_mlp_are_given_to_teams_in_units() -> None:
    assert units_of_mlp(TEXT, PLAIN) == 152
    assert units_of_mlp(TEXT, FP8) == units_of_mlp(TEXT, INT4) == 76


def test_the_argument_is_laid_out_as_a_structure_in_cuda() -> None:
    """Fields in order, each aligned to its size, and the whole to 8 bytes."""
    values = list(range(1, 1 + len(fields(Step))))
    packed = Step(*values).packed()
    addresses = len(values) - 3
    assert len(packed) == STEP_LAYOUT.size == 8 * addresses + 16
    assert struct.unpack_from(f"<{addresses}Q", packed) == tuple(values[:addresses])
    assert struct.unpack_from("<f2i", packed, 8 * addresses) == tuple(values[addresses:])


@pytest.mark.parametrize(
    ("config", "computed", "stored", "capability", "tokens"),
    [
        (DEMO, "fp16", PLAIN, (9, 0), 1),
        (DEMO, "bf16", PLAIN, (8, 7), 16),
        (DEMO, "fp16", FP8, (8, 9), 8),
        (TEXT, "fp16", WeightFormat("int8"), (9, 0), 8),
        (TEXT, "fp16", INT4, (8, 7), 1),
        (TEXT, "fp16", WeightFormat("int4", 64), (8, 9), 16),
        (QWEN3, "fp16", PLAIN, (9, 0), 1),
        (QWEN3, "fp16", FP8, (8, 7), 16),
    ],
    ids=str,
)
def test_it_compiles_and_all_threads_of_a_block_fit(
    config: TextConfig, computed: str, stored: WeightFormat, capability: tuple[int, int], tokens: int
) -> None:
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is not installed: pip install cuda-bindings")
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc")
    clusters = {8: 15, 4: 30, 2: 66} if capability == (9, 0) else {}
    teams = divided(config.num_heads, units_of_mlp(config, stored), 16, lambda size: clusters.get(size, 0))
    macros = decode_macros(config, computed, stored, tokens, teams, SHARED_BYTES[capability])
    source = read_source(*DECODE_SOURCES)
    _, log = compile_with_log(source, capability, macros, ("--ptxas-options=-v",))
    (kernel,) = read_log("decode.cu", computed, log)
    assert kernel.kernel == "decode"
    assert 32 * (int(macros["WARPS"]) + 1) * kernel.registers <= 65536
    assert kernel.shared_bytes + int(macros["SHARED_BYTES"]) <= SHARED_BYTES[capability]
