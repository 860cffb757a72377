from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_backend import ScriptedText, ScriptedVision, Sights, make_backend
from tiny_tokenizer import SPECIAL_TOKENS, make_tokenizer

from litevlm_ros.backend import Selection
from litevlm_ros.config import (
    PipelineConfig,
    ReuseConfig,
    SamplingConfig,
    SpeculationConfig,
    TokenSelectionConfig,
    ViewSelectionConfig,
)
from litevlm_ros.errors import CheckpointError, ConfigError, ContextOverflowError, EngineError, ImageError
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.text.drafts import NGramDrafts
from litevlm_ros.text.speculator import Speculator
from litevlm_ros.text.tokenizer import TextTokenizer
from litevlm_ros.types import FinishReason, Reuse, Speculation, View

RAW = make_tokenizer()
V = RAW.get_vocab_size()
END = RAW.token_to_id("<|im_end|>")
WORDS = [token for token in range(V) if token >= len(SPECIAL_TOKENS)]


def model(**changes: Any) -> ModelConfig:
    vision = VisionConfig(32, 64, 2, 2, image_size=56, patch_size=14)
    text = TextConfig(48, 80, 3, 6, 2, 8, 1e-6, 1e6, V, False, 512)
    settings = {"text": text, "template": "internvl2_5", "use_thumbnail": True, "max_dynamic_tiles": 6, **changes}
    return ModelConfig(vision=vision, **settings)


def pipeline(capacity: int = 512, config: dict[str, Any] | None = None, **model_changes: Any) -> Pipeline:
    settings = PipelineConfig(Path("model"), **(config or {}))
    tokenizer = TextTokenizer(RAW, [END])
    return Pipeline(settings, model(**model_changes), tokenizer, make_backend(V, 4, capacity, WORDS))


def text_of(pipe: Pipeline) -> ScriptedText:
    assert isinstance(pipe.backend.text, ScriptedText)
    return pipe.backend.text


def view(camera: str = "front", shade: int = 0, width: int = 60, height: int = 40, frame: int | None = None) -> View:
    return View(camera, np.full((height, width, 3), shade, np.uint8), frame)


BRIEF = SamplingConfig(max_new_tokens=12)


def say(pipe: Pipeline, text: str, *end: int) -> None:
    text_of(pipe).script = [*pipe.tokenizer.encode(text), *end]


# --- answers


def test_an_answer_says_all_about_itself() -> None:
    pipe = pipeline()
    say(pipe, "a red car 車", END)
    answer = pipe.generate([view("front"), view("back_left", 9)], "What is there?")
    assert answer.text == "a red car 車"
    assert answer.prompt == "What is there?"
    assert answer.cameras == ("front", "back_left")
    assert answer.finish_reason is FinishReason.STOP
    assert answer.tokens.visual == 8
    assert answer.tokens.generated == len(pipe.tokenizer.encode("a red car 車"))
    assert answer.tokens.prompt == text_of(pipe).counts[0]
    times = answer.timings
    stages = times.preprocess + times.vision + times.prefill + times.decode
    assert min(times.preprocess, times.vision, times.prefill, times.decode) > 0
    assert stages <= times.total < stages + 50


def test_the_decoder_reads_prompt_and_answer_at_consecutive_positions() -> None:
    pipe = pipeline()
    answer = pipe.generate([view()], "What?", BRIEF)
    rows = text_of(pipe).cache.rows
    assert [position for _, position, _ in rows] == list(range(answer.tokens.prompt + 11))
    visual = [(token - V, content) for token, _, content in rows if token >= V]
    encoded = pipe.encode([view()])
    assert visual == list(enumerate(encoded.visual.rows))  # type: ignore[attr-defined]


def test_tiles_and_thumbnail_count() -> None:
    pipe = pipeline(config={"max_tiles": 6})
    assert pipe.generate([view(width=300, height=200)], "What?", BRIEF).tokens.visual == (6 + 1) * 4
    assert pipeline().generate([view(width=300, height=200)], "What?", BRIEF).tokens.visual == 4


def test_pieces_add_up_to_the_text_and_hold_whole_characters() -> None:
    pipe = pipeline()
    say(pipe, "車 naïve 🚗 ok", END)
    pieces: list[str] = []
    answer = pipe.generate([view()], "What?", on_text=lambda piece, tokens: pieces.append(piece))
    assert answer.text == "".join(pieces) == "車 naïve 🚗 ok"
    assert len(pieces) > 3
    assert not any("\ufffd" in piece for piece in pieces)


def test_an_answer_may_be_empty() -> None:
    pipe = pipeline()
    say(pipe, "", END)
    answer = pipe.generate([view()], "What?")
    assert (answer.text, answer.tokens.generated, answer.finish_reason) == ("", 0, FinishReason.STOP)


def test_length_ends_an_answer() -> None:
    pipe = pipeline()
    say(pipe, "abcdefghijklmnopqrstuvwxyz", END)
    answer = pipe.generate([view()], "What?", SamplingConfig(max_new_tokens=3))
    assert answer.finish_reason is FinishReason.LENGTH
    assert answer.tokens.generated == 3
    assert text_of(pipe).counts[1:] == [1, 1], "the last token need not be read"


def test_an_answer_cut_inside_a_character_shows_it() -> None:
    pipe = pipeline()
    say(pipe, "車", END)
    pieces: list[str] = []
    answer = pipe.generate(
        [view()], "What?", SamplingConfig(max_new_tokens=2), on_text=lambda piece, tokens: pieces.append(piece)
    )
    assert answer.text == "".join(pieces) == "\ufffd"


def test_the_configured_sampling_is_the_default() -> None:
    pipe = pipeline(config={"sampling": SamplingConfig(max_new_tokens=5)})
    assert pipe.generate([view()], "What?").tokens.generated == 5


def test_sampling_repeats_with_its_seed_only() -> None:
    pipe = pipeline()

    def sampled(seed: int) -> str:
        return pipe.generate([view()], "What?", SamplingConfig(20, temperature=3.0, top_k=50, seed=seed)).text

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)
    assert sampled(1) != pipe.generate([view()], "What?", SamplingConfig(20)).text


# --- reuse of the prefix


def test_further_questions_reuse_the_prefix_and_get_the_answers_of_a_fresh_run() -> None:
    questions = ["What is there?", "Is it red?", "How many cars are there on the left?", "What is there?"]
    views = [view("front", 3), view("back", 7)]
    pipe = pipeline()
    encoded = pipe.encode(views)
    reused = [pipe.answer(encoded, question, BRIEF) for question in questions]
    fresh = [pipeline().generate(views, question, BRIEF) for question in questions]
    assert [answer.text for answer in reused] == [answer.text for answer in fresh]
    assert [answer.tokens for answer in reused] == [answer.tokens for answer in fresh]
    assert len({answer.text for answer in reused}) == 3
    assert isinstance(pipe.backend.vision, ScriptedVision)
    assert pipe.backend.vision.runs == 1
    prefills = [count for count in text_of(pipe).counts if count > 1]
    assert prefills[0] == reused[0].tokens.prompt
    assert prefills[1:] == [answer.tokens.prompt - len(encoded.prefix.ids) for answer in reused[1:]]


def test_other_views_between_questions_change_nothing() -> None:
    pipe = pipeline()
    first, second = pipe.encode([view(shade=1)]), pipe.encode([view(shade=2)])
    answers = [pipe.answer(encoded, "What?", BRIEF).text for encoded in (first, second, first, second, second)]
    assert answers[0] == answers[2]
    assert answers[1] == answers[3] == answers[4]
    assert answers[0] != answers[1]


def test_a_later_encoding_does_not_disturb_an_earlier_one() -> None:
    pipe = pipeline()
    first = pipe.encode([view(shade=1)])
    before = pipe.answer(first, "What?", BRIEF).text
    pipe.encode([view(shade=2)])
    assert pipe.answer(first, "What?", BRIEF).text == before


# --- view selection


SELECTING = {"view_selection": ViewSelectionConfig("lexical")}


def test_only_the_views_that_a_question_names_are_encoded() -> None:
    views = [view("front", 1), view("back", 2), view("back_left", 3)]
    pipe = pipeline(config=SELECTING)
    answer = pipe.generate(views, "Is a car behind us?", BRIEF)
    assert answer.cameras == ("back",)
    assert answer.tokens.visual == 4
    assert 0 < answer.timings.select < answer.timings.total
    assert answer.text == pipeline().generate(views[1:2], "Is a car behind us?", BRIEF).text
    assert pipe.generate(views, "What is that?", BRIEF).cameras == ("front", "back", "back_left")


def test_views_that_somebody_chose_are_all_kept() -> None:
    views = [view("front", 1), view("back", 2)]
    answer = pipeline(config=SELECTING).generate(views, "Is a car behind us?", BRIEF, all_views=True)
    assert answer.cameras == ("front", "back")
    assert pipeline().generate(views, "Is a car behind us?", BRIEF).cameras == ("front", "back")


def test_settings_that_change_between_answers() -> None:
    views = [view("front", 1), view("back", 2)]
    pipe = pipeline(config=SELECTING)
    assert pipe.generate(views, "What is at the rear gripper?", BRIEF).cameras == ("back",)
    phrases = {"front": ("gripper",)}
    selection = replace(pipe.config.view_selection, phrases=phrases)
    pipe.change(replace(pipe.config, view_selection=selection, sampling=SamplingConfig(max_new_tokens=2)))
    answer = pipe.generate(views, "What is at the gripper?")
    assert answer.cameras == ("front",)
    assert answer.tokens.generated == 2


# --- text only, and several views as one picture


def test_a_question_may_be_about_no_view() -> None:
    everything = {"view_selection": ViewSelectionConfig("lexical"), "speculation": SpeculationConfig("ngram")}
    pipe = pipeline(config=everything)
    pipe.token_selector = EverySecond()
    encoder = pipe.backend.vision
    assert isinstance(encoder, ScriptedVision)
    answer = pipe.generate([], "Is a car behind us?", BRIEF)
    assert (answer.cameras, answer.tokens.visual, answer.reuse, encoder.runs) == ((), 0, Reuse(), 0)
    prompt = pipe.tokenizer.decode([token for token, _, _ in text_of(pipe).cache.rows[: answer.tokens.prompt]])
    assert prompt.endswith("user\nIs a car behind us?\nassistant\n")
    assert answer.text == pipeline().generate([], "Is a car behind us?", BRIEF).text
    again = pipe.generate([], "Why?", BRIEF)
    assert again.reuse == Reuse(0, len(pipe.encode([]).prefix.ids))
    seen = pipe.generate([view(frame=1)], "What?", BRIEF)
    assert seen.reuse == Reuse(0, len(pipe.encode([]).prefix.ids)), "the system prompt, up to the first image"
    assert pipe.generate([], "Why?", BRIEF).text == again.text == pipeline().generate([], "Why?", BRIEF).text


def test_views_may_be_one_picture_whose_frames_are_kept() -> None:
    pipe = pipeline(config={"stitch_views": True, **SELECTING})
    views = [view("back", 1, frame=1), view("front", 2, frame=2)]
    assert isinstance(pipe.backend.vision, ScriptedVision)
    answer = pipe.generate(views, "What is there?", BRIEF)
    assert (answer.cameras, answer.tokens.visual, pipe.backend.vision.tiles) == (("front", "back"), 4, 1)
    again = pipe.generate(views, "Is it red?", BRIEF)
    assert again.reuse == Reuse(2, len(pipe.encode(views).prefix.ids))
    newer = [views[0], view("front", 3, frame=3)]
    changed = pipe.generate(newer, "Is it red?", BRIEF)
    assert changed.reuse.views == 0
    plain = pipeline(config={"stitch_views": True, "reuse": ReuseConfig(0)})
    assert changed.text == plain.generate(newer, "Is it red?", BRIEF).text != again.text
    assert pipe.generate(views, "Is a car behind us?", BRIEF).cameras == ("back",), "view selection comes first"


def test_a_view_label_takes_the_place_of_the_familys() -> None:
    pipe = pipeline(config={"view_label": "{camera} is Image {index}: "})
    answer = pipe.generate([view("front_left"), view("back", 1)], "What?", BRIEF)
    prompt = [token for token, _, _ in text_of(pipe).cache.rows[: answer.tokens.prompt] if token < V]
    shown = pipe.tokenizer.decode(prompt)
    assert shown.endswith("user\nfront left is Image 1: \nback is Image 2: \nWhat?\nassistant\n")


# --- reuse of frames


def fresh(views: list[View], question: str) -> str:
    return pipeline(config={"reuse": ReuseConfig(0)}).generate(views, question, BRIEF).text


def test_a_question_on_the_captioned_frame_pays_neither_vision_nor_image_prefill() -> None:
    pipe = pipeline()
    seen = view(shade=3, frame=1)
    caption = pipe.generate([seen], "Describe.", BRIEF)
    answer = pipe.generate([seen], "What is there?", BRIEF)
    assert isinstance(pipe.backend.vision, ScriptedVision)
    assert pipe.backend.vision.runs == 1
    assert answer.timings.preprocess == 0
    prefix = len(pipe.encode([seen]).prefix.ids)
    assert (caption.reuse, answer.reuse) == (Reuse(0, 0), Reuse(1, prefix))
    assert text_of(pipe).counts[caption.tokens.generated] == answer.tokens.prompt - prefix
    assert answer.text == fresh([seen], "What is there?")
    assert answer.tokens.visual == 4


def test_the_cache_is_used_up_to_the_first_other_picture() -> None:
    pipe = pipeline()
    cameras = ("front", "left", "right")
    old = [view(camera, shade, frame=shade) for shade, camera in enumerate(cameras)]
    pipe.generate(old, "What?", BRIEF)
    starts = np.flatnonzero(pipe.encode(old).prefix.ids >= V)[::4]
    for changed in (2, 1, 0):
        views = [view(view_.camera, 9 + changed, frame=9 + changed) if place == changed else view_
                 for place, view_ in enumerate(old)]  # fmt: skip
        pipe.generate(old, "What?", BRIEF)
        answer = pipe.generate(views, "Is it red?", BRIEF)
        assert answer.reuse == Reuse(2, int(starts[changed]))
        assert answer.text == fresh(views, "Is it red?")


@pytest.mark.parametrize("frames", [0, 1, 8])
def test_any_order_of_frames_and_cameras_gives_the_answers_of_fresh_runs(frames: int) -> None:
    pipe = pipeline(config={"reuse": ReuseConfig(frames)})
    a, b, c = view("front", 1, frame=1), view("back", 2, frame=2), view("front", 3, frame=3)
    unnamed, same_shade = view("front", 1), view("left", 1, frame=1)
    order = [[a], [a, b], [a, b], [c, b], [b], [b, c], [a], [unnamed], [a, unnamed], [same_shade], [a], [same_shade, b]]
    for views in [*order, *reversed(order)]:
        assert pipe.generate(views, "What?", BRIEF).text == fresh(views, "What?")


def test_the_system_prompt_is_read_once() -> None:
    pipe = pipeline()
    pipe.generate([view(shade=1)], "What?", BRIEF)
    reuse = pipe.generate([view(shade=2)], "What?", BRIEF).reuse
    assert reuse == Reuse(0, int(np.argmax(pipe.encode([view()]).prefix.ids >= V)))
    assert pipeline(config={"reuse": ReuseConfig(0)}).generate([view()], "What?", BRIEF).reuse == Reuse()


def test_without_reuse_each_frame_is_encoded_and_read_anew() -> None:
    pipe = pipeline(config={"reuse": ReuseConfig(0)})
    for _ in range(2):
        answer = pipe.generate([view(frame=1)], "What?", BRIEF)
        assert answer.reuse == Reuse()
        assert answer.timings.preprocess > 0


def test_a_failing_prefill_behind_a_shared_beginning_harms_no_later_answer() -> None:
    pipe = pipeline()
    first, second = [view(shade=1, frame=1)], [view(shade=1, frame=1), view("back", 2, frame=2)]
    pipe.generate(second, "What?", BRIEF)

    def fail(count: int) -> None:
        text_of(pipe).before_run = lambda count: None
        raise EngineError("once")

    for views in (first, second, [view(shade=5, frame=5)]):
        text_of(pipe).before_run = fail
        with pytest.raises(EngineError, match="once"):
            pipe.generate(views, "What?", BRIEF)
        assert pipe.generate(second, "What?", BRIEF).text == fresh(second, "What?")


# --- speculation


def speculating(source: str = "ngram") -> Pipeline:
    pipe = pipeline(config={"speculation": SpeculationConfig(source)})
    if pipe.speculator is not None:  # every draft is worth verifying where time does not pass
        pipe.speculator = Speculator(pipe.backend.text, NGramDrafts(), 15, clock=lambda: 0.0)
    return pipe


def test_a_caption_like_the_previous_one_is_read_in_a_few_calls() -> None:
    pipe = speculating()
    say(pipe, "a red car on the left, a blue van ahead", END)
    first = pipe.generate([view()], "Describe.")
    again = pipe.generate([view(shade=1)], "Describe.")
    assert again.text == first.text
    assert again.speculation.accepted == again.speculation.drafted >= 10
    assert again.speculation.acceptance > 0.5
    text_of(pipe).counts.clear()
    say(pipe, "a red car on the left, a green bus ahead", END)
    changed = pipe.generate([view(shade=2)], "Describe.")
    assert changed.text == "a red car on the left, a green bus ahead"
    assert 0 < changed.speculation.accepted < changed.speculation.drafted
    assert len(text_of(pipe).counts) < changed.tokens.generated
    assert pipe.generate([view("back")], "Describe.").speculation.accepted < changed.speculation.accepted


def test_answers_are_those_without_speculation() -> None:
    plain, pipe = speculating("off"), speculating()
    for shade in range(3):
        for question in ("What?", "Is a red car ahead?", "What?"):
            sampling = SamplingConfig(max_new_tokens=1 + 9 * shade)
            expected = plain.generate([view(shade=shade)], question, sampling)
            answer = pipe.generate([view(shade=shade)], question, sampling)
            assert (answer.text, answer.tokens, answer.finish_reason) == (
                expected.text, expected.tokens, expected.finish_reason
            )  # fmt: skip
            assert expected.speculation == Speculation()


def test_sampled_answers_are_not_drafted() -> None:
    pipe, plain = speculating(), speculating("off")
    sampling = SamplingConfig(20, temperature=3.0, seed=1)
    for _ in range(2):
        answer = pipe.generate([view()], "What?", sampling)
        assert answer.speculation == Speculation()
        assert answer.text == plain.generate([view()], "What?", sampling).text


def test_a_cancelled_answer_is_no_draft() -> None:
    pipe = speculating()
    cancel = threading.Event()
    pipe.generate([view()], "What?", BRIEF, on_text=lambda piece, tokens: cancel.set(), cancel=cancel)
    assert pipe.generate([view()], "What?", BRIEF).speculation.accepted == 0


# --- cancelling and failing


def test_cancel_between_tokens() -> None:
    pipe = pipeline()
    cancel = threading.Event()
    pieces: list[str] = []

    def on_text(piece: str, tokens: int) -> None:
        pieces.append(piece)
        if len(pieces) == 3:
            cancel.set()

    say(pipe, "abc def ghi jkl", END)
    answer = pipe.generate([view()], "What?", on_text=on_text, cancel=cancel)
    assert answer.finish_reason is FinishReason.CANCELLED
    assert len(pieces) == 3
    assert answer.text == "".join(pieces)
    assert answer.text
    assert "abc def ghi jkl".startswith(answer.text)


def test_cancelled_before_it_starts() -> None:
    pipe = pipeline()
    cancel = threading.Event()
    cancel.set()
    answer = pipe.generate([view()], "What?", cancel=cancel)
    assert (answer.finish_reason, answer.text, answer.tokens.generated) == (FinishReason.CANCELLED, "", 0)
    assert text_of(pipe).counts == []


def same_as_fresh(pipe: Pipeline, encoded: Any) -> bool:
    fresh = pipeline().generate([view()], "What now?", BRIEF)
    return pipe.answer(encoded, "What now?", BRIEF).text == fresh.text


def test_an_exception_in_the_callback_passes_through_and_harms_nothing() -> None:
    pipe = pipeline()
    encoded = pipe.encode([view()])
    count = 0

    def fail(piece: str, tokens: int) -> None:
        nonlocal count
        count += 1
        if count == 4:
            raise RuntimeError("listener gone")

    with pytest.raises(RuntimeError, match="listener gone"):
        pipe.answer(encoded, "What?", on_text=fail)
    assert same_as_fresh(pipe, encoded)


@pytest.mark.parametrize("failing_run", [0, 1, 5])
@pytest.mark.parametrize("earlier_answer", [False, True])
def test_a_failing_engine_harms_no_later_answer(failing_run: int, earlier_answer: bool) -> None:
    pipe = pipeline()
    encoded = pipe.encode([view()])
    if earlier_answer:
        pipe.answer(encoded, "What?", BRIEF)
    runs = 0

    def fail(count: int) -> None:
        nonlocal runs
        runs += 1
        if runs == failing_run + 1:
            raise EngineError("out of memory")

    text_of(pipe).before_run = fail
    with pytest.raises(EngineError, match="out of memory"):
        pipe.answer(encoded, "What?", BRIEF)
    assert same_as_fresh(pipe, encoded)


def test_failed_prefill_of_other_views_does_not_leave_a_wrong_prefix() -> None:
    pipe = pipeline()
    encoded, other = pipe.encode([view()]), pipe.encode([view(shade=200)])
    pipe.answer(encoded, "What?", BRIEF)

    def fail(count: int) -> None:
        text_of(pipe).before_run = lambda count: None
        raise EngineError("once")

    text_of(pipe).before_run = fail
    with pytest.raises(EngineError):
        pipe.answer(other, "What?", BRIEF)
    assert same_as_fresh(pipe, encoded)


# --- token selection


class EverySecond:
    def select(self, visual: Any) -> Selection:
        places = np.arange(0, visual.count, 2)
        return Selection(Sights(tuple(visual.rows[place] for place in places)), places)


def selecting(**settings: Any) -> Pipeline:
    pipe = pipeline(**settings)
    pipe.token_selector = EverySecond()
    return pipe


def test_what_is_dropped_leaves_a_gap_and_nothing_else_moves() -> None:
    whole, pipe = pipeline(), selecting()
    views = [view("front", frame=1), view("back", 9, frame=2)]
    everything, answer = (each.generate(views, "What?", BRIEF) for each in (whole, pipe))
    visual = [row for row in text_of(whole).cache.rows if row[0] >= V]
    dropped = {position for _, position, _ in visual[1::2]}
    prompt = [row for row in text_of(whole).cache.rows[: everything.tokens.prompt] if row[1] not in dropped]
    rows = text_of(pipe).cache.rows
    assert [row[1:] for row in rows[: len(prompt)]] == [row[1:] for row in prompt]
    assert [token for token, _, _ in rows if token >= V] == [V, V + 1, V + 2, V + 3]
    assert [position for _, position, _ in rows[len(prompt) :]] == list(
        range(everything.tokens.prompt, everything.tokens.prompt + 11)
    )
    assert (answer.tokens.prompt, answer.tokens.visual) == (everything.tokens.prompt - 4, 4)
    assert 0 < answer.timings.select < answer.timings.total


def test_selected_tokens_are_reused_up_to_the_first_other_picture() -> None:
    pipe = selecting()
    front, back, other = view("front", frame=1), view("back", 9, frame=2), view("back", 5, frame=3)
    pipe.generate([front, back], "What?", BRIEF)
    again = pipe.generate([front, back], "Where?", BRIEF)
    assert again.reuse == Reuse(2, len(pipe.encode([front, back]).prefix.ids))
    changed = pipe.generate([front, other], "Where?", BRIEF)
    starts = np.flatnonzero(pipe.encode([front, other]).prefix.ids >= V)
    assert changed.reuse == Reuse(1, int(starts[2]))
    assert changed.text == selecting().generate([front, other], "Where?", BRIEF).text


def test_another_selector_between_questions_reads_what_it_keeps() -> None:
    pipe = selecting()
    views = [view("front", frame=1)]
    pipe.generate(views, "What?", BRIEF)
    pipe.token_selector = None
    answer = pipe.generate(views, "What?", BRIEF)
    assert answer.text == pipeline().generate(views, "What?", BRIEF).text
    assert answer.tokens.visual == 4


def test_room_is_counted_in_rows_but_positions_end_too() -> None:
    views = [view(f"camera_{index}") for index in range(6)]
    tokens = pipeline().generate(views, "What?", SamplingConfig(1)).tokens.prompt
    with pytest.raises(ContextOverflowError):
        pipeline(capacity=tokens - 5).generate(views, "What?", BRIEF)
    answer = selecting(capacity=tokens - 5).generate(views, "What?", SamplingConfig(50))
    assert (answer.tokens.prompt, answer.tokens.generated) == (tokens - 12, 7)
    text = TextConfig(48, 80, 3, 6, 2, 8, 1e-6, 1e6, V, False, max_position_embeddings=tokens + 3)
    answer = selecting(text=text).generate(views, "What?", SamplingConfig(50))
    assert answer.tokens.generated == 3


def test_a_backend_without_token_selection_says_so() -> None:
    with pytest.raises(ConfigError, match="token_selection is 'random'; allowed on this backend: 'off'"):
        pipeline(config={"token_selection": TokenSelectionConfig("random")})


# --- limits


def test_a_prompt_that_fills_the_context_is_refused_with_figures_and_remedies() -> None:
    views = [view(f"camera_{index}") for index in range(6)]
    pipe = pipeline(capacity=100, config={"max_context": 100})
    with pytest.raises(ContextOverflowError) as caught:
        pipe.generate(views, "What is there?")
    encoded = pipe.encode(views)
    needed = pipeline().answer(encoded, "What is there?", SamplingConfig(1)).tokens.prompt
    message = str(caught.value)
    assert f"needs {needed} tokens (24 of them visual tokens of 6 views" in message
    assert "max_context is 100" in message
    for remedy in ("fewer views", "max_tiles (now 1)", "shorter question", "larger max_context"):
        assert remedy in message
    assert text_of(pipe).counts == []


def test_the_answer_may_fill_the_context_to_the_last_token() -> None:
    full = pipeline().generate([view()], "What?", SamplingConfig(1)).tokens.prompt
    for room in (0, 1, 4):
        pipe = pipeline(capacity=full + room)
        if room == 0:
            with pytest.raises(ContextOverflowError):
                pipe.generate([view()], "What?", SamplingConfig(50))
            continue
        answer = pipe.generate([view()], "What?", SamplingConfig(50))
        assert (answer.tokens.generated, answer.finish_reason) == (room, FinishReason.LENGTH)


def test_empty_requests_are_refused() -> None:
    pipe = pipeline()
    for views in ([view()], []):
        for question in ("", " \n"):
            with pytest.raises(ConfigError, match="the question is empty"):
                pipe.generate(views, question)


def test_answers_have_no_white_space_around_them() -> None:
    pipe = pipeline()
    say(pipe, " \n a red  car\n\n", END)
    pieces: list[str] = []
    answer = pipe.generate([view()], "What?", on_text=lambda piece, tokens: pieces.append(piece))
    assert answer.text == "".join(pieces) == "a red  car"
    assert answer.tokens.generated == len(pipe.tokenizer.encode(" \n a red  car\n\n"))


def test_a_bad_image_names_its_camera() -> None:
    pipe = pipeline()
    with pytest.raises(ImageError, match=r"^back: the image is float64"):
        pipe.generate([view(), View("back", np.zeros((4, 4, 3)))], "What?")  # type: ignore[arg-type]
    assert pipe.generate([view()], "What?", BRIEF).text


def test_tiles_are_refused_where_the_model_takes_views_whole() -> None:
    with pytest.raises(ConfigError, match=r"max_tiles is 2; allowed: 1, as this model sees each view whole"):
        pipeline(config={"max_tiles": 2}, max_dynamic_tiles=1)


def test_a_missing_model_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        Pipeline.from_config(PipelineConfig(tmp_path / "nowhere"))


def test_a_backend_that_was_loaded_in_vain_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    backend = replace(make_backend(V, 4, 512, WORDS), close=lambda: closed.append("backend"))
    monkeypatch.setattr("litevlm_ros.pipeline.load_backend", lambda config, model: backend)
    monkeypatch.setattr(ModelConfig, "from_directory", lambda directory: model(max_dynamic_tiles=1))
    monkeypatch.setattr(TextTokenizer, "from_directory", lambda directory: TextTokenizer(RAW, [END]))
    with pytest.raises(ConfigError, match="max_tiles is 2"):
        Pipeline.from_config(PipelineConfig(Path("model"), max_tiles=2))
    assert closed == ["backend"]
    assert Pipeline.from_config(PipelineConfig(Path("model"), max_tiles=1)).backend is backend
    assert closed == ["backend"]
