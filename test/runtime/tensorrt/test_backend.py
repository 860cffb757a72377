"""Loading engines and answering with them, on a fake TensorRT and a fake GPU."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import importlib.util
import logging
import shutil
from pathlib import Path
from typing import Any

import fake_cudnn
import fake_tensorrt
import numpy as np
import pytest
from backends import PIXELS, PROMPT, Recorder, follow, load, on_cpu, on_host, read, same, tiles, words
from fake_cuda import FakeCuda
from outliers import write_model_with_outlier
from tiny_internvl import model_directory

from litevlm_ros.backend import Backend
from litevlm_ros.checksums import hash_file
from litevlm_ros.config import PipelineConfig, SamplingConfig, SpeculationConfig, TokenSelectionConfig
from litevlm_ros.engines.sidecar import EngineSidecar
from litevlm_ros.errors import CheckpointError, ConfigError, EngineError
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.runtime.onnx.token_selection import HostVisualTokens
from litevlm_ros.runtime.tensorrt import engine_files
from litevlm_ros.runtime.tensorrt import token_selection as tensorrt_selection
from litevlm_ros.text.drafts import NGramDrafts
from litevlm_ros.text.speculator import Speculator
from litevlm_ros.types import View

# --- answers


def views() -> list[View]:
    rows, columns = np.indices((60, 90))
    return [View(name, np.stack([(rows * s + columns * c) % 256 for c in (2, 3, 5)], -1).astype(np.uint8))
            for s, name in enumerate(("front", "back"), 1)]  # fmt: skip


@pytest.mark.parametrize("source", ["off", "ngram"])
def test_the_pipeline_answers_as_on_onnxruntime(directory: Path, cuda: FakeCuda, source: str) -> None:
    """Every call of the decoder, of questions that share a prefix, sampled ones, and drafts."""
    pipe = Pipeline.from_config(
        PipelineConfig(directory, backend="tensorrt", max_tiles=6, speculation=SpeculationConfig(source=source))
    )
    pipe.stop_ids = frozenset()
    recorder = Recorder(pipe.backend)
    if source == "ngram":  # every draft is worth verifying where time does not pass
        pipe.speculator = Speculator(pipe.backend.text, NGramDrafts(), 15, clock=lambda: 0.0)
    encoded = pipe.encode(views()[:1])
    texts = [pipe.answer(encoded, question, SamplingConfig(20)).text for question in ("What?", "Why?")]
    texts.append(pipe.generate(views(), "How many?", SamplingConfig(10, temperature=2.0, seed=3)).text)
    texts.append(pipe.answer(encoded, "What?", SamplingConfig(20)).text)
    assert recorder.check(on_cpu(directory)) >= 40
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3
    if source == "ngram":
        assert any(len(call.tokens) > 1 for call in recorder.calls if call.tokens is not None), "no drafts"
    pipe.close()


def test_answers_with_selected_tokens_are_those_of_onnxruntime(directory: Path, cuda: FakeCuda) -> None:
    selection = TokenSelectionConfig("diversity", 0.5)
    pipe = Pipeline.from_config(PipelineConfig(directory, backend="tensorrt", token_selection=selection))
    recorder = Recorder(pipe.backend)
    answer = pipe.generate(
        [View("front", np.roll(PIXELS[0], shift, 0)) for shift in (0, 9)], "What?", SamplingConfig(9)
    )
    assert recorder.check(on_cpu(directory)) >= 5
    assert answer.tokens.visual == 4
    assert answer.timings.select > 0
    pipe.close()


def test_questions_about_no_view_and_about_one_stitched_picture(directory: Path, cuda: FakeCuda) -> None:
    pipe = Pipeline.from_config(PipelineConfig(directory, backend="tensorrt", max_tiles=12, stitch_views=True))
    pipe.stop_ids = frozenset()
    recorder = Recorder(pipe.backend)
    first = pipe.generate([], "What is a car?", SamplingConfig(20))
    stitched = pipe.generate(views(), "What?", SamplingConfig(20))
    again = pipe.generate([], "What is a car?", SamplingConfig(20))
    assert recorder.check(on_cpu(directory)) >= 20
    assert (first.cameras, first.tokens.visual, stitched.cameras) == ((), 0, ("front", "back"))
    assert stitched.tokens.visual == 4 * (4 + 1)
    assert first.text == again.text != stitched.text
    pipe.close()


# --- token selection


@pytest.mark.parametrize("method", ["random", "diversity", "similarity"])
def test_tokens_are_selected_on_the_device_as_in_host_memory(backend: Backend, directory: Path, method: str) -> None:
    selection = TokenSelectionConfig(method, 0.5)
    device, host = backend.token_selector(selection), on_cpu(directory).token_selector(selection)
    for count in (1, 3):
        tokens = backend.vision.encode(tiles(count))
        kept = device.select(tokens)
        rows = on_host(backend, tokens)
        expected = host.select(HostVisualTokens(rows.astype(np.float32)))
        assert kept.places.tolist() == expected.places.tolist()
        assert kept.visual.count == 2 * count
        np.testing.assert_array_equal(on_host(backend, kept.visual), rows[kept.places])


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


def test_a_scorer_is_refused_with_the_methods_that_work(backend: Backend) -> None:
    with pytest.raises(ConfigError, match="'scorer'; allowed on TensorRT: off, random, diversity, similarity"):
        backend.token_selector(TokenSelectionConfig("scorer"))


# --- precisions


@pytest.mark.parametrize(("precision", "most"), [("int8", 0.05), ("fp8", 0.2), ("int4", 0.6), ("bf16", 0.05)])
def test_other_precisions_answer_close_to_fp16(backend: Backend, copy: Path, precision: str, most: float) -> None:
    """Their errors are relative to the scale of the logits."""
    fake_tensorrt.write_engines(copy, copy, precision)
    other = load(copy, backend="tensorrt", vision_precision=precision, text_precision=precision)
    assert f"vision {precision}, text {precision}" in other.description
    found, expected = (
        read(each, PROMPT, 3, each.vision.encode(PIXELS))[1].astype(np.float64) for each in (other, backend)
    )
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < most
    list(other.text.decode_greedy(9, 9, 3))
    other.close()


@pytest.mark.parametrize(("vision", "text"), [("bf16", "fp16"), ("fp16", "bf16")])
def test_parts_of_different_types_work_together(backend: Backend, copy: Path, vision: str, text: str) -> None:
    fake_tensorrt.write_engines(copy, copy, "bf16")
    other = load(copy, backend="tensorrt", vision_precision=vision, text_precision=text)
    found, expected = (read(each, PROMPT, 3, each.vision.encode(PIXELS))[1] for each in (other, backend))
    assert 1e-4 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.05
    other.close()


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


def test_bf16_answers_where_fp16_overflows(directory: Path, cuda: FakeCuda, tmp_path: Path) -> None:
    """test_text.py shows that fp16 refuses to."""
    model = write_model_with_outlier(directory, tmp_path / "model", 8e4, layer=0)
    fake_tensorrt.write_engines(model, model, "bf16")
    backend = load(model, backend="tensorrt")
    assert "text bf16" in backend.description
    logits = read(backend, words(20), 5)[1]
    assert np.isfinite(logits).all()
    assert np.ptp(logits, 1).min() > 1
    assert len(list(backend.text.decode_greedy(9, 20, 5))) == 5
    backend.close()


# --- fallbacks


def test_a_gpu_that_cannot_capture_runs_without_graphs(
    directory: Path, cuda: FakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    cuda.refuse_capture = True
    backend, reference = load(directory, backend="tensorrt"), on_cpu(directory)
    assert "runs without a CUDA graph, which is slower" in caplog.text
    same(read(backend, PROMPT[6:]), read(reference, PROMPT[6:]))
    assert follow(reference, 5, 3, list(backend.text.decode_greedy(5, 3, 9))) >= 5
    assert cuda.launches == 0
    backend.close()


def test_attention_without_cudnn_is_tensorrts(
    copy: Path, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_cudnn.remove(monkeypatch)
    backend, reference = load(copy, backend="tensorrt", max_context=60), on_cpu(copy)
    assert "cuDNN does not load" in caplog.text
    same(read(backend, PROMPT, 3, backend.vision.encode(PIXELS)),
         read(reference, PROMPT, 3, reference.vision.encode(PIXELS)))  # fmt: skip
    assert follow(reference, 5, 9, list(backend.text.decode_greedy(5, 9, 9))) >= 5
    backend.close()


# --- memory


@pytest.mark.parametrize(
    ("part", "flag"), [("text_decoder", "--text-precision"), ("vision_encoder", "--vision-precision")]
)
def test_a_plan_that_tensorrt_computes_wrong_is_refused_when_it_is_loaded(
    copy: Path, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, part: str, flag: str
) -> None:
    def nonsense(context: Any, addresses: dict[str, int]) -> None:
        """Leaves the outputs of this part's MLP as they are."""
        if not addresses.keys() & ({"down"} if part == "text_decoder" else {"fc2"}):
            run(context, addresses)

    fake_cudnn.remove(monkeypatch)  # which would compute the blocks, so that no plan is loaded
    run = fake_tensorrt._Context._run
    monkeypatch.setattr(fake_tensorrt._Context, "_run", nonsense)
    message = rf"does not compute the plan mlp-\d+ of {part}_fp16.engine right on Fake GPU: .*nonsense.*{flag} bf16"
    with pytest.raises(EngineError, match=message):
        load(copy, backend="tensorrt")
    gc.collect()
    assert (cuda.live, cuda.depth, cuda.retained) == ({}, 0, 0)


@pytest.mark.parametrize("has_cudnn", [True, False])
def test_everything_is_freed_and_counted(
    copy: Path, cuda: FakeCuda, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, has_cudnn: bool
) -> None:
    caplog.set_level(logging.INFO)
    if not has_cudnn:
        fake_cudnn.remove(monkeypatch)
    backend = load(copy, backend="tensorrt")
    memory = backend.memory()
    assert memory["KV cache"] == 2 * 2 * 704 * 2 * 8 * 2, "layers, kinds, rows to a multiple of 64, heads, width, bytes"
    libraries = memory.get("plans and libraries", 0)
    assert libraries == cuda.taken
    assert bool(libraries) != has_cudnn, "only plans take memory of their own"
    counted = sum(memory.values()) - libraries
    pinned_or_small = sum(block.size for block in cuda.live.values()) - counted
    assert 0 <= pinned_or_small < 1 << 18, "what is not counted is memory of the host"
    if has_cudnn:  # else a plan of attention is kept
        assert not list(copy.glob("*.runtime_cache")), "only TensorRT-RTX compiles when an engine runs"
    assert "Fake GPU: 1.07 GB of 1.07 GB free before loading" in caplog.text
    assert "KV cache 0.1 MB" in caplog.text
    assert "free now" in caplog.text
    visual = backend.vision.encode(tiles(7))
    read(backend, words(100))
    assert visual.count == 28
    backend.token_selector(TokenSelectionConfig("diversity", 0.5)).select(visual)
    next(backend.text.decode_greedy(5, 100, 9))
    backend.close()
    assert all(not stream.waiting for stream in cuda.streams.values()), "nothing runs on memory that is freed"
    assert not cuda.modules
    gc.collect()
    assert (cuda.live, cuda.taken, cuda.graphs, cuda.depth, cuda.retained) == ({}, 0, {}, 0, 0)
    again = load(copy, backend="tensorrt")
    again.close()


def test_weights_are_in_memory_once(directory: Path, cuda: FakeCuda) -> None:
    """Whatever shapes have run: all plans read the same addresses."""
    backend = load(directory, backend="tensorrt")
    before = backend.memory()
    stored = sum((directory / part / "model.safetensors").stat().st_size for part in ("vision_encoder", "text_decoder"))
    weights = before["vision weights"] + before["text weights"]
    assert 0.45 * stored < weights < 0.6 * stored, "fp32 in the file, 16 bits in memory"
    matrix = fp16_matrix(directory, "layers.1.mlp.down_proj.weight")
    for count in (1, 2, 3):
        backend.vision.encode(tiles(count))
    for count in (3, 20, 64, 96):
        read(backend, words(count))
    after = backend.memory()
    assert {name: after[name] for name in before if "weights" in name} == {
        name: before[name] for name in before if "weights" in name
    }
    found = [place for place, block in cuda.live.items() if matrix in ctypes.string_at(place, block.size)]
    assert len(found) == 1
    backend.close()


def fp16_matrix(directory: Path, name: str) -> bytes:
    from safetensors.numpy import load_file

    tensors = load_file(directory / "text_decoder/model.safetensors")
    return next(each for key, each in tensors.items() if key.endswith(name)).astype(np.float16).tobytes()


def test_the_cache_starts_with_finite_numbers(directory: Path, cuda: FakeCuda) -> None:
    """The fake's memory holds garbage; what is masked must not be NaN."""
    backend = load(directory, backend="tensorrt")
    assert np.isfinite(read(backend, [5])[1]).all()
    backend.close()


@pytest.mark.parametrize("total", [1 << 17, 1 << 18, 1 << 19])
def test_short_memory_names_the_need_and_frees_what_was_taken(
    directory: Path, monkeypatch: pytest.MonkeyPatch, total: int
) -> None:
    """Wherever in loading it runs short."""
    cuda = FakeCuda(total=total)
    fake_tensorrt.install(monkeypatch, cuda)
    with pytest.raises(EngineError, match=r"needs .* MB of GPU memory, and .* are free; .* smaller max_context"):
        load(directory, backend="tensorrt")
    gc.collect()
    assert (cuda.live, cuda.taken, cuda.depth, cuda.retained) == ({}, 0, 0, 0)
    fake_tensorrt.forget()


def test_short_memory_for_a_long_prompt_leaves_short_ones(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    fake_tensorrt.install(monkeypatch, cuda)
    backend = load(directory, backend="tensorrt")
    logits = read(backend, words(5))[1]
    with backend.text._device:  # type: ignore[attr-defined]
        free = cuda.memory()[0]
        cuda.taken += free - 20_000
    with pytest.raises(EngineError, match=r"needs .* of GPU memory, and .* are free"):
        read(backend, words(90))
    assert backend.text.cache.length == 5
    backend.text.cache.truncate(0)
    np.testing.assert_array_equal(read(backend, words(5))[1], logits)
    cuda.taken -= free - 20_000
    backend.text.cache.truncate(0)
    same(read(backend, words(90)), read(on_cpu(directory), words(90)))
    backend.close()
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


def test_an_engine_that_others_can_write_is_not_loaded(copy: Path, cuda: FakeCuda) -> None:
    (copy / "text_decoder_fp16.engine.json").chmod(0o666)
    with pytest.raises(EngineError, match=r"text_decoder_fp16\.engine\.json can be written by other users"):
        load(copy, backend="tensorrt")
    assert load(copy).name == "onnxruntime"


def test_packed_engines_of_other_weights_are_refused_and_others_take_any(copy: Path, cuda: FakeCuda) -> None:
    """Plans of fp16 fit all weights of their shapes, which come from the checkpoint."""
    fake_tensorrt.write_engines(copy, copy, "int8")
    other = write_model_with_outlier(copy, copy.with_name("other"), -1.0)
    for file in copy.glob("*.engine*"):
        shutil.copy(file, other)
    backend, before = load(other, backend="tensorrt"), load(copy, backend="tensorrt")
    assert np.abs(read(backend, words(9))[1] - read(before, words(9))[1]).max() > 0.3
    backend.close()
    before.close()
    with pytest.raises(
        EngineError, match=r"int8\.engine was built from other weights than those in .*; build it again"
    ):
        load(other, backend="tensorrt", vision_precision="int8", text_precision="int8")


def test_damaged_engines_name_the_reason_and_the_build(
    copy: Path, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cudnn.remove(monkeypatch)  # which would compute the text decoder's blocks, so that no plan of it is loaded
    file = copy / "text_decoder_fp16.engine"
    contents = bytearray(file.read_bytes())
    file.write_bytes(contents.replace(b"fake plan", b"no plan !"))
    taken = {"engine_sha256": hash_file(file)}
    dataclasses.replace(EngineSidecar.read(file), **taken).write(copy)
    with pytest.raises(EngineError, match=r"TensorRT does not load its plan qkv-1: magicTag.*; build it again with"):
        load(copy)
    file.write_bytes(bytes(len(contents)))
    with pytest.raises(EngineError, match=r"fp16\.engine is not the engine that was built: its SHA-256 .*`ros2 run"):
        load(copy)
    assert cuda.depth == 0
    file.write_bytes(contents[:5000])
    with pytest.raises(EngineError, match="it has 5000 bytes instead of"):
        load(copy, backend="tensorrt")


@pytest.mark.parametrize("part", ["vision_encoder", "text_decoder"])
def test_engines_of_another_model_are_refused(copy: Path, cuda: FakeCuda, part: str) -> None:
    """One with other sizes, of which the engines were not built."""
    file = copy / part / "config.json"
    number = {"vision_encoder": '"intermediate_size": ', "text_decoder": '"intermediate_size": '}[part]
    before, after = (f"{number}{size}" for size in {"vision_encoder": (64, 96), "text_decoder": (80, 96)}[part])
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(EngineError, match=rf"{part}_fp16\.engine was built for another model than the config\.json"):
        load(copy, backend="tensorrt")
    assert cuda.retained == 0


def test_a_checkpoint_that_lacks_weights_is_refused(copy: Path, cuda: FakeCuda) -> None:
    (copy / "text_decoder/model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load(copy, backend="tensorrt")
    gc.collect()
    assert (cuda.live, cuda.taken, cuda.depth, cuda.retained) == ({}, 0, 0, 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [("pycuda", "pycuda not installed: `.* -m pip install pycuda"), ("cuda.bindings", "-m pip install cuda-bindings")],
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


def test_engines_behind_a_link_in_a_shared_directory_are_not_run(copy: Path, cuda: FakeCuda, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (shared / "link").symlink_to(copy)
    with pytest.raises(EngineError, match=rf"{shared} can be written by other users: an engine is code"):
        load(shared / "link", backend="tensorrt")
    shared.chmod(0o755)
    load(shared / "link", backend="tensorrt").close()
