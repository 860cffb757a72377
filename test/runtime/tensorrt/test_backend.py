"""The TensorRT backend up to execution: engines and GPU are fakes that compute with ONNX Runtime and run in order."""

from __future__ import annotations

import gc
import importlib.util
import itertools
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from fake_cuda import FakeCuda
from tiny_internvl import model_directory

from litevlm_ros.backend import Backend, read_one_by_one
from litevlm_ros.config import PipelineConfig, SamplingConfig, TokenSelectionConfig
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.runtime.load import load_backend
from litevlm_ros.runtime.onnx.token_selection import HostVisualTokens
from litevlm_ros.runtime.tensorrt import engine_files
from litevlm_ros.runtime.tensorrt import token_selection as tensorrt_selection
from litevlm_ros.types import View

V = 320
PIXELS = (np.arange(56 * 56 * 3).reshape(1, 56, 56, 3) % 251).astype(np.uint8)
PROMPT = np.array([5, 9, 320, 321, 322, 323, 17, 20, 2])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("engines") / "model"
    shutil.copytree(model_directory(), directory)
    fake_tensorrt.write_engines(directory, directory)
    return directory


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    cuda = FakeCuda()
    fake_tensorrt.install(monkeypatch, cuda)
    yield cuda
    fake_tensorrt.forget()


@pytest.fixture
def backend(directory: Path, cuda: FakeCuda) -> Iterator[Backend]:
    backend = load(directory)
    yield backend
    backend.close()


def load(directory: Path, **settings: Any) -> Backend:
    return load_backend(PipelineConfig(directory, **settings), ModelConfig.from_directory(directory))


def on_cpu(directory: Path, **settings: Any) -> Backend:
    return load(directory, backend="onnxruntime", **settings)


def read(backend: Backend, ids: Any, wanted: int = 1, visual: Any = None) -> tuple[list[int], Any]:
    """Next tokens and logits of ids at the positions after the cache."""
    start = backend.text.cache.length
    output = backend.text.forward(np.asarray(ids), start + np.arange(len(ids)), visual, wanted)
    return output.next_tokens.tolist(), output.logits().copy()


def tiles(count: int) -> Any:
    return np.concatenate([np.roll(PIXELS, 7 * shift, 1) for shift in range(count)])


# --- which engines are loaded


def test_an_engine_that_others_can_write_is_not_loaded(directory: Path, cuda: FakeCuda, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "model")
    (tmp_path / "model" / "text_decoder_fp16.engine.json").chmod(0o666)
    with pytest.raises(EngineError, match=r"text_decoder_fp16\.engine\.json can be written by other users"):
        load(tmp_path / "model", backend="tensorrt")
    assert load(tmp_path / "model").name == "onnxruntime"


# --- drafts


def test_verification_gives_the_tokens_of_onnxruntime_behind_any_length(backend: Backend, directory: Path) -> None:
    reference = on_cpu(directory)
    for length in (3, 255, 256, 400):
        for count in (2, 3, 5, 8):
            draft = (np.arange(count) * 31 + 7) % V
            for each in (reference, backend):
                each.text.cache.truncate(0)
                read(each, (np.arange(length) * 37 + 11) % V)
            expected, logits = read(reference, draft, count)
            found, found_logits = read(backend, draft, count)
            assert found == expected
            np.testing.assert_allclose(found_logits, logits, atol=2e-4)


def test_prepared_verifications_need_no_further_programs(backend: Backend, cuda: FakeCuda) -> None:
    text: Any = backend.text
    assert text.most_logits == 8
    text.prepare((2, 4, 8))
    prepared = dict(text._verifications)
    assert {count for count, _ in prepared} == {2, 4, 8}
    for length in (1, 200, 300, 600):
        text.cache.truncate(0)
        read(backend, np.arange(length) % V)
        for count in (2, 3, 4, 7, 8):
            read(backend, np.arange(count), count)
    assert text._verifications == prepared


# --- the same figures as ONNX Runtime


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_tiles_are_encoded_as_by_onnxruntime(backend: Backend, directory: Path, count: int) -> None:
    """7 tiles are more than the engine takes at once."""
    tokens = backend.vision.encode(tiles(count))
    assert tokens.count == 4 * count
    expected = on_cpu(directory).vision.encode(tiles(count))
    np.testing.assert_array_equal(on_host(backend, tokens), expected.rows)  # type: ignore[attr-defined]


def test_parts_of_tokens_are_joined_on_the_device(backend: Backend, directory: Path) -> None:
    tokens, one = backend.vision.encode(tiles(3)), backend.vision.encode(tiles(1))
    joined = backend.vision.join([tokens.part(8, 12), one, tokens.part(2, 9).part(1, 3)])
    assert joined.count == 4 + 4 + 2
    rows, row = (on_host(backend, each) for each in (tokens, one))
    np.testing.assert_array_equal(on_host(backend, joined), np.concatenate([rows[8:12], row, rows[3:5]]))


def test_a_part_keeps_the_memory_of_the_whole(backend: Backend) -> None:
    whole = backend.vision.encode(tiles(3))
    expected = on_host(backend, whole)[4:8]
    part = whole.part(4, 8)
    del whole
    gc.collect()
    backend.vision.encode(tiles(3)[::-1])
    np.testing.assert_array_equal(on_host(backend, part), expected)


# --- token selection


@pytest.mark.parametrize("method", ["random", "diversity", "similarity"])
def test_tokens_are_selected_on_the_device_as_in_host_memory(backend: Backend, directory: Path, method: str) -> None:
    selection = TokenSelectionConfig(method, 0.5)
    device, host = backend.token_selector(selection), on_cpu(directory).token_selector(selection)
    for count in (1, 3):
        tokens = backend.vision.encode(tiles(count))
        kept = device.select(tokens)
        expected = host.select(HostVisualTokens(on_host(backend, tokens)))
        assert kept.places.tolist() == expected.places.tolist()
        assert kept.visual.count == 2 * count
        np.testing.assert_array_equal(on_host(backend, kept.visual), expected.visual.rows)  # type: ignore[attr-defined]


def test_more_tiles_than_there_is_working_memory_for_are_selected_in_turn(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection = TokenSelectionConfig("diversity", 0.5)
    tokens = backend.vision.encode(tiles(5))
    at_once = backend.token_selector(selection).select(tokens)
    monkeypatch.setattr(tensorrt_selection, "TILES_AT_ONCE", 2)
    in_turn = backend.token_selector(selection).select(tokens)
    assert in_turn.places.tolist() == at_once.places.tolist()
    np.testing.assert_array_equal(on_host(backend, in_turn.visual), on_host(backend, at_once.visual))


def test_answers_with_selected_tokens_are_those_of_onnxruntime(directory: Path, cuda: FakeCuda) -> None:
    selection = TokenSelectionConfig("diversity", 0.5)
    views = [View("front", np.roll(PIXELS[0], shift, 0)) for shift in (0, 9)]
    answers = []
    for name in ("tensorrt", "onnxruntime"):
        pipe = Pipeline.from_config(PipelineConfig(directory, backend=name, token_selection=selection))
        answers.append(pipe.generate(views, "What is there?", SamplingConfig(12)))
        pipe.close()
    assert answers[0].text == answers[1].text
    assert [answer.tokens.visual for answer in answers] == [4, 4]
    assert answers[0].timings.select > 0


def test_a_scorer_is_refused_with_the_methods_that_work(backend: Backend) -> None:
    with pytest.raises(ConfigError, match="'scorer'; allowed on TensorRT: off, random, diversity, similarity"):
        backend.token_selector(TokenSelectionConfig("scorer"))


def on_host(backend: Backend, tokens: Any) -> Any:
    device = backend.text._device  # type: ignore[attr-defined]
    with device:
        memory = device.driver.pagelocked_zeros((tokens.size,), np.uint8, mem_flags=2)
        device.driver.memcpy_dtoh_async(memory, tokens.address, device.stream)
        device.wait()
        return memory.view(np.float32).reshape(tokens.count, -1).copy()


@pytest.mark.parametrize("length", [1, 2, 9, 60, 64, 65, 96, 97, 100, 250, 600])
def test_prompts_of_all_lengths_give_the_logits_of_onnxruntime(backend: Backend, directory: Path, length: int) -> None:
    """Padded to its bucket, whole or in parts of the engine's 96 tokens, the prompt is the same."""
    reference = on_cpu(directory)
    ids = (np.arange(length) * 37 + 11) % V
    wanted = min(length, 5)
    for _ in range(2):  # the second time behind a cache that is not empty
        tokens, logits = read(backend, ids[: 700 - backend.text.cache.length], wanted)
        expected_tokens, expected = read(reference, ids[: 700 - reference.text.cache.length], wanted)
        np.testing.assert_allclose(logits, expected, atol=2e-4)
        assert tokens == expected_tokens
        if length == 600:
            break
    assert backend.text.cache.length == reference.text.cache.length


def test_visual_tokens_reach_the_prompt(backend: Backend, directory: Path) -> None:
    reference = on_cpu(directory)
    ids = np.concatenate((PROMPT[:2], V + np.arange(12), PROMPT[6:]))
    expected = read(reference, ids, 3, reference.vision.encode(tiles(3)))[1]
    np.testing.assert_allclose(read(backend, ids, 3, backend.vision.encode(tiles(3)))[1], expected, atol=2e-4)
    backend.text.cache.truncate(0)
    other = read(backend, ids, 3, backend.vision.encode(tiles(3)[::-1]))[1]
    assert np.abs(other - expected).max() > 0.01


def test_single_tokens_cross_buckets_as_on_onnxruntime(backend: Backend, directory: Path) -> None:
    reference = on_cpu(directory)
    for each in (backend, reference):
        read(each, np.arange(250) % V)
    for token in (np.arange(20) * 37) % 300:
        tokens, logits = read(backend, [token])
        expected_tokens, expected = read(reference, [token])
        np.testing.assert_allclose(logits, expected, atol=2e-4)
        assert tokens == expected_tokens


def test_greedy_decoding_gives_the_tokens_of_onnxruntime(backend: Backend, directory: Path) -> None:
    """Over a bucket's end, and at positions that differ from the rows."""
    reference = on_cpu(directory)
    for each in (backend, reference):
        read(each, np.arange(240) % V)
    tokens = list(backend.text.decode_greedy(7, 400, 60))
    assert tokens == list(reference.text.decode_greedy(7, 400, 60))
    assert len(set(tokens)) > 10, "an answer that repeats one token compares little"
    assert backend.text.cache.length == reference.text.cache.length == 300


def test_the_pipeline_answers_as_on_onnxruntime(directory: Path, cuda: FakeCuda) -> None:
    rows, columns = np.indices((60, 90))
    views = [View(name, np.stack([(rows * s + columns * c) % 256 for c in (2, 3, 5)], -1).astype(np.uint8))
             for s, name in enumerate(("front", "back"), 1)]  # fmt: skip
    texts = {}
    for name in ("tensorrt", "onnxruntime"):
        pipe = Pipeline.from_config(PipelineConfig(directory, backend=name, max_tiles=6))
        pipe.stop_ids = frozenset()
        encoded = pipe.encode(views[:1])
        texts[name] = [pipe.answer(encoded, question, SamplingConfig(20)).text for question in ("What?", "Why?")]
        texts[name].append(pipe.generate(views, "How many?", SamplingConfig(20, temperature=2.0, seed=3)).text)
        texts[name].append(pipe.answer(encoded, "What?", SamplingConfig(20)).text)
        pipe.close()
    assert texts["tensorrt"] == texts["onnxruntime"]
    assert texts["tensorrt"][0] == texts["tensorrt"][3]
    assert len(set(texts["tensorrt"])) == 3


# --- running ahead


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
    np.testing.assert_allclose(read(backend, PROMPT[6:])[1], expected, atol=1e-5)


def test_decoding_stops_where_the_cache_is_full(directory: Path, cuda: FakeCuda) -> None:
    backend = load(directory, max_context=12)
    read(backend, PROMPT[:2])
    decoding = backend.text.decode_greedy(5, 2, 50)
    assert len(list(itertools.islice(decoding, 10))) == 10
    with pytest.raises(EngineError, match="1 more tokens do not fit behind the 12 in the cache of 12"):
        next(decoding)
    assert backend.text.cache.length == 12
    backend.close()


def test_decoding_by_forward_is_the_same(backend: Backend) -> None:
    read(backend, [5, 9])
    expected = list(backend.text.decode_greedy(3, 2, 12))
    backend.text.cache.truncate(2)
    assert list(read_one_by_one(backend.text, 3, 2, 12)) == expected


# --- failures


def test_failed_calls_leave_the_cache_as_it_was(directory: Path, cuda: FakeCuda) -> None:
    backend = load(directory, max_context=120)
    visual = backend.vision.encode(PIXELS)
    read(backend, PROMPT, 1, visual)
    before = read(backend, [31])[1]
    for ids, wanted, rows, message in (
        (np.arange(111), 1, None, "111 more tokens do not fit behind the 10 in the cache of 120"),
        ([320], 1, None, "a token id is 320, but there are 320 words and 0 visual tokens"),
        ([5, 324], 1, visual, "a token id is 324, but there are 320 words and 4 visual tokens"),
        ([5, -1], 1, None, "a token id is -1"),
        ([5], 2, None, "2 logits of 1 tokens were asked for; allowed: 1 to 1"),
        (np.arange(20), 9, None, "9 logits of 20 tokens were asked for; allowed: 1 to 8"),
        ([5, 320], 1, backend.vision.encode(tiles(16)), "64 visual tokens and the engine takes 60; use fewer views"),
    ):
        with pytest.raises(EngineError, match=message):
            read(backend, ids, wanted, rows)
        assert backend.text.cache.length == 10
    backend.text.cache.truncate(9)
    np.testing.assert_array_equal(read(backend, [31])[1], before)
    with pytest.raises(EngineError, match=r"takes tiles of \[56, 56, 3\], not \[1, 28, 28, 3\] pixels"):
        backend.vision.encode(PIXELS[:, :28, :28])
    backend.close()


def test_a_failing_gpu_is_an_engine_error(backend: Backend, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    read(backend, PROMPT[:2])

    def fail(*_: Any) -> None:
        raise cuda.pycuda().Error("an illegal memory access was encountered")

    monkeypatch.setattr(backend.text._device.driver, "memcpy_htod_async", fail)  # type: ignore[attr-defined]
    for ids in ([5], np.arange(100)):
        with pytest.raises(EngineError, match=r"the GPU failed: an illegal memory access .* load the model again"):
            read(backend, ids)
        assert backend.text.cache.length == 2
        assert cuda.depth == 0


def test_a_gpu_that_cannot_capture_runs_without_graphs(
    directory: Path, cuda: FakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    cuda.refuse_capture = True
    backend = load(directory)
    assert "runs without a CUDA graph, which is slower" in caplog.text
    reference = on_cpu(directory)
    for each in (backend, reference):
        read(each, PROMPT[6:])
    assert list(backend.text.decode_greedy(5, 3, 9)) == list(reference.text.decode_greedy(5, 3, 9))
    assert cuda.launches == 0
    backend.close()


def test_tensorrt_rtx_keeps_the_kernels_that_it_compiled(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_tensorrt.install(monkeypatch, FakeCuda(), rtx=True)
    fake_tensorrt.write_engines(model_directory(), copy, flavour="tensorrt_rtx")
    directory = copy / "text_decoder_fp16.runtime_cache"

    def kept() -> list[bytes]:
        return [file.read_bytes() for file in directory.iterdir()]

    backend = load(copy)
    assert backend.description.startswith("TensorRT-RTX 10.3.0")
    assert kept() == 3 * [b"kernels "], "a cache for each decode bucket: 256, 512 and 700"
    read(backend, np.arange(20))
    backend.close()
    assert kept() == 4 * [b"kernels "]
    backend = load(copy)
    assert sorted(kept()) == [b"kernels "] + 3 * [b"kernels kernels "], "what was kept is read and added to"
    backend.close()
    shutil.rmtree(directory)
    directory.write_text("as good as a directory that is not writable, also for root")
    caplog.set_level(logging.INFO)
    load(copy).close()
    assert f"{directory}/1-" in caplog.text
    assert "kernels are compiled at each start" in caplog.text
    fake_tensorrt.forget()


def test_the_prompt_shapes_that_are_kept_are_limited(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litevlm_ros.runtime.tensorrt.text.MOST_PROGRAMS", 2)
    expected = {}
    for length in (3, 30, 90, 3, 90, 30):
        backend.text.cache.truncate(0)
        logits = read(backend, np.arange(length))[1]
        np.testing.assert_array_equal(logits, expected.setdefault(length, logits))
        assert len(backend.text._prompts) <= 2  # type: ignore[attr-defined]


# --- memory


def test_everything_is_freed_and_counted(directory: Path, cuda: FakeCuda, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    backend = load(directory)
    weights = sum(file.stat().st_size for file in directory.glob("*.engine"))
    memory = backend.memory()
    assert memory["vision encoder weights"] + memory["text decoder weights"] == weights == cuda.taken
    assert memory["KV cache"] == 2 * 2 * 704 * 2 * 8 * 4, "layers, kinds, rows to a multiple of 16, heads, width, bytes"
    assert not list(directory.glob("*.runtime_cache")), "only TensorRT-RTX compiles when an engine runs"
    assert "Fake GPU: 1.07 GB of 1.07 GB free before loading" in caplog.text
    assert "KV cache 0.2 MB" in caplog.text
    assert "free now" in caplog.text
    visual = backend.vision.encode(tiles(7))
    read(backend, np.arange(100))
    assert visual.count == 28
    next(backend.text.decode_greedy(5, 100, 9))
    backend.close()
    assert all(not stream.waiting for stream in cuda.streams.values()), "nothing runs on memory that is freed"
    gc.collect()
    assert (cuda.live, cuda.taken, cuda.graphs, cuda.depth, cuda.retained) == ({}, 0, {}, 0, 0)
    again = load(directory)
    again.close()


def test_visual_tokens_keep_their_memory_as_long_as_they_live(backend: Backend, cuda: FakeCuda) -> None:
    first = backend.vision.encode(tiles(2))
    held = on_host(backend, first)
    addresses = {backend.vision.encode(tiles(2)[::-1]).address for _ in range(5)}  # type: ignore[attr-defined]
    assert len(addresses) == 1, "memory that nobody holds is used again"
    assert first.address not in addresses  # type: ignore[attr-defined]
    np.testing.assert_array_equal(on_host(backend, first), held)


def test_the_cache_starts_with_finite_numbers(directory: Path, cuda: FakeCuda) -> None:
    """The fake's memory holds garbage; what is masked must not be NaN."""
    backend = load(directory)
    assert np.isfinite(read(backend, [5])[1]).all()
    backend.close()


def test_short_memory_names_the_need_and_frees_what_was_taken(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(total=1 << 20)
    fake_tensorrt.install(monkeypatch, cuda)
    with pytest.raises(EngineError, match=r"needs .* MB of GPU memory, and .* are free; .* smaller max_context"):
        load(directory, backend="tensorrt")
    gc.collect()
    assert (cuda.live, cuda.taken, cuda.depth, cuda.retained) == ({}, 0, 0, 0)
    fake_tensorrt.forget()


# --- choosing and refusing engines


def test_it_says_what_runs(backend: Backend) -> None:
    assert backend.name == "tensorrt"
    assert backend.description == "TensorRT 10.3.0, Fake GPU, vision fp16, text fp16, context 700"


def test_the_cache_is_as_large_as_asked_for_or_as_the_engine_allows(directory: Path, cuda: FakeCuda) -> None:
    backend = load(directory, max_context=99)
    assert backend.text.cache.capacity == 99
    backend.close()
    with pytest.raises(ConfigError, match=r"max_context is 701; allowed: up to the 700 .* --max-context 701`"):
        load(directory, max_context=701)


@pytest.fixture
def copy(directory: Path, tmp_path: Path) -> Path:
    shutil.copytree(directory, tmp_path / "model")
    return tmp_path / "model"


def test_engines_of_another_tensorrt_give_way_to_onnxruntime_with_a_warning(
    copy: Path, cuda: FakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    fake_tensorrt.write_engines(model_directory(), copy, version="10.7.0")
    backend = load(copy)
    assert backend.name == "onnxruntime"
    (record,) = [record for record in caplog.records if record.name == "litevlm_ros.runtime.load"]
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert "Running on ONNX Runtime, not on TensorRT: vision_encoder_fp16.engine does not fit" in message
    assert "it was built by TensorRT 10.7.0 and TensorRT 10.3.0 is installed" in message
    assert f"`ros2 run litevlm_ros build_engines --model {copy} --vision-precision fp16" in message
    with pytest.raises(EngineError, match=r"cannot run on TensorRT: .* built by TensorRT 10\.7\.0"):
        load(copy, backend="tensorrt")


def test_a_machine_without_engines_says_so_quietly(cuda: FakeCuda, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert load(model_directory()).name == "onnxruntime"
    (record,) = [record for record in caplog.records if record.name == "litevlm_ros.runtime.load"]
    assert record.levelno == logging.INFO
    assert "vision_encoder_*.engine missing in" in record.getMessage()
    assert f"`ros2 run litevlm_ros build_engines --model {model_directory()}`" in record.getMessage()


def test_precisions_are_chosen_by_accuracy_or_by_name(copy: Path, cuda: FakeCuda) -> None:
    fake_tensorrt.write_engines(model_directory(), copy, "int4")
    for settings, expected in (
        ({}, "vision fp16, text fp16"),
        ({"text_precision": "int4"}, "vision fp16, text int4"),
        ({"vision_precision": "int4", "text_precision": "int4"}, "vision int4, text int4"),
    ):
        backend = load(copy, **settings)  # type: ignore[arg-type]
        assert expected in backend.description
        backend.close()
    with pytest.raises(EngineError, match=r"text_decoder_fp8\.engine missing in .* --text-precision fp8`"):
        load(copy, backend="tensorrt", text_precision="fp8")


def test_engines_of_other_weights_are_refused(copy: Path, cuda: FakeCuda) -> None:
    fake_tensorrt.write_engines(model_directory(), copy, weights_sha256="0" * 64)
    with pytest.raises(EngineError, match=r"built from other weights than those in .*; build it again with"):
        load(copy)


def test_damaged_engines_name_the_reason_and_the_build(copy: Path, cuda: FakeCuda) -> None:
    file = copy / "text_decoder_fp16.engine"
    contents = bytearray(file.read_bytes())
    contents[:2000] = bytes(2000)
    file.write_bytes(contents)
    with pytest.raises(EngineError, match=r"TensorRT does not load it: magicTag.*; build it again with `ros2 run"):
        load(copy)
    assert cuda.depth == 0
    file.write_bytes(contents[:5000])
    with pytest.raises(EngineError, match="has 5000 bytes instead of"):
        load(copy, backend="tensorrt")


def test_engines_that_do_not_fit_the_configuration_are_refused(copy: Path, cuda: FakeCuda) -> None:
    file = copy / "text_decoder/config.json"
    file.write_text(file.read_text().replace('"vocab_size": 320', '"vocab_size": 321'))
    fake_tensorrt.write_engines(copy, copy)
    message = r"belongs to another model .*: logits is \[-1, 320\] instead of \['K', 321\]"
    with pytest.raises(EngineError, match=message):
        load(copy)


@pytest.mark.parametrize(
    ("name", "message"),
    [("pycuda", "pycuda not installed: `pip install pycuda`"), ("cuda.bindings", "`pip install cuda-bindings`")],
)
def test_missing_packages_are_named(
    directory: Path, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None if wanted == name else find(wanted))
    with pytest.raises(EngineError, match=message):
        load(directory, backend="tensorrt")


def test_engines_may_lie_elsewhere(directory: Path, cuda: FakeCuda, tmp_path: Path) -> None:
    model, engines = tmp_path / "model", tmp_path / "engines"
    shutil.copytree(directory, model, ignore=shutil.ignore_patterns("*.engine*"))
    engines.mkdir()
    build = f"build_engines --model {model} --output {engines}`"
    with pytest.raises(EngineError, match=f"missing in {engines}: .*{build}"):
        load(model, engine_dir=engines, backend="tensorrt")
    for file in directory.glob("*.engine*"):
        shutil.copy(file, engines)
    backend = load(model, engine_dir=engines)
    assert backend.name == "tensorrt"
    backend.close()


def test_without_a_gpu_it_says_so(directory: Path, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_files, "find_device", lambda: None)
    with pytest.raises(EngineError, match=r"there is no NVIDIA GPU here, .*`nvidia-smi`"):
        load(directory, backend="tensorrt")
    assert load(directory).name == "onnxruntime"
