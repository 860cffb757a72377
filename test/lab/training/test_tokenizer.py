from __future__ import annotations

import json
from pathlib import Path

import pytest
from package_files import DEMO_MODEL
from tokenizers import Tokenizer

from litevlm_ros.lab.training.tokenizer import SPECIAL_TOKENS, save_tokenizer, train_tokenizer
from litevlm_ros.lab.world.captions import caption
from litevlm_ros.lab.world.scene import generate
from litevlm_ros.text.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer()


def test_the_shipped_model_has_this_tokenizer(tokenizer: Tokenizer) -> None:
    shipped = (DEMO_MODEL / "text_decoder" / "tokenizer.json").read_text()
    assert tokenizer.to_str(pretty=True) == shipped


def test_it_saves_what_the_pipeline_reads(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "text_decoder"
    folder.mkdir()
    save_tokenizer(tokenizer, folder)
    text = TextTokenizer.from_directory(tmp_path)
    assert text.stop_ids == {text.special("<|im_end|>"), text.special("<|endoftext|>")}
    assert all(isinstance(text.special(token), int) for token in SPECIAL_TOKENS)
    assert json.loads((folder / "generation_config.json").read_text())["do_sample"] is False


def test_the_worlds_words_are_short_and_any_text_comes_back(tokenizer: Tokenizer) -> None:
    text = caption(generate(4), "front")
    assert len(tokenizer.encode(text).ids) < len(text) / 3
    for other in (text, "Größe? 猫 🚗", "SOMETHING\nelse\t"):
        assert tokenizer.decode(tokenizer.encode(other).ids) == other
