from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tiny_internvl import model_directory

from litevlm_ros.backend import Backend
from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.machine import physical_cores
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import CHECKSUMS
from litevlm_ros.runtime.load import load_backend


@pytest.fixture(scope="module")
def directory() -> Path:
    return model_directory()


def load(directory: Path, **settings: Any) -> Backend:
    return load_backend(PipelineConfig(directory, **settings), ModelConfig.from_directory(directory))


@pytest.fixture(scope="module")
def backend(directory: Path) -> Backend:
    return load(directory)


@pytest.fixture
def copy(directory: Path, tmp_path: Path) -> Path:
    shutil.copytree(directory, tmp_path / "model")
    return tmp_path / "model"


PROMPT = np.array([5, 9, 320, 321, 322, 323, 17, 20, 2])
PIXELS = (np.arange(56 * 56 * 3).reshape(1, 56, 56, 3) % 251).astype(np.uint8)


def read(backend: Backend, ids: Any, wanted: int = 1, visual: Any = None) -> tuple[list[int], Any]:
    """Next tokens and logits of ids at the positions after the cache."""
    start = backend.text.cache.length
    output = backend.text.forward(np.asarray(ids), start + np.arange(len(ids)), visual, wanted)
    return output.next_tokens.tolist(), output.logits().copy()


def test_tokens_one_by_one_many_at_once_and_in_parts_agree(backend: Backend) -> None:
    visual = backend.vision.encode(PIXELS)
    more = [31, 64, 8, 100, 7]
    backend.text.cache.truncate(0)
    _, at_once = read(backend, [*PROMPT, *more], 6, visual)
    backend.text.cache.truncate(0)
    _, first = read(backend, PROMPT, 1, visual)
    by_one = [read(backend, [token])[1] for token in more]
    np.testing.assert_allclose(at_once, np.concatenate([first, *by_one]), atol=1e-4)
    backend.text.cache.truncate(len(PROMPT) + 1)
    _, in_parts = read(backend, more[1:], 4)
    np.testing.assert_allclose(in_parts, at_once[2:], atol=1e-4)
    assert backend.text.cache.length == len(PROMPT) + 5


def test_the_cache_gives_what_onnxruntime_gives_without_binding(backend: Backend, directory: Path) -> None:
    """Every row, over several buckets, against a plain run on the whole sequence."""
    model = ModelConfig.from_directory(directory)
    session = onnxruntime.InferenceSession(str(directory / "text_decoder.onnx"), providers=["CPUExecutionProvider"])
    visual = backend.vision.encode(PIXELS)
    backend.text.cache.truncate(0)
    read(backend, PROMPT, 1, visual)
    ids = [*PROMPT.tolist(), *((np.arange(140) * 37) % 300).tolist()]
    for token in ids[len(PROMPT) :]:
        after, logits = read(backend, [token])
    none = np.zeros((0, model.text.num_kv_heads, model.text.head_dim), np.float32)
    names = [value.name for value in session.get_outputs()]
    feed = {
        "input_ids": np.array(ids),
        "position_ids": np.arange(len(ids)),
        "past_length": np.array([0]),
        "logit_positions": np.array([len(ids) - 1]),
        "visual_tokens": visual.rows,  # type: ignore[attr-defined]
        **{name.name: none for name in session.get_inputs() if name.name.startswith("past_") and "." in name.name},
    }
    expected = dict(zip(names, session.run(names, feed), strict=True))
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4)
    assert after == expected["next_tokens"].tolist()
    past = backend.text.cache.past(len(ids))  # type: ignore[attr-defined]
    for layer in range(model.text.num_layers):
        for index, kind in enumerate(("key", "value")):
            np.testing.assert_allclose(past[layer, index], expected[f"new_{kind}.{layer}"], atol=1e-4)


def test_next_tokens_are_the_likeliest(backend: Backend) -> None:
    backend.text.cache.truncate(0)
    tokens, logits = read(backend, [5, 9, 17, 44], 3)
    assert logits.shape == (3, 320)
    assert logits.dtype == np.float32
    assert tokens == logits.argmax(-1).tolist()


def test_rows_behind_the_length_never_matter(backend: Backend) -> None:
    backend.text.cache.truncate(0)
    read(backend, [5, 9, 17])
    expected = read(backend, [44])[1]
    read(backend, np.arange(50))
    backend.text.cache.truncate(3)
    np.testing.assert_allclose(read(backend, [44])[1], expected, atol=1e-5)


def test_parts_of_tokens_are_joined(backend: Backend) -> None:
    tokens = backend.vision.encode(PIXELS)
    joined = backend.vision.join([tokens.part(2, 4), tokens.part(0, 1)])
    assert joined.count == 3
    rows: Any = tokens
    np.testing.assert_array_equal(joined.rows, rows.rows[[2, 3, 0]])  # type: ignore[attr-defined]


def test_many_tiles_are_encoded_like_single_ones(backend: Backend) -> None:
    tiles = np.concatenate([np.roll(PIXELS, shift, 1) for shift in range(9)])
    together = backend.vision.encode(tiles)
    assert together.count == 36
    apart = np.concatenate([backend.vision.encode(tile[None]).rows for tile in tiles])  # type: ignore[attr-defined]
    np.testing.assert_allclose(together.rows, apart, atol=1e-5)  # type: ignore[attr-defined]
    assert np.abs(apart[:4] - apart[4:8]).max() > 0.01


def test_failed_runs_leave_the_cache_as_it_was(directory: Path) -> None:
    backend = load(directory, max_context=20)
    visual = backend.vision.encode(PIXELS)
    read(backend, PROMPT, 1, visual)
    before = read(backend, [31])[1]
    for ids, wanted, rows, message in (
        (np.arange(11), 1, None, "11 more tokens do not fit behind the 10 in the cache of 20"),
        ([320], 1, None, "a token id is 320, but there are 320 words and 0 visual tokens"),
        ([5, 324], 1, visual, "a token id is 324, but there are 320 words and 4 visual tokens"),
        ([5], 2, None, "2 logits of 1 tokens"),
        ([5, -400], 1, None, "the text decoder failed on 2 tokens"),
    ):
        with pytest.raises(EngineError, match=message):
            read(backend, ids, wanted, rows)
        assert backend.text.cache.length == 10
    backend.text.cache.truncate(9)
    np.testing.assert_array_equal(read(backend, [31])[1], before)
    with pytest.raises(EngineError, match=r"the vision encoder failed on \[1, 28, 28, 3\] pixels"):
        backend.vision.encode(PIXELS[:, :28, :28])


def test_the_cache_is_as_large_as_asked_for_or_as_the_model_allows(directory: Path) -> None:
    assert load(directory).text.cache.capacity == 1024
    assert load(directory, max_context=99).text.cache.capacity == 99
    with pytest.raises(ConfigError, match="max_context is 1025; allowed: up to this model's 1024"):
        load(directory, max_context=1025)


def test_it_says_what_runs(directory: Path) -> None:
    backend = load(directory, backend="onnxruntime", threads=2)
    assert backend.name == "onnxruntime"
    assert backend.description == f"ONNX Runtime {onnxruntime.__version__}, CPU, 2 threads, fp32"
    assert f"{physical_cores()} threads" in load(directory).description


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_missing_graphs_name_the_export(copy: Path, backend: str) -> None:
    (copy / "text_decoder.onnx").unlink()
    with pytest.raises(EngineError) as caught:
        load(copy, backend=backend)
    assert f"text_decoder.onnx is missing in {copy}" in str(caught.value)
    assert f"`ros2 run litevlm_ros export_onnx --model {copy}`" in str(caught.value)


def test_a_missing_library_names_its_installation(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"on ONNX Runtime: it is not installed: `.* -m pip install onnxruntime"):
        load(directory)


def test_damaged_graphs_name_the_export(copy: Path) -> None:
    (copy / CHECKSUMS).unlink()
    (copy / "vision_encoder.onnx").write_bytes(b"half a download")
    with pytest.raises(EngineError, match=r"vision_encoder\.onnx cannot be loaded: .*; export the graphs again with"):
        load(copy)


def test_graphs_of_another_model_are_refused(copy: Path) -> None:
    (copy / CHECKSUMS).unlink()
    shutil.copy(copy / "vision_encoder.onnx", copy / "text_decoder.onnx")
    with pytest.raises(EngineError, match=r"text_decoder\.onnx has other inputs or outputs than this version expects"):
        load(copy)


def test_graphs_that_do_not_fit_the_configuration_are_refused(copy: Path) -> None:
    file = copy / "text_decoder/config.json"
    file.write_text(file.read_text().replace('"vocab_size": 320', '"vocab_size": 321'))
    with pytest.raises(
        EngineError, match=r"belongs to another model .*: logits is \['K', 320\] instead of \['K', 321\]"
    ):
        load(copy)
