"""The demo model's engines: answers as on ONNX Runtime, graphs, drafts, shapes that nobody foresaw, and memory."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_bench import answers, equal_share, loaded, prompt, read, say

from litevlm_ros.backend import Backend
from litevlm_ros.checksums import hash_file
from litevlm_ros.engines.plan_archive import PlanArchive, write_archive
from litevlm_ros.engines.sidecar import EngineSidecar
from litevlm_ros.errors import EngineError
from litevlm_ros.lab.benchmarking.exact_stages import sample_tiles
from litevlm_ros.lab.benchmarking.gpu_access import Gpu
from litevlm_ros.lab.benchmarking.stages import median_ms
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import TEXT, engine_name, runtime_cache_directory
from litevlm_ros.runtime.tensorrt import program
from litevlm_ros.text.drafts import NGramDrafts
from litevlm_ros.text.speculator import Speculator

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

LENGTHS = (70, 300, 128, 65, 300, 70)


@pytest.fixture
def model(demo: Path) -> ModelConfig:
    return ModelConfig.from_directory(demo)


def picture(model: ModelConfig, count: int = 1) -> Any:
    return sample_tiles(count, model.vision.image_size)


def test_the_demo_model_answers_as_on_onnxruntime(demo: Path, fp16_answers: list[str]) -> None:
    pytest.importorskip("onnxruntime", reason="the reference for the demo model is ONNX Runtime")
    reference = answers(demo, backend="onnxruntime")
    assert len(set(fp16_answers)) > 10
    assert equal_share(fp16_answers, reference, "ONNX Runtime in fp32 and engines in fp16") >= 0.9


def test_several_tiles_are_encoded_as_one_by_one(demo: Path, model: ModelConfig, gpu: Gpu) -> None:
    """Three tiles are more than the engine was built for, so they run in two calls."""
    pictures = picture(model, 3)
    with loaded(demo) as backend:
        together = gpu.read(backend, backend.vision.encode(pictures))
        alone = [gpu.read(backend, backend.vision.encode(pictures[index : index + 1])) for index in range(3)]
    error = np.linalg.norm(together - np.concatenate(alone)) / np.linalg.norm(together)
    say(f"three tiles together and alone: relative difference {error:.1e}")
    assert error < 2e-3


def in_turn(backend: Backend, model: ModelConfig) -> tuple[list[Any], float]:
    """Returns logits and decoded tokens behind prompts of all LENGTHS, and the ms of a decode step."""
    visual = backend.vision.encode(picture(model))
    results: list[Any] = []
    for length in LENGTHS:
        output = read(backend, model, prompt(model, length), visual)
        results.append(output.logits().copy())
        results.append(list(backend.text.decode_greedy(int(output.next_tokens[-1]), length, 40)))

    def decode() -> None:
        backend.text.cache.truncate(LENGTHS[-1])
        for _ in backend.text.decode_greedy(20, LENGTHS[-1], 40):
            pass

    return results, median_ms(decode, 10) / 40


def test_graphs_of_many_shapes_in_turn_stay_right_and_are_faster(
    demo: Path, model: ModelConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each shape again after all others have run, with graphs and without: the same numbers to the last bit."""
    with caplog.at_level(logging.WARNING), loaded(demo) as backend:
        with_graphs, step = in_turn(backend, model)
    assert "without a CUDA graph" not in caplog.text, "everything can be captured here"

    def refuse(device: Any, record: Any) -> None:
        raise EngineError("this test wants none")

    monkeypatch.setattr(program, "CudaGraph", refuse)
    with loaded(demo) as backend:
        without, plain_step = in_turn(backend, model)
    for graph, plain in zip(with_graphs, without, strict=True):
        np.testing.assert_array_equal(graph, plain)
    np.testing.assert_array_equal(with_graphs[0], with_graphs[-2])
    assert with_graphs[1] == with_graphs[-1]
    say(f"demo model, decode step: {step:.3f} ms with graphs, {plain_step:.3f} ms without")
    assert step < plain_step


def test_speculation_gives_the_plain_answers_up_to_ties(demo: Path, model: ModelConfig) -> None:
    """A token read among others has logits that differ from the same token read alone by fp16's rounding."""
    equal = asked = accepted = 0
    with loaded(demo) as backend:
        text = backend.text
        speculator = Speculator(text, NGramDrafts(), 15, clock=lambda: 0.0)  # no time passes: each draft is checked
        for seed in range(20):
            visual = backend.vision.encode(np.roll(picture(model, 2), 5 * seed, 1)[seed % 2 :][:1])
            ids = prompt(model, 90 + seed)
            first = int(read(backend, model, ids, visual).next_tokens[-1])
            plain = [first, *text.decode_greedy(first, len(ids), 60)]
            for _ in range(2):  # the second time with the first answer as its draft
                speculator.begin(ids[:10].tolist(), "any")
                first = speculator.start(read(backend, model, ids, visual))
                found = [first, *speculator.decode(first, len(ids), 60)]
                accepted += speculator.finish(complete=True).accepted
                asked += 1
                equal += found == plain
                if found != plain:
                    pairs = zip(found, plain, strict=True)
                    place = next(index for index, pair in enumerate(pairs) if pair[0] != pair[1])
                    read(backend, model, ids, visual)
                    logits = text.forward(np.array(plain[:place]), len(ids) + np.arange(place)).logits()[-1]
                    gap = float(abs(logits[found[place]] - logits[plain[place]]))
                    say(f"speculation: token {place} differs, whose logits are {gap:.4f} apart")
                    assert gap < 0.05
    say(f"speculation: {equal} of {asked} answers are the plain ones, {accepted} drafted tokens were right")
    assert equal >= 0.9 * asked
    assert accepted > 10 * asked


def test_a_shape_that_was_not_foreseen_is_built_once_and_kept(
    demo: Path, model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cudnn", None)  # which would compute these blocks, so that no plan is needed
    directory = tmp_path / "model"
    shutil.copytree(demo, directory)
    file = directory / engine_name(TEXT, "fp16")
    kept = runtime_cache_directory(file)
    shutil.rmtree(kept, ignore_errors=True)
    archive = PlanArchive.open(file)
    plans = {key: (archive.plan(key), archive.kernels(key)) for key in archive.keys if key.rows != 8}
    write_archive(file, TEXT, "fp16", archive.graphs, plans, {})
    facts = {"engine_bytes": file.stat().st_size, "engine_sha256": hash_file(file)}
    dataclasses.replace(EngineSidecar.read(file), **facts).write(directory)
    ids = np.arange(20, 27)
    with loaded(demo, decode="engine") as backend:
        expected = read(backend, model, ids, None).logits().copy()
    times: list[dict[str, int]] = []
    for _ in range(2):
        with loaded(directory, decode="engine") as backend:
            found = read(backend, model, ids, None).logits().copy()
            np.testing.assert_allclose(found, expected, atol=0.05 * float(np.abs(expected).max()))
        times.append({file.name: file.stat().st_mtime_ns for file in kept.glob("*.plan")})
    say(f"built and kept: {', '.join(times[0])}")
    assert {"-".join(name.split("-")[:2]) for name in times[0]} >= {"qkv-8", "mlp-8"}
    assert times[1] == times[0], "the second load builds nothing"


def test_closing_gives_the_memory_back(demo: Path, model: ModelConfig, gpu: Gpu) -> None:
    import torch

    def use() -> int:
        with loaded(demo) as backend:
            read(backend, model, prompt(model, 100), backend.vision.encode(picture(model)))
            return gpu.free_memory()

    use()  # what the driver keeps once it has run anything
    before = gpu.free_memory()
    during = use()
    after = gpu.free_memory()
    say(f"demo model: {(before - during) / 1e6:.0f} MB taken, {(before - after) / 1e6:.0f} MB kept after closing")
    assert before - during > 10e6
    assert before - after < 8e6
    assert float(torch.ones(3, device="cuda").sum()) == 3, "others go on using the GPU"
