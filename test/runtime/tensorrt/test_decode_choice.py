"""Decode kernels are used where they are supported and right, and everything else is said and computed by blocks."""

from __future__ import annotations

import contextlib
import gc
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import decode_reference
import fake_tensorrt
import numpy as np
import pytest
from backends import load, read, words
from fake_cuda import FakeCuda
from outliers import write_model_with_outlier

from litevlm_ros.errors import EngineError
from litevlm_ros.model_directory import runtime_cache_directory
from litevlm_ros.runtime.tensorrt import decode_choice
from litevlm_ros.runtime.tensorrt.kernels import decode as decode_module

LOGGER = "litevlm_ros.runtime.tensorrt.decode_choice"


@pytest.fixture
def loaded(caplog: pytest.LogCaptureFixture) -> Callable[..., tuple[bool, str, int]]:
    """Loads a model and has it answer. Returns whether the kernel did that, and the message about it with its level."""
    caplog.set_level(logging.INFO)

    def run(directory: Path, **settings: Any) -> tuple[bool, str, int]:
        caplog.clear()
        with contextlib.closing(load(directory, backend="tensorrt", **settings)) as backend:
            read(backend, words(20))
            assert len(list(backend.text.decode_greedy(9, 20, 3))) == 3
            (record,) = [each for each in caplog.records if each.name == LOGGER] or [None]
            used = backend.text._steps is not None  # type: ignore[attr-defined]
        return used, record.getMessage() if record else "", record.levelno if record else 0

    return run


def test_auto_takes_the_kernel_and_says_so(demo: Path, cuda: FakeCuda, loaded: Any) -> None:
    used, message, level = loaded(demo)
    assert used
    assert level == logging.INFO
    assert message.startswith("Decode steps are one kernel, which reads weights in 16 bits; made and checked in ")


def test_the_engine_computes_steps_where_it_is_asked_to(demo: Path, cuda: FakeCuda, loaded: Any) -> None:
    assert loaded(demo, decode="engine") == (False, "", 0)


def test_a_model_that_the_kernel_does_not_take(directory: Path, cuda: FakeCuda, loaded: Any) -> None:
    why = (
        "the decode kernels do not take this model here: the width of a head is 8, and with weights in 16 bits it has "
        "to be a multiple of 32"
    )
    before = cuda.compiled
    used, message, level = loaded(directory)
    assert (used, level) == (False, logging.INFO)
    assert message == f"The engine's blocks compute decode steps, as {why}"
    with pytest.raises(EngineError, match=f"^decode is 'kernels', but {why}; set decode to auto or engine$"):
        load(directory, backend="tensorrt", decode="kernels")
    assert cuda.compiled - before < 20, "the kernel is not compiled"


def test_a_gpu_with_little_shared_memory_reads_fewer_tokens_at_once(
    demo: Path, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The variant for 16 tokens is left out, and blocks read what is too much for the others."""
    compile_kernels = decode_module.compile_kernels

    def compile_small(source: str, capability: tuple[int, int], macros: Mapping[str, str]) -> bytes:
        if macros["TOKENS"] == "16":
            raise EngineError("static assertion failed with 'a multiprocessor has too little shared memory'")
        return compile_kernels(source, capability, macros)

    directory = tmp_path / "demo"  # without the kernels that others have compiled
    shutil.copytree(demo, directory, ignore=shutil.ignore_patterns("*.runtime_cache"))
    with contextlib.closing(load(directory, backend="tensorrt", decode="engine")) as engine:
        expected = read(engine, words(12), 12)
    monkeypatch.setattr(decode_module, "compile_kernels", compile_small)
    with contextlib.closing(load(directory, backend="tensorrt", decode="kernels")) as backend:
        assert backend.text._steps.most_tokens == 8  # type: ignore[attr-defined]
        found = read(backend, words(12), 12)
        assert found[0] == expected[0]
        np.testing.assert_array_equal(found[1], expected[1])
        assert len(list(backend.text.decode_greedy(9, 12, 3))) == 3


def int4_engines(demo: Path, directory: Path) -> dict[str, Any]:
    """Settings that name the demo model's engines in INT4."""
    fake_tensorrt.write_engines(demo, directory, "int4")
    return {"engine_dir": directory, "vision_precision": "int4", "text_precision": "int4"}


def test_the_demo_model_in_int4(demo: Path, cuda: FakeCuda, loaded: Any, tmp_path: Path) -> None:
    used, message, _ = loaded(demo, **int4_engines(demo, tmp_path))
    assert used
    assert "reads weights in int4 in blocks of 64" in message


def test_weights_of_several_formats(
    demo: Path, cuda: FakeCuda, loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = decode_choice.layer_matrices

    def mixed(weights: Any) -> Any:
        first, *others = real(weights)
        return [replace(first, block=128), *others]

    monkeypatch.setattr(decode_choice, "layer_matrices", mixed)
    used, message, _ = loaded(demo, **int4_engines(demo, tmp_path))
    assert not used
    assert "its layers hold weights in int4 in blocks of 128 and in int4 in blocks of 64, and they take one" in message


def test_tables_of_words_that_do_not_go_with_the_layers(
    demo: Path, cuda: FakeCuda, loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_module.WeightFormat, "words", property(lambda stored: "fp8"))
    used, message, _ = loaded(demo, **int4_engines(demo, tmp_path))
    assert not used
    assert "with layers in int4 in blocks of 64, they take tables of words in fp8; build the engine again" in message


def test_an_old_gpu(demo: Path, cuda: FakeCuda, loaded: Any) -> None:
    cuda.compute_capability = 7, 5
    used, message, _ = loaded(demo)
    assert not used
    assert "this GPU has compute capability 7.5, and they need 8.0" in message


def scaled(run: Any, factor: float, least: int) -> Any:
    """A kernel whose logits are wrong in steps of at least so many tokens."""

    def run_step(check_range: Any, macros: Any, blocks: int, argument: bytes) -> None:
        run(check_range, macros, blocks, argument)
        step = decode_module.Step(*decode_module.STEP_LAYOUT.unpack(argument))
        if int(macros["TOKENS"]) >= least:
            memory = decode_reference._Memory(check_range)
            logits = memory.view(step.logits, (16, 592), np.float16)
            logits *= np.float16(factor)

    return run_step


@pytest.mark.parametrize(
    ("factor", "least", "message"),
    [
        (1.5, 1, "their logits are wrong where tokens are read one by one: the relative error is 5.0e-01"),
        (1.1, 8, "their logits are wrong where tokens are read 5 at once: the relative error is 1.0e-01"),
        (1.1, 16, "their logits are wrong where tokens are read 11 at once: the relative error is 1.0e-01"),
        (np.nan, 16, "their logits are wrong where tokens are read 11 at once: some are not finite"),
    ],
)
def test_a_kernel_that_is_wrong_is_not_used(
    demo: Path, cuda: FakeCuda, loaded: Any, monkeypatch: pytest.MonkeyPatch, factor: float, least: int, message: str
) -> None:
    monkeypatch.setattr(decode_reference, "run_step", scaled(decode_reference.run_step, factor, least))
    used, found, level = loaded(demo)
    assert (used, level) == (False, logging.WARNING)
    assert (
        f"The engine's blocks compute decode steps, as the decode kernels cannot be used on Fake GPU: {message}"
        in found
    )
    with pytest.raises(EngineError, match="cannot be used on Fake GPU: their logits are wrong"):
        load(demo, backend="tensorrt", decode="kernels")
    gc.collect()
    assert (cuda.live, cuda.taken, cuda.graphs, cuda.depth, cuda.retained) == ({}, 0, {}, 0, 0)
    assert not cuda.modules


def test_a_gpu_that_has_no_room_for_all_blocks(demo: Path, cuda: FakeCuda, loaded: Any) -> None:
    cuda.refuse_cooperation = True
    used, message, level = loaded(demo)
    assert (used, level) == (False, logging.WARNING)
    assert "the driver refuses a cooperative kernel: CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE" in message


def test_a_model_that_overflows_gives_nothing_to_compare(
    demo: Path, cuda: FakeCuda, loaded: Any, tmp_path: Path
) -> None:
    model = write_model_with_outlier(demo, tmp_path / "model", 1e5, 0, "mlp.up_proj.weight")
    fake_tensorrt.write_engines(model, model)
    with pytest.raises(EngineError, match="the model itself gives numbers beyond what fp16 holds"):
        load(model, backend="tensorrt", decode="kernels")


def test_the_check_leaves_nothing_behind(demo: Path, cuda: FakeCuda) -> None:
    with contextlib.closing(load(demo, backend="tensorrt")) as backend:
        text: Any = backend.text
        assert backend.text.cache.length == 0
        assert not text._blocks.prompts
        with text._device:
            text._device.wait()
            memory = decode_reference._Memory(cuda.check_range)
            buffers = text._buffers
            rows = buffers.cache_rows, 2 * 64
            kept = [
                memory.view(at(layer), rows, np.uint16) for layer in range(4) for at in (buffers.keys, buffers.values)
            ]
            assert not any(each.any() for each in kept)
            assert not memory.view(buffers.bad, (5,), np.int32).any()


def test_everything_is_freed_and_counted(demo: Path, cuda: FakeCuda) -> None:
    backend = load(demo, backend="tensorrt")
    memory = backend.memory()
    assert 0 < memory["decode kernel"] < 2**20
    read(backend, words(3))
    next(backend.text.decode_greedy(5, 3, 9))
    backend.close()
    assert not cuda.modules
    gc.collect()
    assert (cuda.live, cuda.taken, cuda.graphs, cuda.depth, cuda.retained) == ({}, 0, {}, 0, 0)


def test_machine_code_is_kept_beside_the_engine(demo: Path, cuda: FakeCuda, loaded: Any, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(demo, model, ignore=shutil.ignore_patterns("*.runtime_cache"))
    directory = runtime_cache_directory(model / "text_decoder_fp16.engine")
    counts = []
    for _ in range(2):
        before = cuda.compiled
        assert loaded(model)[0]
        counts.append(cuda.compiled - before)
    kept = sorted(directory.iterdir())
    assert [each.name.rpartition("-")[0] for each in kept] == ["decode-1", "decode-16", "decode-8"]
    assert counts[0] - counts[1] == 3
    for damaged in (kept[0], kept[2]):
        damaged.write_bytes(b"damaged")
        before = cuda.compiled
        assert loaded(model)[0]
        assert cuda.compiled - before == counts[1] + 1
        assert damaged.stat().st_size > 1000
    cuda.compute_capability = 8, 7
    assert loaded(model)[0]
    assert len(list(directory.iterdir())) == 6, "another GPU takes other code"
