"""Weights on a fake device are those that torch loads, or the quantized ones; what does not fit is reported."""

from __future__ import annotations

import ctypes
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda

torch = pytest.importorskip("torch", reason="torch loads the weights too: pip install 'litevlm_ros[convert]'")
pytest.importorskip("transformers", reason="the checkpoints are of transformers' InternVL")

from published_checkpoints import reference_model, write_native, write_original  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from litevlm_ros.checkpoint.files import StoredTensor  # noqa: E402
from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder  # noqa: E402
from litevlm_ros.convert.checkpoint_split import split_checkpoint  # noqa: E402
from litevlm_ros.convert.packed_weights import pack  # noqa: E402
from litevlm_ros.convert.quantized_weights import is_quantizable, quantize_weight  # noqa: E402
from litevlm_ros.engines.block_parameters import text_runs, vision_runs  # noqa: E402
from litevlm_ros.engines.plan_archive import PlanArchive, write_archive  # noqa: E402
from litevlm_ros.errors import CheckpointError, EngineError  # noqa: E402
from litevlm_ros.model_config import ModelConfig  # noqa: E402
from litevlm_ros.model_directory import TEXT, VISION  # noqa: E402
from litevlm_ros.precision import WORD_TABLES, computed_in  # noqa: E402
from litevlm_ros.runtime.tensorrt import weight_upload  # noqa: E402
from litevlm_ros.runtime.tensorrt.device import CudaDevice  # noqa: E402
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory  # noqa: E402
from litevlm_ros.runtime.tensorrt.packed_weights import scales_of  # noqa: E402
from litevlm_ros.runtime.tensorrt.weight_upload import Transfer, pieces  # noqa: E402
from litevlm_ros.runtime.tensorrt.weights import load_text_weights, load_vision_weights  # noqa: E402

TORCH = {"float": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PARTS = {VISION: (load_vision_weights, load_vision_encoder), TEXT: (load_text_weights, load_text_decoder)}


class Gpu:
    """A device that is current while a test runs."""

    def __init__(self, cuda: FakeCuda, device: CudaDevice) -> None:
        self.cuda, self.device = cuda, device
        self.memory = DeviceMemory(device)

    def read(self, address: int, shape: Sequence[int | str], kind: str) -> Any:
        """Returns the tensor at an address, of ONNX's type `kind`."""
        sizes = tuple(map(int, shape))
        size = prod(sizes) * (4 if kind == "float" else 2)
        self.cuda.check_range(address, size)
        return torch.frombuffer(bytearray(ctypes.string_at(address, size)), dtype=TORCH[kind]).reshape(sizes)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """Small buffers, so that most tensors come in pieces."""
    cuda = FakeCuda()
    monkeypatch.setattr(weight_upload, "PIECE_BYTES", 6000)
    driver, nvrtc = cuda.bindings()
    bindings = SimpleNamespace(driver=driver, nvrtc=nvrtc)
    pycuda = SimpleNamespace(driver=cuda.pycuda())
    modules = {"pycuda": pycuda, "pycuda.driver": pycuda.driver, "cuda": SimpleNamespace(bindings=bindings),
               "cuda.bindings": bindings, "cuda.bindings.driver": driver, "cuda.bindings.nvrtc": nvrtc}  # fmt: skip
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    device = CudaDevice()
    with device:
        yield Gpu(cuda, device)
    assert not cuda.streams or all(not stream.waiting for stream in cuda.streams.values())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model directories in both layouts: fp32 and bf16, with and without a tied head, one with an odd vocabulary."""
    root = tmp_path_factory.mktemp("models")
    tied = reference_model(tied=True, qkv_bias=False)
    checkpoints = {
        "original": write_original(reference_model(), root / "original", dtype=torch.bfloat16, shards=3),
        "native": write_native(reference_model(), root / "native"),
        "tied": write_native(tied, root / "tied"),
    }
    for name, checkpoint in checkpoints.items():
        split_checkpoint(checkpoint, root / "models" / name)
    return {name: root / "models" / name for name in checkpoints}


def archive(
    part: str, precision: str, file: Path = Path("x.engine"), packed: dict[str, StoredTensor] | None = None
) -> Any:
    return SimpleNamespace(part=part, precision=precision, file=file, packed=packed or {})


def runs_of(part: str, model: Path, precision: str) -> Any:
    config = ModelConfig.from_directory(model)
    computed = computed_in(precision)
    return vision_runs(config, computed) if part == VISION else text_runs(config.text, computed)


def load(gpu: Gpu, part: str, model: Path, packed: Any) -> Any:
    return PARTS[part][0](model, ModelConfig.from_directory(model), packed, gpu.device, gpu.memory)


def found_and_expected(
    gpu: Gpu, part: str, model: Path, precision: str, weights: Any, exact: Callable[[str, Any], Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yields each weight of each run, and what `exact` makes of the parameter that torch loads, padded."""
    parameters = dict(PARTS[part][1](model).named_parameters())
    runs = runs_of(part, model, precision)
    assert len(weights.runs) == len(runs)
    for wanted, run in zip(runs, weights.runs, strict=True):
        run.unpack()
        gpu.device.wait()
        read_as_stored = {
            each.tensor.name for each in wanted if each.name in WORD_TABLES and run.stored["head"].packing
        }
        assert run.addresses.keys() == {each.tensor.name for each in wanted} | {*map(scales_of, read_as_stored)}
        for each in wanted:
            if each.tensor.name in read_as_stored:
                continue
            expected = torch.zeros(tuple(map(int, each.tensor.shape)), dtype=TORCH[each.tensor.type])
            values = exact(each.name, parameters[each.name].detach())
            expected[tuple(map(slice, values.shape))] = values.to(expected.dtype)
            yield each.name, gpu.read(run.addresses[each.tensor.name], each.tensor.shape, each.tensor.type), expected


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", ["original", "native", "tied"])
@pytest.mark.parametrize("part", PARTS)
def test_blocks_get_the_parameters_that_torch_loads(
    part: str, name: str, precision: str, gpu: Gpu, models: dict[str, Path]
) -> None:
    weights = load(gpu, part, models[name], archive(part, precision))
    seen = set()
    for parameter, found, expected in found_and_expected(
        gpu, part, models[name], precision, weights, lambda _, values: values
    ):
        assert torch.equal(found, expected), parameter
        seen.add(parameter)
    module = PARTS[part][1](models[name])
    table = {"embed_tokens.weight"} if part == TEXT else set()
    assert seen | table == set(dict(module.named_parameters()))
    if part == TEXT:
        kind = "float16" if precision == "fp16" else "bfloat16"
        found = gpu.read(weights.embedding.values, (104, 48), kind)
        assert torch.equal(found[:97], module.embed_tokens.weight.detach().to(TORCH[kind]))
        assert not found[97:].any()
        assert (weights.embedding == weights.head) == (name == "tied")
    assert len(gpu.cuda.live) == 1, "staging buffers are freed"
    assert list(gpu.memory.by_purpose()) == [f"{'vision' if part == VISION else 'text'} weights"]
    weights.close()


def packed_archive(part: str, precision: str, model: Path, file: Path) -> Any:
    write_archive(file, part, precision, {}, {}, pack(part, model, precision, None))
    return PlanArchive.open(file)


@pytest.mark.parametrize("precision", ["fp8", "int8", "int4"])
@pytest.mark.parametrize("name", ["original", "tied"])
def test_tables_of_words_are_read_as_int8(
    name: str, precision: str, gpu: Gpu, models: dict[str, Path], tmp_path: Path
) -> None:
    packed = packed_archive(TEXT, precision, models[name], tmp_path / "weights.engine")
    weights = load(gpu, TEXT, models[name], packed)
    parameters = dict(load_text_decoder(models[name]).named_parameters())
    for table, key in ((weights.embedding, "embed_tokens.weight"), (weights.head, "lm_head.weight")):
        expected = quantize_weight(parameters.get(key, parameters["embed_tokens.weight"]).detach(), "int8")
        assert table.packing == "int8"
        with gpu.device:
            values = gpu.memory.read(table.values, (104, 48), np.int8)
            scales = gpu.memory.read(table.scales, (104,), np.float16)
        np.testing.assert_array_equal(values[:97], expected.values)
        np.testing.assert_array_equal(scales[:97], expected.scale)
        assert not values[97:].any()
        assert not scales[97:].any()
    assert (weights.embedding == weights.head) == (name == "tied")
    head = weights.runs[-1]
    assert (head.addresses["head"], head.addresses["head.scale"]) == (weights.head.values, weights.head.scales)
    weights.close()


def test_a_table_of_words_in_another_packing_is_refused(gpu: Gpu, models: dict[str, Path], tmp_path: Path) -> None:
    packed = packed_archive(TEXT, "fp8", models["tied"], tmp_path / "weights.engine")
    tensors = {name.replace("embed_tokens.weight.int8", "embed_tokens.weight.fp8"): each
               for name, each in packed.packed.items()}  # fmt: skip
    other = archive(TEXT, "fp8", packed.file, tensors)
    with pytest.raises(EngineError, match=r"embed_tokens\.weight is missing"):
        load(gpu, TEXT, models["tied"], other)


@pytest.mark.parametrize("precision", ["fp8", "int8"])
@pytest.mark.parametrize("part", PARTS)
def test_packed_weights_are_unpacked_for_each_run(
    part: str, precision: str, gpu: Gpu, models: dict[str, Path], tmp_path: Path
) -> None:
    model = models["original"]
    file = tmp_path / "weights.engine"
    packed = packed_archive(part, precision, model, file)
    nothing_else = tmp_path / "model"
    shutil.copytree(model, nothing_else, ignore=shutil.ignore_patterns("*.safetensors*"))
    weights = load(gpu, part, nothing_else, packed)
    quantized = 0

    def exact(name: str, values: Any) -> Any:
        nonlocal quantized
        if f"{name}.scale" not in packed.packed:
            return values
        quantized += 1
        return quantize_weight(values, precision).restored()

    for name, found, expected in found_and_expected(gpu, part, model, precision, weights, exact):
        assert torch.equal(found, expected), name
    assert quantized == (2 * 4 + 2 if part == VISION else 3 * 4)
    used = gpu.memory.by_purpose()
    label = "vision weights" if part == VISION else "text weights"
    largest = max(
        sum(
            2 * prod(each.shape)
            for each in run
            if f"{each.name}.scale" in packed.packed and each.name not in WORD_TABLES
        )
        for run in runs_of(part, model, precision)
    )
    assert largest <= used[f"{label}, unpacked"] < largest + 2048, "one buffer for all runs"
    weights.close()


def test_int4_is_unpacked_too(gpu: Gpu, tmp_path: Path) -> None:
    """The tiny model has no width that INT4 takes; the demo model has."""
    from package_files import DEMO_MODEL

    packed = packed_archive(TEXT, "int4", DEMO_MODEL, tmp_path / "weights.engine")
    config = ModelConfig.from_directory(DEMO_MODEL).text
    weights = load(gpu, TEXT, DEMO_MODEL, packed)
    run = weights.runs[0]
    run.unpack()
    gpu.device.wait()
    assert [run.stored["qkv_weight"].block, weights.runs[1].stored["down"].block] == [64, 64]
    assert run.stored["input_norm"].values == run.addresses["input_norm"]
    scales = packed.packed["layers.0.down.weight.scale"]
    packed.packed = {**packed.packed, "layers.0.down.weight.scale": replace(scales, shape=(256 * 11,))}
    with pytest.raises(EngineError, match="or its scales are not"):
        load(gpu, TEXT, DEMO_MODEL, packed)
    weight = load_text_decoder(DEMO_MODEL).layers[0].qkv.weight.detach()
    assert is_quantizable(config.hidden_size, "int4")
    found = gpu.read(run.addresses["qkv_weight"], weight.shape, "float16")
    assert torch.equal(found, quantize_weight(weight, "int4", block=64).restored())


def changed(model: Path, target: Path, part: str, key: str, tensor: Any) -> Path:
    shutil.copytree(model, target)
    file = target / part / "model.safetensors"
    tensors = load_file(file)
    assert key in tensors
    if tensor is None:
        del tensors[key]
    else:
        tensors[key] = tensor
    save_file(tensors, file)
    return target


PROBLEMS = [
    (VISION, "vision_model.encoder.layers.1.ls2", None, "is missing"),
    (VISION, "vision_model.embeddings.position_embedding", torch.zeros(1, 65, 32), "not interpolated"),
    (VISION, "vision_model.embeddings.class_embedding", torch.full((1, 1, 32), torch.inf), "not finite in float32"),
    (VISION, "mlp1.1.weight", torch.full((48, 128), torch.nan), "not finite in float16"),
    (TEXT, "language_model.model.layers.0.self_attn.k_proj.weight", torch.zeros(48, 48), r"\[48, 48\]"),
    (TEXT, "language_model.model.layers.0.self_attn.k_proj.weight", torch.full((16, 48), 7e4), "bf16"),
    (
        TEXT,
        "language_model.model.layers.0.self_attn.k_proj.bias",
        torch.full((16,), torch.inf),
        "not finite in float32",
    ),
    (TEXT, "language_model.model.norm.weight", torch.full((48,), torch.inf), "not finite in float32"),
]


@pytest.mark.parametrize(("part", "key", "tensor", "words"), PROBLEMS)
def test_weights_that_do_not_fit_are_named(
    part: str, key: str, tensor: Any, words: str, gpu: Gpu, models: dict[str, Path], tmp_path: Path
) -> None:
    model = changed(models["original"], tmp_path / "model", part, key, tensor)
    with pytest.raises(CheckpointError, match=words) as caught:
        load(gpu, part, model, archive(part, "fp16"))
    assert key in str(caught.value)
    assert str(model / part) in str(caught.value)
    gpu.memory.free()
    assert not gpu.cuda.live


def test_what_fp16_does_not_hold_is_loaded_in_bf16(gpu: Gpu, models: dict[str, Path], tmp_path: Path) -> None:
    key = "language_model.model.layers.0.self_attn.k_proj.weight"
    model = changed(models["original"], tmp_path / "model", TEXT, key, torch.full((16, 48), 7e4))
    run = load(gpu, TEXT, model, archive(TEXT, "bf16")).runs[0]
    assert float(gpu.read(run.addresses["qkv_weight"], (80, 48), "bfloat16")[48:64].float().min()) == 70144


@pytest.mark.parametrize(("precision", "kind", "loaded"), [("fp16", "float", 7e4), ("bf16", "bfloat16", 70144.0)])
def test_biases_may_pass_the_largest_number_of_fp16(
    precision: str, kind: str, loaded: float, gpu: Gpu, models: dict[str, Path], tmp_path: Path
) -> None:
    """They are fp32 beside fp16 matrices, and bf16 beside bf16 ones, which rounds them."""
    key = "language_model.model.layers.0.self_attn.k_proj.bias"
    model = changed(models["original"], tmp_path / "model", TEXT, key, torch.full((16,), 7e4))
    run = load(gpu, TEXT, model, archive(TEXT, precision)).runs[0]
    assert gpu.read(run.addresses["qkv_bias"], (80,), kind)[48:64].tolist() == [loaded] * 16


def test_missing_weights_are_downloaded(gpu: Gpu, models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(models["original"], tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors*"))
    with pytest.raises(CheckpointError, match="`ros2 run litevlm_ros download_models`"):
        load(gpu, VISION, tmp_path / "model", archive(VISION, "fp16"))


def test_a_file_that_is_cut_while_it_is_read(gpu: Gpu, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(bytes(100))
    upload = weight_upload.WeightUpload(gpu.device, SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="it ends at byte 100"):
        upload.run([Transfer(StoredTensor(file, "U8", (80,), 40, 80), gpu.memory.allocate("x", 80))])
    upload.close()


def test_packed_weights_that_do_not_fit_are_named(gpu: Gpu, models: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "text_decoder_int8.engine"
    packed = packed_archive(TEXT, "int8", models["original"], file)
    sound = dict(packed.packed)
    for name, words in (
        ("layers.1.down.weight.scale", "layers.1.down.weight.scale is missing"),
        ("layers.1.down.weight.int8", "layers.1.down.weight is missing"),
        ("norm.weight", "norm.weight is missing"),
    ):
        packed.packed = {key: place for key, place in sound.items() if key != name}
        with pytest.raises(EngineError, match=rf"{words}.*build_engines"):
            load(gpu, TEXT, models["original"], packed)
    scale = sound["layers.1.down.weight.scale"]
    for wrong in (replace(scale, shape=(24,)), replace(scale, shape=(48, 2)), replace(scale, dtype="F32")):
        packed.packed = sound | {"layers.1.down.weight.scale": wrong}
        with pytest.raises(
            EngineError, match=r"down\.weight\.int8 is not of the shape \[48, 80\], or its scales are not"
        ):
            load(gpu, TEXT, models["original"], packed)
    place = sound["layers.1.down.weight.int8"]
    packed.packed = sound | {"layers.1.down.weight.int8": replace(place, shape=(48, 40), length=48 * 40)}
    with pytest.raises(EngineError, match=r"layers\.1\.down\.weight\.int8 is not of the shape \[48, 80\]"):
        load(gpu, TEXT, models["original"], packed)


def stored(file: str, dtype: str, offset: int, length: int) -> Transfer:
    return Transfer(StoredTensor(Path(file), dtype, (length,), offset, length), 0)


def test_pieces_cover_every_byte_and_cut_no_number() -> None:
    transfers = [
        stored("b", "F32", 16, 404),
        stored("a", "F16", 8, 20),
        stored("a", "F32", 28, 8),
        stored("a", "U8", 1_000_000, 5),
        stored("b", "F16", 420, 0),
        stored("b", "F16", 421, 30),
    ]
    found = list(pieces(transfers, 102))
    assert [(piece.file.name, piece.offset) for piece in found[:3]] == [("a", 8), ("a", 1_000_000), ("b", 16)]
    assert all(piece.length <= 102 for piece in found)
    for transfer in transfers:
        parts = [part for piece in found for part in piece.slices if part.transfer is transfer]
        assert sum(part.length for part in parts) == transfer.stored.length
        assert [part.begin for part in parts] == [sum(p.length for p in parts[:i]) for i in range(len(parts))]
        item = {"F32": 4, "F16": 2, "U8": 1}[transfer.stored.dtype]
        assert all(part.length % item == 0 for part in parts)
    for piece in found:
        for part in piece.slices:
            assert piece.offset + part.place == part.transfer.stored.offset + part.begin
            assert 0 <= part.place <= piece.length - part.length
