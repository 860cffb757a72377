"""The whole pipeline on ONNX Runtime against transformers' generate with the same random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_internvl import IMAGE_TOKEN, generate, generate_masked, model_directory
from tiny_tokenizer import make_tokenizer

from litevlm_ros.config import (
    PipelineConfig,
    ReuseConfig,
    SamplingConfig,
    SpeculationConfig,
    TokenSelectionConfig,
    ViewSelectionConfig,
)
from litevlm_ros.images.decoding import as_rgb
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.text.prompt import TEMPLATES
from litevlm_ros.text.tokenizer import TextTokenizer
from litevlm_ros.types import FinishReason, Reuse, View
from litevlm_ros.vision.stitching import Stitcher
from litevlm_ros.vision.tiling import make_tiles

COUNT = 24
SAMPLING = SamplingConfig(max_new_tokens=COUNT)


@pytest.fixture(scope="module")
def model() -> Path:
    return model_directory()


def picture(seed: int, width: int = 150, height: int = 100) -> Any:
    rows, columns = np.indices((height, width))
    waves = [127 + 127 * np.sin((rows * (seed + 1) + columns * (channel + 2)) / 15) for channel in range(3)]
    return np.stack(waves, -1).astype(np.uint8)


def endless(model: Path, **settings: Any) -> Pipeline:
    """A pipeline that no token stops."""
    pipe = Pipeline.from_config(PipelineConfig(model, **{"threads": 1, **settings}))
    pipe.stop_ids = frozenset()
    return pipe


def whole_prompt(prompt: str) -> str:
    system = f"<|im_start|>system\n{TEMPLATES['internvl2_5'].system_message}<|im_end|>\n"
    return f"{system}<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def reference_text(prompt: str, tiles: Any) -> str:
    raw = make_tokenizer()
    ids = raw.encode(whole_prompt(prompt), add_special_tokens=False).ids
    return TextTokenizer(raw).decode(generate(ids, tiles, COUNT)).strip()


def image(tiles: int) -> str:
    return "<img>" + IMAGE_TOKEN * (4 * tiles) + "</img>\n"


def test_one_view_gets_the_answers_of_transformers(model: Path) -> None:
    pipe = endless(model)
    answers = set()
    for seed in range(3):
        encoded = pipe.encode([View("front", picture(seed))])
        for question in ("What is there?", "Is the car red?"):
            answer = pipe.answer(encoded, question, SAMPLING)
            tiles = make_tiles(picture(seed), 1, 56, True)
            assert answer.text == reference_text(image(1) + question, tiles)
            assert answer.tokens.generated == COUNT
            answers.add(answer.text)
    assert len(answers) == 6, "answers that depend on neither image nor question compare nothing"


def test_tiles_and_several_views_get_the_answers_of_transformers(model: Path) -> None:
    pictures = [picture(1), picture(2, 56, 56)]
    views = [View("front_left", pictures[0]), View("back", pictures[1])]
    tiles = [make_tiles(image, 6, 56, True) for image in pictures]
    assert [len(part) for part in tiles] == [7, 1]
    line = "Image-1 is from the camera front left, Image-2 is from the camera back.\n"
    prompt = f"Image-1: {image(7)}Image-2: {image(1)}{line}Which is red?"
    answer = endless(model, max_tiles=6).generate(views, "Which is red?", SAMPLING)
    assert answer.text == reference_text(prompt, np.concatenate(tiles))


def test_images_without_names_are_prompted_as_the_model_card_says(model: Path) -> None:
    pictures = [picture(1, 56, 56), picture(2, 56, 56)]
    views = [View(f"image_{index}", image) for index, image in enumerate(pictures)]
    answer = endless(model).generate(views, "Which is red?", SAMPLING)
    prompt = f"Image-1: {image(1)}Image-2: {image(1)}Which is red?"
    assert answer.text == reference_text(prompt, np.stack(pictures))


def test_stitched_views_get_the_answers_of_transformers(model: Path) -> None:
    views = [View("back", picture(1), 1), View("front_left", picture(2), 2), View("front", picture(3), 3)]
    pipe = endless(model, max_tiles=12, stitch_views=True)
    answer = pipe.generate(views, "Which is red?", SAMPLING)
    assert answer.cameras == ("front_left", "front", "back")
    whole = Stitcher(56).view((views[1], views[2], views[0]))
    tiles = make_tiles(as_rgb(whole.image), 12, 56, True)
    assert len(tiles) == 7
    assert answer.text == reference_text(f"{image(7)}Which is red?", tiles)
    again = pipe.generate(views, "Where is it?", SAMPLING)
    assert again.reuse.views == 3
    assert again.text == reference_text(f"{image(7)}Where is it?", tiles)


@pytest.mark.parametrize("selection", ["off", "diversity"])
def test_questions_without_views_get_the_answers_of_transformers(model: Path, selection: str) -> None:
    pipe = endless(
        model,
        token_selection=TokenSelectionConfig(selection, 0.5),
        view_selection=ViewSelectionConfig("lexical"),
        speculation=SpeculationConfig("ngram"),
        stitch_views=selection == "off",
    )
    views = [View("front", picture(1), 1), View("back", picture(2), 2)]
    for question in ("What is behind us?", "Is a car red?"):
        answer = pipe.generate([], question, SAMPLING)
        assert answer.text == reference_text(question, ())
        assert (answer.cameras, answer.tokens.visual, answer.reuse.views) == ((), 0, 0)
        assert pipe.generate(views, question, SAMPLING).text == endless(
            model, token_selection=pipe.config.token_selection, view_selection=pipe.config.view_selection,
            stitch_views=pipe.config.stitch_views, reuse=ReuseConfig(0),
        ).generate(views, question, SAMPLING).text  # fmt: skip


def test_the_reused_prefix_gives_the_tokens_of_a_fresh_run(model: Path) -> None:
    pipe = endless(model)
    view = View("front", picture(4))
    encoded = pipe.encode([view])
    sampled = SamplingConfig(COUNT, temperature=1.5, top_k=40, top_p=0.95, repetition_penalty=1.2, seed=3)
    for question in ("What is there?", "a", "How many cars are on the left of the blue van?"):
        for sampling in (SAMPLING, sampled):
            pipe.answer(encoded, "Something else first?", SAMPLING)
            assert pipe.answer(encoded, question, sampling).text == pipe.generate([view], question, sampling).text


def test_frames_seen_before_give_the_answers_and_logits_of_fresh_runs(model: Path) -> None:
    pipe, fresh = endless(model, max_tiles=6), endless(model, max_tiles=6, reuse=ReuseConfig(0))
    front, back = View("front", picture(1), 1), View("back", picture(2), 2)
    other = View("back", picture(3, 300, 100), 3)
    for views in ([front], [front], [front, back], [front, other], [other], [front, other], [back, front]):
        for question in ("What is there?", "Is it red?"):
            answer, expected = pipe.generate(views, question, SAMPLING), fresh.generate(views, question, SAMPLING)
            assert answer.text == expected.text
            logits = [each.backend.text.forward(np.array([7]), np.array([400])).logits() for each in (pipe, fresh)]
            np.testing.assert_allclose(logits[0], logits[1], atol=1e-4)
    assert expected.reuse == Reuse()
    assert answer.reuse.views == 2


@pytest.mark.parametrize("method", ["random", "diversity", "similarity"])
def test_selected_tokens_give_the_answers_of_all_with_the_others_masked(model: Path, method: str) -> None:
    """Kept tokens stand where they would have stood, and so does everything behind them."""
    pipe = endless(model, max_tiles=6, token_selection=TokenSelectionConfig(method, 0.5))
    pictures = [picture(7), picture(8, 56, 56)]
    encoded = pipe.encode([View("front", pictures[0]), View("back", pictures[1])])
    assert encoded.visual.count == 2 * (7 + 1)
    assert encoded.rows == (14, 2)
    places = pipe.token_selector.select(endless(model, max_tiles=6).encode(  # type: ignore[union-attr]
        [View("front", pictures[0]), View("back", pictures[1])]).visual).places  # fmt: skip
    tiles = np.concatenate([make_tiles(each, 6, 56, True) for each in pictures])
    line = "Image-1 is from the camera front, Image-2 is from the camera back.\n"
    prompt = f"Image-1: {image(7)}Image-2: {image(1)}{line}"
    texts = []
    for question in ("What is there?", "Is the car red?"):
        answer = pipe.answer(encoded, question, SAMPLING)
        assert answer.tokens.visual == 16
        ids = make_tokenizer().encode(whole_prompt(prompt + question), add_special_tokens=False).ids
        assert answer.tokens.prompt == len(ids) - 16
        expected = generate_masked(ids, tiles, COUNT, np.setdiff1d(np.arange(32), places))
        assert answer.text == TextTokenizer(make_tokenizer()).decode(expected).strip()
        texts.append(answer.text)
    everything = endless(model, max_tiles=6).generate(
        [View("front", pictures[0]), View("back", pictures[1])], question, SAMPLING)  # fmt: skip
    assert len({*texts, everything.text}) == 3, "dropping tokens that do not matter tests nothing"


def test_reuse_is_exact_with_selected_tokens(model: Path) -> None:
    selection = TokenSelectionConfig("diversity", 0.5)
    pipe = endless(model, max_tiles=6, token_selection=selection)
    fresh = endless(model, max_tiles=6, token_selection=selection, reuse=ReuseConfig(0))
    front, back, other = View("front", picture(1), 1), View("back", picture(2), 2), View("back", picture(3), 3)
    for views in ([front], [front], [front, back], [front, other], [back, front], [back]):
        for question in ("What is there?", "Is it red?"):
            answer, expected = pipe.generate(views, question, SAMPLING), fresh.generate(views, question, SAMPLING)
            assert answer.text == expected.text
    assert answer.reuse.tokens > len(pipe.encode([back]).prefix.words)


def test_another_share_of_tokens_counts_from_the_next_answer_on_frames_that_are_kept(model: Path) -> None:
    selections = [TokenSelectionConfig("diversity", keep) for keep in (0.5, 0.25, 1.0, 0.5)]
    pipe = endless(model, max_tiles=6, token_selection=selections[0])
    views = [View("front", picture(1), 1), View("back", picture(2), 2)]
    for selection in selections:
        pipe.change(replace(pipe.config, token_selection=selection))
        answer = pipe.generate(views, "What is there?", SAMPLING)
        fresh = endless(model, max_tiles=6, token_selection=selection).generate(views, "What is there?", SAMPLING)
        assert (answer.text, answer.tokens) == (fresh.text, fresh.tokens)


def test_answers_across_cache_buckets_do_not_depend_on_max_context(model: Path) -> None:
    view, long = View("front", picture(5)), SamplingConfig(max_new_tokens=200)
    whole = endless(model).generate([view], "What?", long)
    tight = endless(model, max_context=whole.tokens.prompt + 200).generate([view], "What?", long)
    assert whole.text == tight.text
    short = endless(model, max_context=whole.tokens.prompt + 77).generate([view], "What?", long)
    assert (short.tokens.generated, short.finish_reason) == (77, FinishReason.LENGTH)
    assert whole.text.startswith(short.text.rstrip("\ufffd"))


def test_threads_do_not_change_answers(model: Path) -> None:
    view = View("front", picture(6))
    texts = {
        endless(model, threads=threads, spin_threads=spin).generate([view], "What?", SAMPLING).text
        for threads, spin in ((1, False), (2, False), (2, True))
    }
    assert len(texts) == 1
