"""The demo model's tokens by the decode kernel, in whose place numpy computes here: they are those of the engine."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from backends import load, on_host, read
from fake_cuda import FakeCuda
from weight_damage import set_number

from litevlm_ros.backend import Backend, read_one_by_one
from litevlm_ros.config import PipelineConfig, SamplingConfig, SpeculationConfig
from litevlm_ros.errors import NotFiniteError
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import generate
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.runtime.tensorrt.decode_step import layer_matrices
from litevlm_ros.types import View

WORDS = 590
"""The demo model's words."""


def words(count: int, step: int = 97) -> Any:
    return (np.arange(count) * step + 11) % WORDS


def picture(seed: int = 1) -> Any:
    return render(generate(seed), "front")


@pytest.fixture
def kernels(demo: Path, cuda: FakeCuda) -> Iterator[Backend]:
    with contextlib.closing(load(demo, backend="tensorrt", decode="kernels")) as backend:
        yield backend


@pytest.fixture
def engine(demo: Path, cuda: FakeCuda) -> Iterator[Backend]:
    with contextlib.closing(load(demo, backend="tensorrt", decode="engine")) as backend:
        yield backend


def close_to(found: tuple[list[int], Any], expected: tuple[list[int], Any], most: float = 5e-3) -> None:
    """Asserts that two results of `read` agree but for roundings."""
    error = np.linalg.norm(found[1] - expected[1], axis=-1) / np.linalg.norm(expected[1], axis=-1)
    assert error.max() < most
    assert found[0] == found[1].argmax(-1).tolist()


@pytest.mark.parametrize("source", ["off", "ngram"])
def test_answers_are_those_of_the_engine(demo: Path, cuda: FakeCuda, source: str) -> None:
    """The questions share a prefix, some answers are sampled, and some are drafted."""
    answers = {}
    for decode in ("kernels", "engine"):
        config = PipelineConfig(demo, backend="tensorrt", decode=decode, speculation=SpeculationConfig(source=source))
        with contextlib.closing(Pipeline.from_config(config)) as pipe:
            encoded = pipe.encode([View("front", picture())])
            questions = ("What do you see?", "Is there a car?", "What do you see?")
            answers[decode] = [pipe.answer(encoded, question, SamplingConfig(24)).text for question in questions]
            sampled = SamplingConfig(12, temperature=0.5, seed=3, repetition_penalty=1.3)
            answers[decode].append(pipe.answer(encoded, "How many vehicles are there?", sampled).text)
    assert answers["kernels"] == answers["engine"]
    assert len(set(answers["engine"])) == 3


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (2, 1), (5, 5), (8, 3), (9, 9), (11, 2), (16, 16), (17, 4)])
def test_drafts_and_short_prompts_have_the_logits_of_the_engine(
    kernels: Backend, engine: Backend, count: int, wanted: int
) -> None:
    """Behind any cache, with the logits of all tokens or of the last ones."""
    for length in (0, 1, 70):
        for backend in (kernels, engine):
            backend.text.cache.truncate(0)
            if length:
                read(backend, words(length))
        close_to(read(kernels, words(count, 31), wanted), read(engine, words(count, 31), wanted))
        assert kernels.text.cache.length == length + count


def test_tokens_read_at_once_are_those_read_one_by_one(kernels: Backend) -> None:
    read(kernels, words(40))
    together = read(kernels, words(11, 31), 11)
    kernels.text.cache.truncate(40)
    for place, token in enumerate(words(11, 31)):
        tokens, logits = read(kernels, [token])
        close_to((tokens, logits), (together[0][place : place + 1], together[1][place : place + 1]))


def test_greedy_decoding_is_that_of_single_calls_and_may_be_dropped(kernels: Backend) -> None:
    visual = kernels.vision.encode(picture()[None, :224, :224])
    ids = np.concatenate((words(6), WORDS + np.arange(visual.count), words(9, 31)))
    start = read(kernels, ids, 1, visual)[0][0]
    expected = list(read_one_by_one(kernels.text, start, len(ids), 12))
    for taken in (1, 4, 12):
        kernels.text.cache.truncate(len(ids))
        assert list(itertools.islice(kernels.text.decode_greedy(start, len(ids), 12), taken)) == expected[:taken]
        assert kernels.text.cache.length == len(ids) + taken


def test_visual_tokens_are_read_by_the_kernel_too(kernels: Backend, engine: Backend) -> None:
    found = []
    for backend in (kernels, engine):
        visual = backend.vision.encode(picture()[None, :224, :224])
        assert np.ptp(on_host(backend, visual)) > 0.1
        found.append(read(backend, [5, WORDS + 3, WORDS, 9, WORDS + visual.count - 1], 4, visual))
    close_to(*found)
    kernels.text.cache.truncate(0)
    assert np.abs(read(kernels, [5, 3, 0, 9, 7], 4)[1] - found[0][1]).max() > 0.1, "visual tokens matter"


def test_a_step_is_one_kernel(kernels: Backend, cuda: FakeCuda) -> None:
    text: Any = kernels.text
    step = text._steps.step()
    assert len(cuda.graphs[step._graph._executable]) == 1
    read(kernels, words(20))
    before = cuda.launches
    assert len(list(kernels.text.decode_greedy(5, 20, 10))) == 10
    assert cuda.launches - before == 10
    assert not [each for each in text._blocks.prompts if each[0] <= 16], "blocks are for longer prompts"


def test_a_full_cache_and_a_small_one(demo: Path, cuda: FakeCuda, engine: Backend) -> None:
    with contextlib.closing(load(demo, backend="tensorrt", decode="kernels", max_context=6)) as small:
        close_to(read(small, words(3), 2), read(engine, words(3), 2))
        assert len(list(small.text.decode_greedy(5, 3, 3))) == 3
        assert small.text.cache.length == small.text.cache.capacity == 6
        small.text.cache.truncate(0)
        engine.text.cache.truncate(0)
        close_to(read(small, words(6), 6), read(engine, words(6), 6))


@pytest.mark.parametrize(("precision", "packing"), [("fp8", "fp8"), ("int8", "int8"), ("bf16", "")])
def test_other_precisions_are_computed_from_weights_as_they_are_stored(
    demo: Path, cuda: FakeCuda, tmp_path: Path, precision: str, packing: str
) -> None:
    fake_tensorrt.write_engines(demo, tmp_path, precision)
    settings = {"vision_precision": precision, "text_precision": precision, "engine_dir": tmp_path}
    found = []
    for decode in ("kernels", "engine"):
        with contextlib.closing(load(demo, backend="tensorrt", decode=decode, **settings)) as backend:
            stored = list(layer_matrices(backend.text._blocks._layers._weights))  # type: ignore[attr-defined]
            assert {each.packing for each in stored} == {packing}
            assert len(stored) == 4 * 4
            found.append((read(backend, words(11), 11), list(backend.text.decode_greedy(5, 11, 6))))
    close_to(found[0][0], found[1][0], 5e-2 if precision == "bf16" else 5e-3)
    if packing:
        assert found[0][1] == found[1][1]


def cache_is_finite(backend: Backend) -> bool:
    """Tells whether all rows are, those behind the valid ones, too."""
    text: Any = backend.text
    with text._device:
        text._device.wait()
    size = text._buffers.cache_rows * 2 * 64
    addresses = [address(layer) for layer in range(4) for address in (text._buffers.keys, text._buffers.values)]
    return all(np.isfinite(np.frombuffer(ctypes.string_at(at, 2 * size), np.float16)).all() for at in addresses)


@pytest.mark.parametrize(
    ("layer", "weight", "shown"), [(0, "qkv_weight", 0), (1, "down", 1), (3, "o_proj", 3), (0, "norm", 3)]
)
def test_numbers_that_are_not_finite_are_refused_and_leave_nothing_behind(
    kernels: Backend, layer: int, weight: str, shown: int
) -> None:
    """`norm` is fp32, and makes logits infinite by its upper half."""
    text: Any = kernels.text
    weights = text._blocks._layers._weights
    at = 1 if weight == "norm" else (4 + 2) * 64 * 256 if weight == "qkv_weight" else 0
    word = 0x7F80 if weight == "norm" else 0x7C00
    read(kernels, words(30))
    expected = list(kernels.text.decode_greedy(9, 30, 5))
    message = f"layer {shown} of the text decoder: its attention or MLP gives numbers beyond"
    for count in (1, 4, 12):
        kernels.text.cache.truncate(30)
        with set_number(weights, weight, layer, at, word), pytest.raises(NotFiniteError, match=message):
            read(kernels, words(count))
        assert kernels.text.cache.length == 30
        assert cache_is_finite(kernels)
    with set_number(weights, weight, layer, at, word), pytest.raises(NotFiniteError, match=message):
        next(kernels.text.decode_greedy(9, 30, 5))
    assert text._buffers.ring[0] == -1
    assert cache_is_finite(kernels)
    assert list(kernels.text.decode_greedy(9, 30, 5)) == expected


def test_decoding_goes_on_up_to_the_bad_token(kernels: Backend) -> None:
    """Steps ran ahead, and were computed with sound weights."""
    text: Any = kernels.text
    read(kernels, words(30))
    expected = list(kernels.text.decode_greedy(9, 30, 8))
    kernels.text.cache.truncate(30)
    decoding = kernels.text.decode_greedy(9, 30, 8)
    tokens = [next(decoding)]
    with text._device:
        text._device.wait()
    with set_number(text._blocks._layers._weights, "down", 3), pytest.raises(NotFiniteError):
        tokens += decoding
    assert tokens == expected[:3]
    assert kernels.text.cache.length == 33
    assert cache_is_finite(kernels)
