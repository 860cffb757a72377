from __future__ import annotations

from pathlib import Path

import pytest
import torch
from package_files import DEMO_MODEL
from tokenizers import Tokenizer

from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.lab.training.demo_model import IMAGE_SIZE, TOKENS_PER_VIEW, DemoModel, demo_config
from litevlm_ros.lab.training.packing import COLOUR_CLASSES, DISTANCE_CLASSES, KIND_CLASSES
from litevlm_ros.lab.training.tokenizer import save_tokenizer
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.text.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def model() -> DemoModel:
    torch.manual_seed(0)
    return DemoModel(demo_config(600, image_token=5)).eval()


def test_what_is_saved_loads_as_a_checkpoint_with_the_same_weights(model: DemoModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    save_tokenizer(Tokenizer.from_file(str(DEMO_MODEL / "text_decoder" / "tokenizer.json")), tmp_path / "text_decoder")
    config = ModelConfig.from_directory(tmp_path)
    assert config.vision.tokens_per_tile == TOKENS_PER_VIEW
    assert config.max_dynamic_tiles == 1
    assert TextTokenizer.from_directory(tmp_path).stop_ids
    encoder = load_vision_encoder(tmp_path, torch.float32)
    load_text_decoder(tmp_path, torch.float32)
    pixels = torch.randint(0, 256, (2, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=torch.uint8)
    with torch.no_grad():
        model.internvl.half().float()
        expected = model.see(pixels.permute(0, 3, 1, 2).float())
        torch.testing.assert_close(encoder(pixels), expected, rtol=1e-3, atol=1e-4)


def test_questions_of_one_pack_do_not_see_each_other(model: DemoModel) -> None:
    ids = torch.tensor([[1, 600, 601, 7, 8, 9, 10]])
    segment = torch.tensor([[0, 0, 0, 1, 1, 2, 2]])
    positions = torch.tensor([[0, 1, 2, 3, 4, 3, 4]])
    visual = torch.randn(1, 2, 256)
    with torch.no_grad():
        both = model.read(ids, segment, positions, visual)
        changed = ids.clone()
        changed[0, 3:5] = torch.tensor([11, 12])
        other = model.read(changed, segment, positions, visual)
        alone = model.read(ids[:, [0, 1, 2, 5, 6]], segment[:, [0, 1, 2, 5, 6]], positions[:, [0, 1, 2, 5, 6]], visual)
    torch.testing.assert_close(both[0, 5:], other[0, 5:])
    torch.testing.assert_close(both[0, 5:], alone[0, 3:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(both[0, 3:5], other[0, 3:5])


def test_the_grid_loss_falls_where_a_label_is_met(model: DemoModel) -> None:
    visual = torch.zeros(1, TOKENS_PER_VIEW, 256)
    labels = torch.zeros(1, TOKENS_PER_VIEW, 3, dtype=torch.long)
    before = model.grid_loss(visual, labels)
    with torch.no_grad():
        for first in (0, KIND_CLASSES, KIND_CLASSES + COLOUR_CLASSES):
            model.grid_head.bias[first] += 5
    assert model.grid_head.out_features == KIND_CLASSES + COLOUR_CLASSES + DISTANCE_CLASSES
    assert model.grid_loss(visual, labels) < before


def test_the_shipped_model_has_this_architecture() -> None:
    shipped = ModelConfig.from_directory(DEMO_MODEL)
    assert shipped.vision.tokens_per_tile == TOKENS_PER_VIEW
    parameters = sum(tensor.numel() for tensor in load_text_decoder(DEMO_MODEL, torch.float32).parameters())
    parameters += sum(tensor.numel() for tensor in load_vision_encoder(DEMO_MODEL, torch.float32).parameters())
    assert parameters < 8e6
    sizes = {file.relative_to(DEMO_MODEL): file.stat().st_size for file in DEMO_MODEL.rglob("*") if file.is_file()}
    parts = ("vision_encoder", "text_decoder")
    model = sum(size for file, size in sizes.items() if file.parts[0].removesuffix(".onnx") in parts)
    assert model < 16e6
    assert sum(sizes.values()) - model < 6e6, "what selects and drafts beside it"
