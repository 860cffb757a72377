"""The text decoder up to execution: plans and GPU are fakes that compute with ONNX Runtime and run in order."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from backends import PIXELS, PROMPT, V, agree, follow, load, on_cpu, on_host, read, same, tiles, words
from fake_cuda import FakeCuda
from outliers import write_model_with_outlier
from weight_damage import set_number

from litevlm_ros.backend import Backend, read_one_by_one
from litevlm_ros.errors import EngineError, NotFiniteError
from litevlm_ros.runtime.tensorrt import text_programs

# --- the same figures as ONNX Runtime


@pytest.mark.parametrize("length", [1, 2, 9, 60, 64, 65, 96, 97, 100, 250])
def test_prompts_of_all_lengths_give_the_logits_of_onnxruntime(backend: Backend, directory: Path, length: int) -> None:
    """Filled up to a size of plans, or in parts of the engine's 96 tokens, the prompt is the same."""
    reference = on_cpu(directory)
    wanted = min(length, 5)
    sure = sum(same(read(backend, words(length), wanted), read(reference, words(length), wanted)) for _ in range(2))
    assert sure >= wanted, "the second time is behind a cache that is not empty"
    assert backend.text.cache.length == reference.text.cache.length == 2 * length


def test_the_whole_cache_can_be_filled(backend: Backend, directory: Path) -> None:
    reference = on_cpu(directory)
    for each in (backend, reference):
        read(each, words(690))
    same(read(backend, words(10), 5), read(reference, words(10), 5))
    assert backend.text.cache.length == backend.text.cache.capacity == 700


def test_visual_tokens_reach_the_prompt(backend: Backend, directory: Path) -> None:
    reference = on_cpu(directory)
    ids = np.concatenate((PROMPT[:2], V + np.arange(12), PROMPT[6:]))
    expected = read(reference, ids, 3, reference.vision.encode(tiles(3)))
    same(read(backend, ids, 3, backend.vision.encode(tiles(3))), expected)
    backend.text.cache.truncate(0)
    other = read(backend, ids, 3, backend.vision.encode(tiles(3)[::-1]))[1]
    assert np.abs(other - expected[1]).max() > 0.3


def test_visual_tokens_in_several_parts_of_a_prompt_are_their_own(backend: Backend, directory: Path) -> None:
    """120 words lie between the first and the last of them."""
    reference = on_cpu(directory)
    ids = np.concatenate((V + np.arange(3), words(120), [V + 3]))
    expected = read(reference, ids, 2, reference.vision.encode(PIXELS))
    same(read(backend, ids, 2, backend.vision.encode(PIXELS)), expected)


def test_single_tokens_are_read_as_on_onnxruntime(backend: Backend, directory: Path) -> None:
    reference = on_cpu(directory)
    for each in (backend, reference):
        read(each, words(60))
    assert sum(same(read(backend, [token]), read(reference, [token])) for token in words(10).tolist()) >= 6


def test_greedy_decoding_gives_the_tokens_of_onnxruntime(backend: Backend, directory: Path) -> None:
    """At positions that differ from the rows."""
    reference = on_cpu(directory)
    for each in (backend, reference):
        read(each, words(50))
    tokens = list(backend.text.decode_greedy(7, 400, 40))
    assert follow(reference, 7, 400, tokens) >= 30
    assert len(set(tokens)) > 10, "an answer that repeats one token compares little"
    assert backend.text.cache.length == reference.text.cache.length == 90


def test_decoding_by_forward_is_the_same(backend: Backend) -> None:
    read(backend, [5, 9])
    expected = list(backend.text.decode_greedy(3, 2, 12))
    backend.text.cache.truncate(2)
    assert list(read_one_by_one(backend.text, 3, 2, 12)) == expected


# --- drafts


@pytest.mark.parametrize("count", [2, 3, 5, 8, 15, 16])
def test_verification_gives_the_tokens_of_onnxruntime_behind_any_length(
    backend: Backend, directory: Path, count: int
) -> None:
    reference = on_cpu(directory)
    sure = 0
    for length in (1, 63, 64, 130):
        for each in (reference, backend):
            each.text.cache.truncate(0)
            read(each, words(length))
        sure += same(read(backend, words(count, 31), count), read(reference, words(count, 31), count))
    assert sure >= 3 * count


def test_prepared_verifications_need_no_further_programs(backend: Backend) -> None:
    text: Any = backend.text
    assert text.most_logits == 16
    text.prepare((2, 4, 8, 16))
    prepared, step = dict(text._blocks.prompts), text._blocks._step
    assert list(prepared) == [(2, 2), (4, 4), (8, 8), (16, 16)]
    read(backend, words(70))
    del text._blocks.prompts[96, 1]
    for length in (1, 30, 64):
        text.cache.truncate(length)
        for count in (2, 3, 4, 7, 8, 9, 15, 16):
            read(backend, words(count), count)
    list(text.decode_greedy(3, text.cache.length, 2))
    assert text._blocks.prompts == prepared
    assert text._blocks._step is step


# --- programs


def test_a_prompt_is_one_graph_whatever_the_cache_holds(backend: Backend, cuda: FakeCuda) -> None:
    """Prompts of 33 to 64 tokens are the same graph."""
    for count in (64, 33, 40, 64, 50):
        read(backend, words(count))
    programs, graphs = dict(backend.text._blocks.prompts), dict(cuda.graphs)  # type: ignore[attr-defined]
    assert list(programs) == [(64, 1)]
    for length in (0, 64, 200, 251):
        backend.text.cache.truncate(length)
        before = cuda.launches
        read(backend, words(33 + length // 10))
        assert cuda.launches - before == 1
        if length < 200:
            for _ in range(3):
                read(backend, words(64))
    assert cuda.graphs == graphs


def test_graphs_are_recorded_anew_when_working_memory_has_moved(backend: Backend, cuda: FakeCuda) -> None:
    """A larger prompt needs more of it, and attention is not made again."""
    read(backend, words(5))
    tokens, logits = list(backend.text.decode_greedy(3, 5, 4)), read(backend, words(5))[1]
    visual = backend.vision.encode(PIXELS)
    expected = on_host(backend, visual)
    read(backend, words(90))
    backend.text.cache.truncate(5)
    before = cuda.launches
    assert list(backend.text.decode_greedy(3, 5, 4)) == tokens
    assert cuda.launches - before == 3, "the first step is not a graph yet"
    np.testing.assert_array_equal(read(backend, words(5))[1], logits)
    np.testing.assert_array_equal(on_host(backend, backend.vision.encode(PIXELS)), expected)


def test_the_prompt_sizes_that_are_kept_are_limited(
    backend: Backend, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of drafts are all kept, and memory of the others is given back."""
    monkeypatch.setattr(text_programs, "MOST_PROMPTS", 2)
    text: Any = backend.text
    expected: dict[int, Any] = {}
    text.prepare((2, 4))
    for length in (30, 60, 90, 30, 90, 60, 60, 90):
        text.cache.truncate(0)
        logits = read(backend, words(length))[1]
        np.testing.assert_array_equal(logits, expected.setdefault(length, logits))
        assert len(text._blocks.prompts) <= 4
    assert list(text._blocks.prompts) == [(2, 2), (4, 4), (64, 1), (96, 1)], "the newest ones"
    taken, graphs = cuda.taken, len(cuda.graphs)
    for length in (30, 60, 90):
        read(backend, words(length))
    assert (cuda.taken, len(cuda.graphs)) == (taken, graphs)


def test_a_known_prompt_size_enqueues_nothing_but_its_graph(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are copied to the device, and results from there, by the graphs themselves."""
    text: Any = backend.text
    length = 96 + 50
    expected = read(backend, words(length))[0]
    text.cache.truncate(0)
    for copy in ("memcpy_htod_async", "memcpy_dtoh_async"):
        monkeypatch.setattr(text._device.driver, copy, lambda *_: pytest.fail("a copy of its own"))
    assert text.forward(words(length), np.arange(length)).next_tokens.tolist() == expected


def test_a_prompt_in_parts_is_one_graph_for_each(backend: Backend, cuda: FakeCuda) -> None:
    before = cuda.launches
    read(backend, words(2 * 96 + 1))
    assert cuda.launches - before == 3


def test_decoding_is_one_graph_launch_a_token_and_runs_ahead(backend: Backend, cuda: FakeCuda) -> None:
    read(backend, PROMPT[:2])
    before = cuda.launches
    decoding = backend.text.decode_greedy(5, 2, 10)
    next(decoding)
    assert cuda.launches - before == 3
    for _ in decoding:
        pass
    assert cuda.launches - before == 10, "none is launched that nobody wants"


def test_dropping_the_iterator_takes_back_what_ran_ahead(backend: Backend) -> None:
    start = read(backend, [5, 9, 17])[0][0]
    expected = list(backend.text.decode_greedy(start, 3, 8))
    for taken in range(1, 7):
        backend.text.cache.truncate(3)
        tokens = list(itertools.islice(backend.text.decode_greedy(start, 3, 8), taken))
        assert tokens == expected[:taken]
        assert backend.text.cache.length == 3 + taken
        assert read(backend, [tokens[-1]])[0] == [expected[taken]]


def test_it_may_be_dropped_for_a_prompt(backend: Backend) -> None:
    expected = read(backend, PROMPT[6:])[1]
    backend.text.cache.truncate(0)
    read(backend, [44, 50])
    decoding = backend.text.decode_greedy(60, 2, 50)
    next(decoding)
    backend.text.cache.truncate(0)
    np.testing.assert_array_equal(read(backend, PROMPT[6:])[1], expected)


def test_it_may_be_dropped_for_a_prompt_of_a_new_size(backend: Backend) -> None:
    """Making a program uses the inputs of the steps that run ahead."""
    read(backend, [44, 50])
    next(backend.text.decode_greedy(60, 2, 50))
    backend.text.cache.truncate(2)
    first = read(backend, words(20))[1]
    backend.text.cache.truncate(2)
    np.testing.assert_array_equal(read(backend, words(20))[1], first)


def test_decoding_stops_where_the_cache_is_full(directory: Path, cuda: FakeCuda) -> None:
    backend = load(directory, backend="tensorrt", max_context=12)
    read(backend, PROMPT[:2])
    decoding = backend.text.decode_greedy(5, 2, 50)
    assert len(list(itertools.islice(decoding, 10))) == 10
    with pytest.raises(EngineError, match="1 more tokens do not fit behind the 12 in the cache of 12"):
        next(decoding)
    assert backend.text.cache.length == 12
    backend.close()


def test_a_small_cache_answers_as_a_large_one(backend: Backend, directory: Path) -> None:
    small = load(directory, backend="tensorrt", max_context=12)
    for each in (backend, small):
        read(each, words(2))
    (tokens, logits), (expected_tokens, expected) = (read(each, words(10), 10) for each in (small, backend))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=0.02)
    agree(tokens, expected)
    assert len(expected_tokens) == 10
    small.close()


# --- numbers that are not finite


@pytest.fixture
def answers(backend: Backend) -> Callable[[], list[Any]]:
    """Returns what a decoder answers, from an empty cache."""

    def ask() -> list[Any]:
        backend.text.cache.truncate(0)
        found: list[Any] = [read(backend, words(70), 3)[1]]
        found.append(list(backend.text.decode_greedy(9, 70, 5)))
        found.append(read(backend, words(3), 3)[1])
        found.append(read(backend, [7])[1])
        return found

    return ask


def equal(found: list[Any], expected: list[Any]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def cache_is_finite(backend: Backend) -> bool:
    """Tells whether all rows are, those behind the valid ones, too."""
    text: Any = backend.text
    buffers = text._buffers
    with text._device:
        text._device.wait()
    size = buffers.cache_rows * 2 * 8  # key heads and their width
    numbers = [
        np.frombuffer(ctypes.string_at(address(layer), 2 * size), np.float16)
        for layer in range(2)
        for address in (buffers.keys, buffers.values)
    ]
    return bool(np.isfinite(numbers).all())


@pytest.mark.parametrize(
    ("layer", "weight", "shown"),
    [(0, "qkv_weight", 0), (0, "down", 0), (1, "qkv_weight", 0), (1, "down", 1), (0, "head", 1)],
)
def test_a_bad_call_is_refused_and_leaves_nothing_behind(
    backend: Backend, cuda: FakeCuda, answers: Callable[[], list[Any]], layer: int, weight: str, shown: int
) -> None:
    text: Any = backend.text
    expected = answers()
    first = (6 + 2) * 8 * 48 if weight == "qkv_weight" else 0  # the first value, behind queries and keys
    damaged = functools.partial(set_number, text._blocks._layers._weights, weight, layer, first)
    message = f"layer {shown} of the text decoder: its attention or MLP gives numbers beyond"
    for length in (0, 30, 70):
        text.cache.truncate(0)
        if length:
            read(backend, words(length))
        for count in (1, 4, 20, 100):
            with damaged(), pytest.raises(NotFiniteError, match=message):
                read(backend, words(count))
            assert text.cache.length == length
            assert cache_is_finite(backend)
    text.cache.truncate(0)
    read(backend, words(70))
    with damaged(), pytest.raises(NotFiniteError, match=message):
        next(text.decode_greedy(9, 70, 5))
    assert text.cache.length == 70
    assert cache_is_finite(backend)
    assert equal(answers(), expected)
    assert cuda.depth == 0


def test_decoding_goes_on_up_to_the_bad_token(backend: Backend, answers: Callable[[], list[Any]]) -> None:
    """Steps ran ahead, and were computed with sound weights."""
    text: Any = backend.text
    expected = answers()
    text.cache.truncate(70)
    decoding = text.decode_greedy(9, 70, 8)
    tokens = [next(decoding)]
    with text._device:
        text._device.wait()
    with set_number(text._blocks._layers._weights, "head"), pytest.raises(NotFiniteError):
        tokens += decoding
    assert len(tokens) == 3, "two more were there before"
    assert tokens == expected[1][:3]
    assert text.cache.length == 73, "it ends with the token before the last one"
    assert cache_is_finite(backend)
    assert equal(answers(), expected)


def test_a_bad_key_is_noticed_although_logits_are_finite(backend: Backend, answers: Callable[[], list[Any]]) -> None:
    """A key of minus infinity gets no attention where a query is positive, and would be wrong where it is not."""
    text: Any = backend.text
    expected = answers()
    text.cache.truncate(70)
    decoding = text.decode_greedy(9, 70, 8)
    next(decoding)
    with text._device:
        flag = text._buffers.bad
        text._device.wait()
        text._device.driver.memset_d8_async(flag, 1, 1, text._device.stream)
    with pytest.raises(NotFiniteError):
        list(decoding)
    assert equal(answers(), expected)


@pytest.mark.parametrize(("weight", "holds"), [("mlp.down_proj.weight", True), ("mlp.up_proj.weight", False)])
def test_a_model_with_an_outlier_is_refused_only_where_fp16_cannot_hold_it(
    directory: Path, cuda: FakeCuda, tmp_path: Path, weight: str, holds: bool
) -> None:
    """The sum over the layers is fp32, and what lies within an MLP is fp16. Making programs computes with it, too."""
    model = write_model_with_outlier(directory, tmp_path / "model", 8e4, 0, weight)
    fake_tensorrt.write_engines(model, model)
    backend = load(model, backend="tensorrt")
    assert cache_is_finite(backend)
    refused = pytest.raises(NotFiniteError, match="build_engines --text-precision bf16")
    for count in (20, 1):
        with contextlib.nullcontext() if holds else refused:
            read(backend, words(count))
        assert cache_is_finite(backend)
    backend.close()


# --- failures


def test_failed_calls_leave_the_cache_as_it_was(directory: Path, cuda: FakeCuda) -> None:
    backend = load(directory, backend="tensorrt", max_context=120)
    visual = backend.vision.encode(PIXELS)
    read(backend, PROMPT, 1, visual)
    before = read(backend, [31])[1]
    for ids, wanted, rows, message in (
        (words(111), 1, None, "111 more tokens do not fit behind the 10 in the cache of 120"),
        ([320], 1, None, "a token id is 320, but there are 320 words and 0 visual tokens"),
        ([5, 324], 1, visual, "a token id is 324, but there are 320 words and 4 visual tokens"),
        ([5, -1], 1, None, "a token id is -1"),
        ([5], 2, None, "2 logits of 1 tokens were asked for; allowed: 1 to 1"),
        (words(20), 17, None, "17 logits of 20 tokens were asked for; allowed: 1 to 16"),
        (words(20), 0, None, "0 logits of 20 tokens were asked for; allowed: 1 to 16"),
        ([5, 320], 1, backend.vision.encode(tiles(31)), "124 visual tokens and there is room for 120; use fewer views"),
    ):
        with pytest.raises(EngineError, match=message):
            read(backend, ids, wanted, rows)
        assert backend.text.cache.length == 10
    backend.text.cache.truncate(9)
    np.testing.assert_array_equal(read(backend, [31])[1], before)
    backend.close()


def test_a_failing_gpu_is_an_engine_error(backend: Backend, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    read(backend, PROMPT[:2])

    def fail(*_: Any) -> None:
        raise cuda.pycuda().Error("an illegal memory access was encountered")

    text: Any = backend.text
    monkeypatch.setattr(text._device.driver, "memcpy_htod_async", fail)
    for ids in ([5], words(100)):
        with pytest.raises(EngineError, match=r"the GPU failed: an illegal memory access .* load the model again"):
            read(backend, ids)
        assert backend.text.cache.length == 2
        assert cuda.depth == 0


def test_hidden_states_stay_in_the_engine(backend: Backend) -> None:
    assert not backend.text.gives_hidden
    with pytest.raises(EngineError, match="no hidden states"):
        backend.text.forward(words(2), np.arange(2)).hidden()
