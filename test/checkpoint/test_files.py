from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="writes bf16 with PyTorch: pip install 'litevlm_ros[convert]'")
from safetensors.torch import save_file  # noqa: E402

from litevlm_ros.checkpoint.files import SafetensorsDirectory, read_header, read_numbers  # noqa: E402
from litevlm_ros.errors import CheckpointError  # noqa: E402

TENSORS = {
    "wide": torch.arange(12, dtype=torch.float16).reshape(3, 4),
    "narrow": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "scalar": torch.tensor(3.0),
}


def test_offsets_point_at_the_bytes(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors", {"format": "pt"})
    files = SafetensorsDirectory(tmp_path)
    assert files.tensors.keys() == TENSORS.keys()
    content = (tmp_path / "model.safetensors").read_bytes()
    for key, tensor in TENSORS.items():
        stored = files.tensors[key]
        assert stored.shape == tuple(tensor.shape)
        raw = content[stored.offset : stored.offset + stored.length]
        assert raw == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        numbers = read_numbers(stored)
        assert numbers.dtype == np.float32
        np.testing.assert_array_equal(numbers, tensor.float().numpy())


def write_shards(directory: Path) -> Path:
    save_file({"wide": TENSORS["wide"]}, directory / "a.safetensors")
    save_file({"scalar": TENSORS["scalar"]}, directory / "b.safetensors")
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"wide": "a.safetensors", "scalar": "b.safetensors"}}))
    return index


def test_shards(tmp_path: Path) -> None:
    write_shards(tmp_path)
    files = SafetensorsDirectory(tmp_path)
    assert files.tensors["scalar"].file == tmp_path / "b.safetensors"
    assert files.tensors["wide"].shape == (3, 4)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"b\.safetensors, which is missing"):
        SafetensorsDirectory(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"weight_map": [1]}'])
def test_a_damaged_index_is_named(content: str, tmp_path: Path) -> None:
    write_shards(tmp_path).write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json is damaged"):
        SafetensorsDirectory(tmp_path)


def test_an_index_may_not_leave_its_directory(tmp_path: Path) -> None:
    write_shards(tmp_path).write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside"):
        SafetensorsDirectory(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither"):
        SafetensorsDirectory(tmp_path)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="convert them to safetensors"):
        SafetensorsDirectory(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 8, 60, -1])
def test_a_cut_file_is_named(keep: int, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(TENSORS, file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        SafetensorsDirectory(tmp_path)


def test_an_html_page_saved_as_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("<!DOCTYPE html><html>" * 100)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        SafetensorsDirectory(tmp_path)


def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    save_file({"packed": torch.zeros(4, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"packed is I8; supported: F32, F16, BF16"):
        SafetensorsDirectory(tmp_path)


def test_a_header_is_read_with_its_metadata_whatever_the_types(tmp_path: Path) -> None:
    file = tmp_path / "anything"
    save_file({"packed": torch.zeros(4, 2, dtype=torch.int8)}, file, {"part": "text_decoder"})
    tensors, metadata = read_header(file)
    assert metadata == {"part": "text_decoder"}
    assert (tensors["packed"].dtype, tensors["packed"].shape, tensors["packed"].length) == ("I8", (4, 2), 8)
    save_file({"packed": torch.zeros(1)}, file)
    assert read_header(file)[1] == {}


def write_header(file: Path, header: str) -> None:
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(64))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('{"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}', r"key of shape \[2\] has 4 bytes"),
        ('{"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}', "describes 'key' wrongly"),
        ('{"dtype": "F32", "shape": [20], "data_offsets": [0, 80]}', "key ends beyond the file"),
        ('{"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}', "describes 'key' wrongly"),
        ('{"dtype": "F32", "shape": [1]}', "describes 'key' wrongly"),
        ("7", "describes 'key' wrongly"),
    ],
)
def test_what_a_header_says_must_be_possible(entry: str, words: str, tmp_path: Path) -> None:
    write_header(tmp_path / "model.safetensors", f'{{"key": {entry}}}')
    with pytest.raises(ValueError, match=words):
        read_header(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=words):
        SafetensorsDirectory(tmp_path)


@pytest.mark.parametrize("header", ["[]", "{", "[" * 100_000, '{"__metadata__": 1}'])
def test_a_header_is_an_object(header: str, tmp_path: Path) -> None:
    write_header(tmp_path / "model.safetensors", header)
    with pytest.raises(ValueError, match=r"header|Expecting|metadata"):
        read_header(tmp_path / "model.safetensors")
