"""The decode kernel on a GPU, in all formats of weights, against the same step with float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from decode_reference import bits, chosen
from gpu_bench import say
from gpu_decode import FORMATS, MODELS, VISUAL, Bench, Benches

from litevlm_ros.runtime.tensorrt.numbers import from_words, to_words
from litevlm_ros.runtime.tensorrt.text_buffers import RING

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

CASES = [(1, past) for past in (0, 1, 63, 64, 511, 1000, 2047)]
CASES += [(2, 2040), (5, 300), (8, 0), (8, 1023), (9, 64), (11, 5), (11, 700), (16, 0), (16, 448), (16, 2032)]
"""New tokens, and the rows of the cache before them."""


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Benches]:
    pytest.importorskip("torch", reason="torch computes the reference: pip install 'litevlm_ros[convert]'")
    benches = Benches(tmp_path_factory.mktemp("decode"))
    yield benches
    benches.close()


@pytest.fixture
def made(benches: Benches) -> Iterator[Callable[..., Bench]]:
    """Makes a model by its name and format. Its device is current."""
    with benches.device:
        yield benches.bench


def some_ids(bench: Bench, count: int) -> Any:
    return (np.arange(count) * 7919 + 31) % bench.config.vocab_size


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_the_kernel_computes_what_float64_does(name: str, form: str, made: Callable[..., Bench]) -> None:
    """At positions that differ from the rows, and again behind other lengths, from the same buffers."""
    bench = made(name, form)
    worst, kept = 0.0, bench.config.num_kv_heads * bench.config.head_dim * 2
    for count, past in CASES:
        bench.reset()
        ids, positions = some_ids(bench, count), 3 + past + 2 * np.arange(count)
        next_tokens, bad = bench.read(ids, positions, past)
        assert bad is None
        found, expected = bench.logits(count), bench.expected(ids, positions, past)
        case = f"{count} tokens behind {past}"
        worst = max(worst, bench.hold(found, expected.logits, f"logits of {case}"))
        np.testing.assert_array_equal(next_tokens[:count], found.argmax(-1), case)
        for layer, rows in enumerate(zip(expected.keys, expected.values, strict=True)):
            for address, row in zip((bench.buffers.keys(layer), bench.buffers.values(layer)), rows, strict=True):
                new = bench.numbers(address + past * kept, row.shape)
                bench.hold(new.reshape(count, -1), row.reshape(count, -1), f"the cache of layer {layer}, {case}")
                before = bench.memory.read(address, (past * kept // 2,), np.uint16)
        np.testing.assert_array_equal(before, bench.past[-1, 1, :past].reshape(-1), case)
    say(f"{name} in {form}: largest relative error of logits {worst:.1e}")


@pytest.mark.parametrize("name", MODELS)
def test_steps_move_on_by_themselves(name: str, made: Callable[..., Bench]) -> None:
    """Each is what a single call gives for the token before."""
    bench = made(name, "fp16")
    bench.reset()
    token, past, expected = 17, 60, []
    for place in range(20):
        token = int(bench.read(np.array([token]), np.array([past + 4 + place]), past + place)[0][0])
        expected.append(token)
    step = bench.steps.step()
    for _ in range(2):
        bench.reset()
        bench.buffers.write_state(17, past + 4, past)
        found = []
        for place in range(20):
            step.run()
            bench.device.wait()
            found.append(int(bench.buffers.ring[place % RING]))
        assert found == expected
    assert len(set(expected)) > 5


@pytest.mark.parametrize("count", [1, 8, 16])
def test_masks_and_penalties_change_the_choice_alone(count: int, made: Callable[..., Bench]) -> None:
    bench = made("odd", "fp16")
    random, words = np.random.default_rng(3), bench.config.vocab_size
    bench.reset()
    ids = some_ids(bench, count)
    bench.buffers.write_prompt(ids, 100 + np.arange(count), 100, 1)
    bench.buffers.upload_prompt()
    penalty = bench.upload(np.array([1.7], np.float32))
    plain, logits = bench.launch(count)
    last = np.arange(words) == words - 1
    for share in (0.5, 0.02):
        allowed, penalised = random.random(words) < share, random.random(words) < 0.5
        penalised[plain] = True
        addresses = {
            "allowed": bench.upload(bits(allowed)),
            "penalised": bench.upload(bits(penalised)),
            "penalty": penalty,
        }
        for names in (("allowed",), ("penalised", "penalty"), ("allowed", "penalised", "penalty")):
            found, same = bench.launch(count, **{each: addresses[each] for each in names})
            np.testing.assert_array_equal(same, logits)
            masks = allowed if "allowed" in names else None, penalised if "penalised" in names else None
            np.testing.assert_array_equal(found, chosen(logits, *masks, np.float32(1.7)))
    assert (bench.launch(count, allowed=bench.upload(bits(last)))[0] == words - 1).all(), "one word is allowed"


@pytest.mark.parametrize("visual_is_bf16", [False, True])
def test_visual_tokens_are_embedded(visual_is_bf16: bool, made: Callable[..., Bench]) -> None:
    bench = made("odd", "fp16", visual_is_bf16=visual_is_bf16)
    kind = "bf16" if visual_is_bf16 else "fp16"
    rows = to_words(np.random.default_rng(4).standard_normal((VISUAL, bench.config.hidden_size), np.float32), kind)
    bench.memory.write(bench.buffers.visual, rows)
    bench.reset()
    for count in (1, 6, 10):
        ids = some_ids(bench, count)
        ids[::3] = bench.config.vocab_size + np.arange(len(ids[::3]))
        assert bench.read(ids, 9 + np.arange(count), 9)[1] is None
        expected = bench.expected(ids, 9 + np.arange(count), 9, from_words(rows, kind).astype(np.float64))
        bench.hold(bench.logits(count), expected.logits, f"{count} tokens")


@pytest.mark.parametrize("count", [1, 5, 13])
def test_numbers_that_are_not_finite_are_flagged_and_the_next_step_is_sound(
    count: int, made: Callable[..., Bench]
) -> None:
    bench = made("odd", "fp16")
    bench.reset()
    step, ids, positions = bench.steps.step(), some_ids(bench, count), 50 + np.arange(count)
    assert bench.read(ids, positions, 50)[1] is None
    sound = bench.logits(count)
    row = np.full(bench.config.hidden_size, 0x7C00, np.uint16)
    bench.memory.write(bench.buffers.visual, row)
    ids[-1] = bench.config.vocab_size
    assert bench.read(ids, positions, 50)[1] == 0, "the first layer's keys"
    bench.buffers.write_state(bench.config.vocab_size, 50, 50)
    step.run()
    bench.device.wait()
    assert bench.buffers.ring[0] == -1
    bench.buffers.clear_rows(50, 50 + count)
    bench.buffers.clear_bad()
    assert bench.read(some_ids(bench, count), positions, 50)[1] is None
    np.testing.assert_array_equal(bench.logits(count), sound)
