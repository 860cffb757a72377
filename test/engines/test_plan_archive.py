from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from model_fuzzer import damaged_bytes

from litevlm_ros.engines.plan_archive import PlanArchive, PlanKey, write_archive
from litevlm_ros.errors import EngineError

MLP, SMALL = PlanKey("mlp", 1025), PlanKey("attention", 64, 2048)
PACKED = {
    "layers.0.qkv.weight.int8": np.arange(-3, 3, dtype=np.int8).reshape(2, 3),
    "layers.0.qkv.weight.scale": np.array([0.5, 0.25], np.float16),
    "norm.weight": np.array([1, 2, 3], np.float32),
    "one": np.float16(7).reshape(()),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "text_decoder_int8.engine"
    plans = {MLP: (b"plan", b"kernels"), SMALL: (b"small plan", b"")}
    write_archive(file, "text_decoder", "int8", {"mlp": b"graph"}, plans, PACKED)
    return file


def test_everything_is_read_back(file: Path) -> None:
    archive = PlanArchive.open(file)
    assert (archive.part, archive.precision, archive.file) == ("text_decoder", "int8", file)
    assert archive.graphs == {"mlp": b"graph"}
    assert set(archive.keys) == {MLP, SMALL}
    assert (archive.plan(MLP), archive.kernels(MLP)) == (b"plan", b"kernels")
    assert (archive.plan(SMALL), archive.kernels(SMALL)) == (b"small plan", b"")
    with pytest.raises(KeyError):
        archive.plan(PlanKey("mlp", 2))


def test_packed_weights_lie_where_the_header_says_aligned_to_their_size(file: Path) -> None:
    archive = PlanArchive.open(file)
    assert archive.packed.keys() == PACKED.keys()
    for name, array in PACKED.items():
        place = archive.packed[name]
        assert (place.shape, place.length) == (array.shape, array.nbytes)
        assert place.offset % array.itemsize == 0
        found = np.fromfile(file, array.dtype, array.size, offset=place.offset).reshape(array.shape)
        assert np.array_equal(found, array)
    assert archive.packed["norm.weight"].dtype == "F32"


def test_it_is_a_safetensors_file(file: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(file, framework="np") as opened:
        assert opened.metadata()["part"] == "text_decoder"
        assert bytes(opened.get_tensor("plan.mlp-1025")) == b"plan"
        assert np.array_equal(opened.get_tensor("packed.norm.weight"), PACKED["norm.weight"])


def test_an_open_archive_survives_its_replacement(file: Path) -> None:
    archive = PlanArchive.open(file)
    write_archive(file, "text_decoder", "int8", {}, {MLP: (b"other", b"")}, {})
    assert archive.plan(MLP) == b"plan"
    assert PlanArchive.open(file).plan(MLP) == b"other"


def test_keys_are_written_as_words_and_read_back() -> None:
    assert [str(key) for key in (MLP, SMALL)] == ["mlp-1025", "attention-64-2048"]
    assert [PlanKey.parse(str(key)) for key in (MLP, SMALL)] == [MLP, SMALL]
    assert sorted([MLP, SMALL]) == [SMALL, MLP]
    for text in ("", "mlp", "mlp-x", "-3", "mlp-1-2-3"):
        with pytest.raises(ValueError, match=r"names no plan|invalid literal"):
            PlanKey.parse(text)


def test_other_files_are_refused_with_the_command_that_builds_the_engine(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    old = tmp_path / "vision_encoder_fp16.engine"
    header = json.dumps({"__metadata__": {"format": "another"}}).encode()
    for contents in (b"", b"ptrt plan of an older version", whole[:100], whole[:-1],
                     len(header).to_bytes(8, "little") + header):  # fmt: skip
        old.write_bytes(contents)
        with pytest.raises(
            EngineError, match=r"vision_encoder_fp16\.engine cannot be used .*; build it again"
        ) as raised:
            PlanArchive.open(old)
        assert f"--model {tmp_path} --precision fp16 --skip-text --force" in str(raised.value)
    with pytest.raises(EngineError, match="cannot be used"):
        PlanArchive.open(tmp_path / "missing.engine")


def test_damaged_headers_are_refused_or_read(file: Path) -> None:
    data = file.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    for damage, changed in damaged_bytes(data[:header], 150, random.Random(4)):
        file.write_bytes(changed + data[header:])
        try:
            archive = PlanArchive.open(file)
        except EngineError:
            continue
        assert all(len(archive.plan(key)) + len(archive.kernels(key)) < len(data) for key in archive.keys), damage
