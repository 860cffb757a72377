"""Memory against what the runtime counted on an H100 (docs/benchmarks.md), and against counts by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from internvl2_1b import INTERNVL2_1B

from litevlm_ros.lab.benchmarking.path_memory import model_memory

_LAYERS = 24 * 896 * (2 * 896 + 256 + 3 * 4864)
_TABLE = 151656 * 896


def memory(vision: str = "fp16", text: str = "fp16", tiles: int = 6, max_context: int = 2048) -> dict[str, float]:
    return model_memory(INTERNVL2_1B, vision, text, tiles=tiles, max_context=max_context)


def test_memory_is_that_of_a_run_with_the_same_shapes() -> None:
    """It had captioned six views when its memory was read."""
    found = {name: size / 1e6 for name, size in memory().items()}
    assert found["text weights"] == pytest.approx(988, abs=1)
    assert found["vision weights"] == pytest.approx(620, abs=1)
    assert found["KV cache"] == pytest.approx(26, abs=1)
    assert found["activations"] == pytest.approx(136 + 38 + 71, rel=0.02)
    assert found["unpacked weights of one block"] == 0


def test_packed_weights_take_their_bytes_and_the_scratch_of_the_largest_block() -> None:
    """The table of words is int8 beside all of them, and is not unpacked."""
    half, fp8, int8, int4 = (memory(text=precision) for precision in ("fp16", "fp8", "int8", "int4"))
    assert half["text weights"] - fp8["text weights"] == _LAYERS + _TABLE
    assert int8 == fp8
    assert half["text weights"] - int4["text weights"] == pytest.approx(_LAYERS * (2 - 0.5 - 2 / 128) + _TABLE)
    assert fp8["unpacked weights of one block"] == 2 * 896 * (896 + 3 * 4864)
    both = memory("int8", "fp8")["unpacked weights of one block"]
    assert both == fp8["unpacked weights of one block"] + 2 * 1024 * (1024 + 2 * 4096)


def test_a_head_of_its_own_is_a_second_table() -> None:
    own = replace(INTERNVL2_1B, text=replace(INTERNVL2_1B.text, tie_word_embeddings=False))
    for precision, size in (("fp16", 2), ("fp8", 1), ("int4", 1)):
        more, less = (
            model_memory(model, "fp16", precision, tiles=1, max_context=2048) for model in (own, INTERNVL2_1B)
        )
        assert more["text weights"] - less["text weights"] == size * _TABLE
        assert more["unpacked weights of one block"] == less["unpacked weights of one block"]


def test_more_context_is_more_cache_alone() -> None:
    short, long = memory(max_context=2048), memory(max_context=4096)
    assert long["KV cache"] - short["KV cache"] == 2048 * 24 * 2 * 2 * 64 * 2
    assert long["activations"] == short["activations"]
