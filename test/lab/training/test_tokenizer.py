from __future__ import annotations

import json
from pathlib import Path

from litevlm_ros.lab.training.tokenizer import SPECIAL_TOKENS, save_tokenizer, train_tokenizer
from litevlm_ros.lab.world.captions import caption
from litevlm_ros.lab.world.scene import generate
from litevlm_ros.text.tokenizer import TextTokenizer


def test_it_saves_what_the_pipeline_reads(tmp_path: Path) -> None:
    folder = tmp_path / "text_decoder"
    folder.mkdir()
    save_tokenizer(train_tokenizer(), folder)
    tokenizer = TextTokenizer.from_directory(tmp_path)
    assert tokenizer.stop_ids == {tokenizer.special("<|im_end|>"), tokenizer.special("<|endoftext|>")}
    assert all(isinstance(tokenizer.special(token), int) for token in SPECIAL_TOKENS)
    assert json.loads((folder / "generation_config.json").read_text())["do_sample"] is False


def test_the_worlds_words_are_short_and_any_text_comes_back() -> None:
    tokenizer = train_tokenizer()
    text = caption(generate(4), "front")
    assert len(tokenizer.encode(text).ids) < len(text) / 3
    for other in (text, "Größe? 猫 🚗", "SOMETHING\nelse\t"):
        assert tokenizer.decode(tokenizer.encode(other).ids) == other
