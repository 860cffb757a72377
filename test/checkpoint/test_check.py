"""Weights in a directory are held against the shapes that parameters have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from litevlm_ros.checkpoint.check import WeightCheck, check_text, check_vision
from litevlm_ros.checkpoint.files import SafetensorsDirectory
from litevlm_ros.checkpoint.keys import PositionSources
from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_config import TextConfig, VisionConfig

VISION = VisionConfig(8, 16, 1, 2, 28, 14)
POSITIONS = PositionSources("positions", "cls", "bias")


def write(directory: Path, shapes: dict[str, tuple[int, ...]]) -> SafetensorsDirectory:
    tensors = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    return SafetensorsDirectory(directory)


def text(*, tied: bool) -> TextConfig:
    return TextConfig(8, 16, 1, 2, 1, 4, 1e-6, 1e4, 10, tied, 512)


def text_shapes() -> dict[str, tuple[int, ...]]:
    layer = "model.layers.0."
    return {
        "model.embed_tokens.weight": (10, 8),
        "model.norm.weight": (8,),
        f"{layer}input_layernorm.weight": (8,),
        f"{layer}post_attention_layernorm.weight": (8,),
        **{f"{layer}self_attn.{name}_proj.weight": (rows, 8) for name, rows in (("q", 8), ("k", 4), ("v", 4))},
        **{f"{layer}self_attn.{name}_proj.bias": (rows,) for name, rows in (("q", 8), ("k", 4), ("v", 4))},
        f"{layer}self_attn.o_proj.weight": (8, 8),
        f"{layer}mlp.gate_proj.weight": (16, 8),
        f"{layer}mlp.up_proj.weight": (16, 8),
        f"{layer}mlp.down_proj.weight": (8, 16),
    }


def test_parts_of_a_parameter_follow_each_other(tmp_path: Path) -> None:
    check = WeightCheck(write(tmp_path, {"q": (8, 8), "k": (4, 8), "patches": (8, 3, 2, 2), "scalar": ()}))
    assert [part.shape for part in check.concatenated(("q", "k"), (12, 8))] == [(8, 8), (4, 8)]
    assert [part.shape for part in check.concatenated(("patches",), (8, 12))] == [(8, 3, 2, 2)]
    check.raise_problems()
    assert check.concatenated(("q", "nowhere"), (12, 8)) == ()
    check.raise_problems()
    assert check.concatenated(("q", "k"), (13, 8)) == ()
    assert check.concatenated(("scalar",), (1,)) == ()
    with pytest.raises(
        CheckpointError, match=r"(?s)Fix it\.\n.*q in .*\[8, 8\].*\[13, 8\] in all.*k in.*scalar in .*\[\]"
    ):
        check.raise_problems("Fix it")


@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [
        ("positions", (1, 6, 8), r"asks for 40 numbers; positions for another image size are not interpolated"),
        ("cls", (9,), "asks for 8 numbers$"),
        ("bias", (8, 2), "asks for 8 numbers$"),
    ],
)
def test_positions_are_of_one_size(key: str, shape: tuple[int, ...], words: str, tmp_path: Path) -> None:
    sound: dict[str, tuple[int, ...]] = {"positions": (1, 5, 8), "cls": (1, 1, 8), "bias": (8,)}
    check = WeightCheck(write(tmp_path, sound))
    assert [part.shape for part in check.positions(POSITIONS, (5, 8))] == list(sound.values())
    check = WeightCheck(write(tmp_path, sound | {key: shape}))
    assert check.positions(POSITIONS, (5, 8)) == ()
    with pytest.raises(CheckpointError, match=words) as caught:
        check.raise_problems()
    assert f"{key} in {tmp_path / 'model.safetensors'}" in str(caught.value)


def test_a_text_decoder(tmp_path: Path) -> None:
    write(tmp_path, text_shapes())
    check, sources = check_text(tmp_path, text(tied=True))
    check.raise_problems()
    assert sources["lm_head.weight"] == sources["embed_tokens.weight"]
    check, _ = check_text(tmp_path, text(tied=False))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing"):
        check.raise_problems()
    write(tmp_path, text_shapes() | {"lm_head.weight": (10, 8), "other": (1,)})
    check, sources = check_text(tmp_path, text(tied=True))
    with pytest.raises(CheckpointError, match=r"other in .* is unexpected") as caught:
        check.raise_problems()
    assert "lm_head" not in str(caught.value)


def test_other_models(tmp_path: Path) -> None:
    write(tmp_path, {"other": (1,)})
    with pytest.raises(CheckpointError, match="holds no InternViT"):
        check_vision(tmp_path, VISION)
    with pytest.raises(CheckpointError, match="holds no Qwen2"):
        check_text(tmp_path, text(tied=True))


def test_the_fix_of_an_overflow_is_named_where_there_is_one(tmp_path: Path) -> None:
    for kind, named in (("float16", True), ("bfloat16", False), ("float32", False)):
        check = WeightCheck(write(tmp_path, {"q": (1,)}))
        check.not_finite(("q",), kind)
        with pytest.raises(CheckpointError, match=f"q in .* not finite in {kind}") as caught:
            check.raise_problems()
        assert ("--precision bf16" in str(caught.value)) == named
