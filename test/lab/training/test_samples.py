from __future__ import annotations

import numpy as np
import pytest
import torch
from package_files import DEMO_MODEL
from ros_process import wait_for
from tokenizers import Tokenizer

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.lab.training import samples
from litevlm_ros.lab.training.packing import IGNORED, Vocabulary
from litevlm_ros.lab.training.samples import VARIANTS, FreshScenes, SampleBuffer, sample
from litevlm_ros.lab.world.scene import HELD_OUT_USERS, generate
from litevlm_ros.text.tokenizer import TextTokenizer

HELD_OUT_NAMES = [f"{colour} {kind.value}" for kind, colour in HELD_OUT_USERS]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DEMO_MODEL / "text_decoder" / "tokenizer.json"))


@pytest.fixture(scope="module")
def words(tokenizer: Tokenizer) -> Vocabulary:
    return Vocabulary.of(tokenizer)


def test_every_target_is_the_next_token_of_a_true_answer(words: Vocabulary, tokenizer: Tokenizer) -> None:
    scene = generate(5, unseen=True)
    rows = sample(scene, words, np.random.default_rng(0), unseen=True)["single"].numpy().astype(int)
    ids, targets, segment, positions = rows[0, 0]
    taught = targets != IGNORED
    # Without misread colours the sequence itself holds what is to be predicted.
    assert (targets[:-1][taught[:-1]] == ids[1:][taught[:-1]]).all()
    assert not taught[segment == 0].any()
    first = targets[taught & (np.concatenate([segment[1:], [-1]]) == 1)]
    caption = tokenizer.decode([int(i) for i in first])
    assert caption.lower().startswith(f"{'clear' if scene.weather == 'clear' else scene.weather.value}")
    for number in range(1, int(segment.max()) + 1):
        assert positions[segment == number][0] == (segment == 0).sum()


def test_training_never_names_a_held_out_combination(words: Vocabulary, tokenizer: Tokenizer) -> None:
    vocabulary_size = tokenizer.get_vocab_size()
    for seed in range(12):
        drawn = sample(generate(seed), words, np.random.default_rng(seed))
        for name in ("single", "multi"):
            for pack in drawn[name].reshape(-1, 4, drawn[name].shape[-1]).numpy().astype(int):
                ids, targets, segment, _ = pack
                targets_text = tokenizer.decode([int(i) for i in targets if i != IGNORED])
                # What is asked: the questions' own tokens are those that nothing is taught on.
                asked = [int(i) for i, s, t in zip(ids, segment, targets, strict=True) if s > 0 and t == IGNORED]
                asked_text = tokenizer.decode([i for i in asked if i < vocabulary_size])
                for held_out in HELD_OUT_NAMES:
                    assert held_out not in targets_text
                    assert held_out not in asked_text


def test_some_colours_are_misread_but_never_their_targets(words: Vocabulary) -> None:
    differences = 0
    for seed in range(6):
        rows = sample(generate(seed), words, np.random.default_rng(seed))["single"].numpy().astype(int)
        for ids, targets, _, _ in rows.reshape(-1, 4, rows.shape[-1]):
            wrong = (targets[:-1] != IGNORED) & (targets[:-1] != ids[1:])
            assert set(targets[:-1][wrong]) <= set(words.colours)
            assert set(ids[1:][wrong]) <= set(words.colours)
            differences += int(wrong.sum())
    assert differences > 10


def test_the_vocabulary_knows_every_colour_as_one_token(words: Vocabulary, tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode([i]).strip() for i in words.colours] == [
        "red",
        "blue",
        "green",
        "yellow",
        "white",
        "black",
    ]
    assert TextTokenizer(tokenizer).special("<|im_end|>") == words.end


def test_the_buffer_overwrites_the_oldest_and_draws_one_variant(tokenizer: Tokenizer) -> None:
    batch = FreshScenes(tokenizer, start=7, workers=0).take()
    first = {name: rows[:2] for name, rows in batch.items()}
    second = {name: rows[2:3] for name, rows in batch.items()}
    buffer = SampleBuffer(capacity=2, device="cpu")
    buffer.add(first)
    buffer.add(second)
    assert (buffer.filled, buffer.written) == (2, 3)
    drawn = buffer.draw(16, torch.Generator().manual_seed(0))
    kept = [second["pixels"][0], first["pixels"][1]]
    assert all(any(torch.equal(pixels, one) for one in kept) for pixels in drawn["pixels"])
    assert drawn["single"].shape == (16, len(DEMO_CAMERAS), *first["single"].shape[3:])
    assert first["single"].shape[1] == VARIANTS


def test_workers_render_scenes_in_the_background(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_BATCH", 1)
    alone, fresh = FreshScenes(tokenizer, start=7, workers=0), FreshScenes(tokenizer, start=7, workers=1)
    assert alone.ready
    for _ in range(2):
        expected, batch = alone.take(), fresh.take()
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
    wait_for(lambda: fresh.ready)
    fresh.close()
