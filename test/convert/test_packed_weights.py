"""Packed weights hold every parameter, and their values are those of the quantized weights."""

from __future__ import annotations

import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from internvl2_1b import INTERNVL2_1B
from package_files import DEMO_MODEL
from resident_memory import growth
from shared_files import made_once

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")

from safetensors.torch import load_file, save_file  # noqa: E402

from litevlm_ros.convert import calibration, packed_weights  # noqa: E402
from litevlm_ros.convert.calibration import measure_importance  # noqa: E402
from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder  # noqa: E402
from litevlm_ros.convert.packed_weights import pack  # noqa: E402
from litevlm_ros.convert.quantized_weights import quantize_weight  # noqa: E402
from litevlm_ros.errors import CheckpointError  # noqa: E402
from litevlm_ros.lab.world.calibration import calibration_data  # noqa: E402
from litevlm_ros.model_directory import CHECKSUMS, PARTS, TEXT, VISION, weight_bytes  # noqa: E402
from litevlm_ros.precision import PACKED_PRECISIONS, WORD_TABLES  # noqa: E402

LOADERS = {VISION: load_vision_encoder, TEXT: load_text_decoder}


BLOCK = 64
"""The inputs that share a scale in INT4. 128 does not divide the widths 704 and 192 of the demo model."""


def unpacked(arrays: dict[str, Any], name: str) -> Any:
    """The weight `name` as the module's documentation says that it is packed."""
    scale = torch.tensor(arrays[f"{name}.scale"]).float()
    if f"{name}.fp8" in arrays:
        values = torch.tensor(arrays[f"{name}.fp8"]).view(torch.float8_e4m3fn).float()
    elif f"{name}.int8" in arrays:
        values = torch.tensor(arrays[f"{name}.int8"]).float()
    else:
        packed = arrays[f"{name}.int4"].astype(np.int16)
        halves = np.stack((packed & 15, packed >> 4), -1).reshape(len(packed), -1)
        values = torch.tensor(np.where(halves < 8, halves, halves - 16)).float()
        scale = scale.repeat_interleave(values.shape[1] // scale.shape[1], 1)
    return (values * (scale.unsqueeze(1) if scale.dim() == 1 else scale)).half()


@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
@pytest.mark.parametrize("part", PARTS)
def test_everything_is_there(part: str, precision: str) -> None:
    arrays = pack(part, DEMO_MODEL, precision, None)
    packed = 0
    for name, parameter in LOADERS[part](DEMO_MODEL).named_parameters():
        exact, packing = parameter.detach(), "int8" if name in WORD_TABLES else precision
        if f"{name}.scale" in arrays:
            packed += 1
            assert torch.equal(unpacked(arrays, name), quantize_weight(exact, packing, block=BLOCK).restored()), name
            assert name not in arrays
            scale = arrays.pop(f"{name}.scale")
            assert scale.dtype == np.float16
            outputs, inputs = exact.shape
            assert scale.shape == ((outputs, inputs / BLOCK) if packing == "int4" else (outputs,))
            values = arrays.pop(f"{name}.{packing}")
            assert values.shape == (outputs, inputs // 2 if packing == "int4" else inputs)
            assert values.dtype == (np.int8 if packing == "int8" else np.uint8)
        else:
            found = arrays.pop(name)
            wide = "norm" in name or name.endswith((".ls1", ".ls2")) or name == "positions"
            assert found.dtype == (np.float32 if wide else np.float16), name
            assert torch.equal(torch.tensor(found), exact if wide else exact.half()), name
    assert arrays == {}
    assert packed == (4 * 4 + 1 if part == TEXT else 6 * 4 + 2)


@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
@pytest.mark.parametrize("name", ["original", "original-tied"])
def test_tables_of_words_are_int8(name: str, precision: str, models: dict[str, Path]) -> None:
    arrays = pack(TEXT, models[name], precision, None)
    parameters = dict(load_text_decoder(models[name]).named_parameters())
    tables = [table for table in WORD_TABLES if table in parameters]
    assert len(tables) == (1 if name == "original-tied" else 2)
    stored = {each for each in arrays if each.startswith(("embed_tokens", "lm_head"))}
    assert stored == {f"{table}.{kind}" for table in tables for kind in ("int8", "scale")}
    for table in tables:
        exact, found = parameters[table].detach(), unpacked(arrays, table)
        scale = torch.tensor(arrays[f"{table}.scale"]).float()
        assert bool((scale * 127 <= 1.001 * exact.abs().amax(1)).all()), "each row uses all of int8"
        most = scale.unsqueeze(1) / 2 + exact.abs() / 2**11  # half a step, and fp16's own rounding
        assert bool(((found - exact).abs() <= 1.001 * most).all())


def test_four_bits_are_half_a_byte() -> None:
    arrays = pack(TEXT, DEMO_MODEL, "int4", None)
    weight = load_text_decoder(DEMO_MODEL).layers[0].down.weight
    assert arrays["layers.0.down.weight.int4"].nbytes == weight.numel() // 2


def test_int4_scales_follow_the_calibration() -> None:
    data = calibration_data(DEMO_MODEL)
    found = unpacked(pack(TEXT, DEMO_MODEL, "int4", data), "layers.1.down.weight")
    weight = load_text_decoder(DEMO_MODEL).layers[1].down.weight.detach()
    importance = measure_importance(TEXT, DEMO_MODEL, data)["layers.1.down"]
    assert torch.equal(found, quantize_weight(weight, "int4", importance, BLOCK).restored())
    assert not torch.equal(found, quantize_weight(weight, "int4", block=BLOCK).restored())


def test_what_fp16_does_not_hold_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, model, ignore=shutil.ignore_patterns(CHECKSUMS))
    file = model / TEXT / "model.safetensors"
    tensors = load_file(file)
    (key,) = (key for key in tensors if key.endswith("layers.2.mlp.down_proj.weight"))
    save_file(tensors | {key: torch.full_like(tensors[key], 7e4, dtype=torch.float32)}, file)
    with pytest.raises(CheckpointError, match=r"layers\.2\.down\.weight.*--precision bf16"):
        pack(TEXT, model, "int8", None)


@pytest.fixture(scope="module")
def thin() -> Path:
    """Two layers of InternVL2-1B in fp16: 54 MB of vision encoder, and more of text decoder."""
    pytest.importorskip("transformers", reason="the model is made by transformers")
    from random_internvl import thinned, write_random_internvl

    model = thinned(INTERNVL2_1B)
    return made_once("thin_internvl", lambda root: write_random_internvl(root / "model", model)) / "model"


@pytest.mark.parametrize("precision", ["fp8", "int4"])
@pytest.mark.parametrize("part", PARTS)
def test_packing_takes_little_more_than_its_result(part: str, precision: str, thin: Path) -> None:
    """An fp32 module would take twice the checkpoint, and its packed weights come on top."""
    checkpoint = weight_bytes(thin / part)
    assert checkpoint > 50e6, "smaller ones drown in what the allocator keeps"
    pack(part, DEMO_MODEL, precision, None)  # PyTorch loads parts of itself, once
    assert growth(lambda: pack(part, thin, precision, None)) < 1.8 * checkpoint


@pytest.mark.parametrize("part", PARTS)
def test_calibration_has_one_part_in_memory_and_frees_it_before_packing(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Any]] = []

    def alone(load: Any) -> Any:
        def loading(model: Path) -> Any:
            assert not any(module() for module in loaded)
            loaded.append(weakref.ref(module := load(model)))
            return module

        return loading

    def quantize(*arguments: Any) -> Any:
        assert not any(module() for module in loaded)
        return quantize_weight(*arguments)

    for name, load in (("load_vision_encoder", load_vision_encoder), ("load_text_decoder", load_text_decoder)):
        monkeypatch.setattr(calibration, name, alone(load))
    monkeypatch.setattr(packed_weights, "quantize_weight", quantize)
    data = calibration_data(DEMO_MODEL)
    pack(part, DEMO_MODEL, "int4", replace(data, images=data.images[:1]))
    assert len(loaded) == (1 if part == VISION else 2)
