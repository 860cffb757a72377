"""Engines on a real GPU: equal to ONNX Runtime and transformers, and faster.

Everything is built here: the demo model's engines, and those of a random InternVL of real size. One run takes some four
minutes on an H100: `pytest -m gpu test/gpu -s`. LITEVLM_GPU_MODEL names a directory to keep the large model's engines
in; a further run then finds them there.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from package_files import DEMO_MODEL

from litevlm_ros.backend import Backend
from litevlm_ros.config import PipelineConfig, SamplingConfig, TokenSelectionConfig
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.runtime.load import load_backend
from litevlm_ros.text.drafts import NGramDrafts
from litevlm_ros.text.speculator import Speculator
from litevlm_ros.types import View

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

SIZE, DEVICE = "1b", "cuda"
RUNS = 30
NOISE = 3
"""A margin must be this many times the largest difference between transformers' fp16 and fp32 logits."""


def build(model: Path, *arguments: str) -> None:
    from litevlm_ros.tools.build_engines import main

    started = time.monotonic()
    assert main(["--model", str(model), "--precision", "fp16", *arguments]) == 0
    say(f"{model.name}: engines built in {time.monotonic() - started:.0f} s")


def say(line: str) -> None:
    print(f"\n  >> {line}", end="", flush=True)


def load(model: Path, **settings: Any) -> Backend:
    return load_backend(PipelineConfig(model, **settings), ModelConfig.from_directory(model))


def median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS + 3):
        started = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times[3:])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gpu") / "demo"
    shutil.copytree(DEMO_MODEL, directory)
    build(directory)
    return directory


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """InternVL2-1B's shapes."""
    from random_internvl import write_random_internvl

    kept = os.environ.get("LITEVLM_GPU_MODEL")
    directory = Path(kept) if kept else tmp_path_factory.mktemp("gpu") / "large"
    if not (directory / "text_decoder" / "config.json").is_file():
        write_random_internvl(directory, SIZE, DEVICE)
    build(directory, "--max-tiles", "6", "--max-context", "2048")
    return directory


@pytest.fixture(scope="module")
def backend(large: Path) -> Iterator[Backend]:
    started = time.monotonic()
    backend = load(large, backend="tensorrt", spin_threads=True)
    say(f"loaded in {time.monotonic() - started:.1f} s")
    say(
        f"{backend.description}: " + ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in backend.memory().items())
    )
    yield backend
    backend.close()


def tiles(count: int, size: int) -> Any:
    """Smooth patterns, each different."""
    rows, columns = np.indices((size, size)) / size
    waves = [[127 + 127 * np.sin((3 + tile + channel) * (rows + (tile + 1) * columns)) for channel in range(3)]
             for tile in range(count)]  # fmt: skip
    return np.stack([np.stack(channels, -1) for channels in waves]).astype(np.uint8)


def on_host(backend: Backend, tokens: Any) -> Any:
    """Visual tokens as fp32."""
    decoder: Any = backend.text
    dtype = {"HALF": np.float16, "FLOAT": np.float32}[decoder.dtype]
    rows = np.empty(tokens.size // np.dtype(dtype).itemsize, dtype)
    with decoder._device as device:
        device.driver.memcpy_dtoh(rows, tokens.address)
    return rows.reshape(tokens.count, -1).astype(np.float32)


def reference(model: Path, half: bool) -> Any:
    """transformers' model, in fp16 or in fp32 without shortcuts."""
    import torch

    from litevlm_ros.lab.benchmarking.transformers_stages import TransformersStages

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    dtype = torch.float16 if half else torch.float32
    return TransformersStages(model, "eager", dtype=dtype, device=DEVICE, max_context=0)


def image_size(model: Path) -> int:
    return ModelConfig.from_directory(model).vision.image_size


def prompt(backend: Backend, length: int, visual: int) -> Any:
    """Ids of `visual` visual tokens between words, `length` in all."""
    words = 20 + np.arange(length - visual) * 37 % 200
    vocab = backend.text._vocab_size  # type: ignore[attr-defined]
    return np.concatenate((words[:10], vocab + np.arange(visual), words[10:]))


# --- the demo model


def test_kernels_append_and_advance_on_the_gpu() -> None:
    from litevlm_ros.runtime.tensorrt.device import CudaDevice
    from litevlm_ros.runtime.tensorrt.kernels.launch import CacheKernels
    from litevlm_ros.runtime.tensorrt.memory import DeviceMemory

    device = CudaDevice()
    with device:
        memory, kernels = DeviceMemory(device), CacheKernels(device)
        staged = np.random.default_rng(0).integers(0, 256, (48, 64, 256)).astype(np.uint8)
        cache = np.zeros((48, 80, 256), np.uint8)
        numbers = np.array([9, 50, 7, 400, 2, 0])  # past length, count, next token, position, step, input id
        addresses = {}
        for name, array in (("staged", staged), ("cache", cache), ("numbers", numbers)):
            addresses[name] = memory.allocate(name, array.nbytes)
            device.wait()
            device.driver.memcpy_htod(addresses[name], array)
        ring = memory.pinned((4,), np.int64)
        at = [addresses["numbers"] + 8 * index for index in range(6)]
        kernels.append(staged=addresses["staged"], cache=addresses["cache"], past_length=at[0], count=at[1],
                       tensors=48, row_bytes=256, staged_rows=64, cache_rows=80)  # fmt: skip
        kernels.advance(next_token=at[2], input_id=at[5], position=at[3], past_length=at[0], step=at[4],
                        ring=memory.pinned_address(ring), ring_size=4)  # fmt: skip
        device.wait()
        device.driver.memcpy_dtoh(numbers, addresses["numbers"])
        result = np.empty_like(cache)
        device.driver.memcpy_dtoh(result, addresses["cache"])
        expected = cache.copy()
        expected[:, 9:59] = staged[:, :50]
        np.testing.assert_array_equal(result, expected)
        assert numbers.tolist() == [10, 50, 7, 401, 3, 7]
        assert ring.tolist() == [0, 0, 7, 0]
        kernels.close()
        memory.free()
    device.close()


def answers(model: Path, **settings: Any) -> list[str]:
    """Returns the answers to four questions about each of ten scenes."""
    from litevlm_ros.lab.world.render import render
    from litevlm_ros.lab.world.scene import generate

    questions = ("What do you see?", "Is there a car?", "What is the weather?", "How many vehicles are there?")
    pipe = Pipeline.from_config(PipelineConfig(model, threads=8, **settings))
    texts = []
    for seed in range(10):
        encoded = pipe.encode([View("front", render(generate(seed), "front"))])
        texts += [pipe.answer(encoded, question, SamplingConfig(48)).text for question in questions]
    pipe.close()
    return texts


def test_the_demo_model_answers_as_on_onnxruntime(demo: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the reference for the demo model is ONNX Runtime")
    reference, found = (answers(demo, backend=name) for name in ("onnxruntime", "tensorrt"))
    equal = sum(a == b for a, b in zip(reference, found, strict=True))
    say(f"demo model: {equal} of {len(found)} answers are those of ONNX Runtime in fp32, such as {found[0]!r}")
    assert len(set(found)) > 10
    assert equal >= 0.9 * len(found)


@pytest.mark.parametrize("precision", ["fp8", "int8", "int4"])
def test_engines_of_few_bits_answer_as_those_in_fp16(demo: Path, precision: str) -> None:
    from litevlm_ros.machine import find_device
    from litevlm_ros.model_directory import TEXT, VISION
    from litevlm_ros.precision import choose_precision

    gpu = find_device()
    assert gpu is not None
    build(demo, "--precision", precision)
    vision, text = (choose_precision(part, precision, gpu.compute_capability).built for part in (VISION, TEXT))
    found = answers(demo, backend="tensorrt", vision_precision=vision, text_precision=text)
    reference = answers(demo, backend="tensorrt", vision_precision="fp16", text_precision="fp16")
    equal = sum(a == b for a, b in zip(reference, found, strict=True))
    say(f"demo model: {equal} of {len(found)} answers in {vision}/{text} are those in fp16")
    assert equal >= 0.9 * len(found)


def test_graphs_of_many_shapes_in_turn_stay_right(demo: Path) -> None:
    """Each shape again after all others have run, with graphs and without: the same numbers to the last bit."""
    backend = load(demo, backend="tensorrt")
    results: dict[bool, list[Any]] = {}
    visual = backend.vision.encode(tiles(1, image_size(demo)))
    for graphs in (True, False):
        results[graphs] = []
        for length in (70, 300, 128, 65, 300, 70):
            backend.text.cache.truncate(0)
            output = backend.text.forward(prompt(backend, length, visual.count), np.arange(length), visual)
            results[graphs].append(output.logits().copy())
            results[graphs].append(list(backend.text.decode_greedy(int(output.next_tokens[-1]), length, 40)))
        decoder: Any = backend.text
        for program in (*decoder._prompts.values(), *decoder._steps.values()):
            assert (program._graph is not None) == graphs, "TensorRT's runs can be captured here"
            program._graph = None
    for graph, plain in zip(results[True], results[False], strict=True):
        np.testing.assert_array_equal(graph, plain)
    np.testing.assert_array_equal(results[True][0], results[True][-2])
    assert results[True][1] == results[True][-1]
    backend.close()


def test_speculation_gives_the_plain_answers_up_to_ties(demo: Path) -> None:
    """A token read among others has logits that differ from the same token read alone by fp16's rounding."""
    backend = load(demo, backend="tensorrt")
    speculator = Speculator(backend.text, NGramDrafts(), 15, clock=lambda: 0.0)  # no time passes: each draft is checked
    equal = asked = accepted = 0
    for seed in range(40):
        visual = backend.vision.encode(np.roll(tiles(2, image_size(demo)), 5 * seed, 1)[seed % 2 :][:1])
        ids = prompt(backend, 90 + seed, visual.count)

        def read_prompt(ids: Any = ids, visual: Any = visual) -> Any:
            backend.text.cache.truncate(0)
            return backend.text.forward(ids, np.arange(len(ids)), visual)

        first = int(read_prompt().next_tokens[-1])
        plain = [first, *backend.text.decode_greedy(first, len(ids), 60)]
        for _ in range(2):  # the second time with the first answer as its draft
            speculator.begin(ids[:10].tolist(), "any")
            first = speculator.start(read_prompt())
            found = [first, *speculator.decode(first, len(ids), 60)]
            accepted += speculator.finish(complete=True).accepted
            asked += 1
            equal += found == plain
            if found != plain:
                place = next(index for index, pair in enumerate(zip(found, plain, strict=True)) if pair[0] != pair[1])
                read_prompt()
                logits = backend.text.forward(
                    np.array(plain[:place]), len(ids) + np.arange(place)
                ).logits()[-1]  # fmt: skip
                gap = float(abs(logits[found[place]] - logits[plain[place]]))
                say(f"speculation: token {place} differs, whose logits are {gap:.4f} apart")
                assert gap < 0.05
    say(f"speculation: {equal} of {asked} answers are the plain ones, {accepted} drafted tokens were right")
    assert equal >= 0.9 * asked
    assert accepted > 10 * asked
    backend.close()


def test_closing_gives_the_memory_back(demo: Path) -> None:
    import torch

    def free() -> int:
        torch.cuda.synchronize()
        return int(torch.cuda.mem_get_info()[0])

    load(demo, backend="tensorrt").close()  # what the driver keeps once it has run anything
    before = free()
    backend = load(demo, backend="tensorrt")
    during = free()
    backend.close()
    after = free()
    say(f"demo model: {(before - during) / 1e6:.0f} MB taken, {(before - after) / 1e6:.0f} MB kept after closing")
    assert before - during > 10e6
    assert before - after < 8e6
    assert float(torch.ones(3, device="cuda").sum()) == 3, "others go on using the GPU"


# --- InternVL2-1B's shapes


def test_visual_tokens_are_within_two_thousandths_of_transformers_in_fp32(backend: Backend, large: Path) -> None:
    stages = reference(large, half=False)
    for count in (1, 6):
        pixels = tiles(count, image_size(large))
        expected = stages.encode(pixels).cpu().numpy()
        found = on_host(backend, backend.vision.encode(pixels))
        error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
        say(f"visual tokens of {count} tiles: relative error {error:.2e}")
        assert error < 2e-3


def test_greedy_tokens_are_those_of_transformers_wherever_its_margin_exceeds_its_noise(
    backend: Backend, large: Path
) -> None:
    import torch

    visual = backend.vision.encode(tiles(1, image_size(large)))
    ids = prompt(backend, 320, visual.count)
    backend.text.cache.truncate(0)
    first = int(backend.text.forward(ids, np.arange(len(ids)), visual).next_tokens[-1])
    tokens = [first, *backend.text.decode_greedy(first, len(ids), 63)]
    rows = torch.from_numpy(on_host(backend, visual)).to(DEVICE)
    whole = np.concatenate((ids, tokens[:-1]))  # transformers reads our tokens, so that each choice is compared alone
    full, half = (reference(large, half).logits(whole, rows)[len(ids) - 1 :].float().cpu() for half in (False, True))
    noise = (half - full).abs().max(-1).values
    best = half.topk(2, -1)
    clear = (best.values[:, 0] - best.values[:, 1] > NOISE * noise).numpy()
    chosen = best.indices[:, 0].numpy()
    differing = np.flatnonzero(clear & (chosen != np.array(tokens)))
    say(f"greedy: {int((chosen == np.array(tokens)).sum())} of 64 tokens are transformers' in fp16; "
        f"{clear.sum()} have a margin of {NOISE} times the noise, of those {len(differing)} differ")  # fmt: skip
    assert len(set(tokens)) > 32, "an answer that repeats itself compares little"
    assert clear.sum() >= 20
    assert len(differing) == 0


@pytest.mark.parametrize("method", ["random", "diversity", "similarity"])
def test_tokens_are_selected_as_in_host_memory_within_half_a_millisecond(
    backend: Backend, large: Path, method: str
) -> None:
    """6 tiles of 256 tokens, of which half are kept."""
    from litevlm_ros.vision.token_selection import choose

    visual = backend.vision.encode(tiles(6, image_size(large)))
    selector = backend.token_selector(TokenSelectionConfig(method, 0.5))
    selection = selector.select(visual)
    rows = on_host(backend, visual)
    kept = choose(rows.reshape(6, -1, rows.shape[-1]), method, 128) + 256 * np.arange(6)[:, None]
    np.testing.assert_array_equal(selection.places, kept.reshape(-1))
    np.testing.assert_array_equal(on_host(backend, selection.visual), rows[selection.places])
    spent = median_ms(lambda: selector.select(visual))
    say(f"{method}: {visual.count} tokens to {selection.visual.count} in {spent:.3f} ms")
    assert spent < 0.5


def test_it_is_faster_by_graphs_and_reports_its_times(backend: Backend, large: Path) -> None:
    visual = backend.vision.encode(tiles(1, image_size(large)))
    ids = prompt(backend, 320, visual.count)
    decoder: Any = backend.text

    def prefill() -> None:
        backend.text.cache.truncate(0)
        backend.text.forward(ids, np.arange(320), visual)

    def decode() -> None:
        backend.text.cache.truncate(320)
        for _ in backend.text.decode_greedy(100, 320, 64):
            pass

    picture = tiles(6, image_size(large))
    say(f"vision, 1 tile: {median_ms(lambda: backend.vision.encode(picture[:1])):.3f} ms (aim 3)")
    say(f"vision, 6 tiles: {median_ms(lambda: backend.vision.encode(picture)):.3f} ms")
    say(f"prefill, 320 tokens: {median_ms(prefill):.3f} ms (aim 2)")
    for count in (2, 4, 8, 16):
        words = ids[:1].repeat(count)

        def verify(words: Any = words) -> None:
            backend.text.cache.truncate(320)
            backend.text.forward(words, 320 + np.arange(len(words)), num_logits=min(len(words), 8))

        say(f"forward of {count} tokens behind 320: {median_ms(verify):.3f} ms")
    with_graphs = median_ms(decode) / 64
    say(f"decode: {with_graphs:.3f} ms a token (aim 1.0, then 0.66)")
    for program in decoder._steps.values():
        program._kept, program._graph = program._graph, None
    without = median_ms(decode) / 64
    for program in decoder._steps.values():
        program._graph = program._kept
    say(f"decode without graphs: {without:.3f} ms a token")
    assert with_graphs < without
