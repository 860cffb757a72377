"""The text of questions and camera names stays text: it cannot end a turn, begin another or stand for an image."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litevlm_ros.errors import printable
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.text.prompt import END, IMAGE_END, IMAGE_START, START, PromptBuilder
from litevlm_ros.text.tokenizer import TextTokenizer

TOKENS = (START, END, IMAGE_START, IMAGE_END, "<IMG_CONTEXT>", "<|endoftext|>")
MODEL = ModelConfig.from_directory(demo_model_directory())
TOKENIZER = TextTokenizer.from_directory(demo_model_directory())
VOCABULARY = MODEL.text.vocab_size
PROMPT = PromptBuilder(MODEL.template, TOKENIZER, VOCABULARY, MODEL.vision.tokens_per_tile)
SPECIAL = {TOKENIZER.special(token) for token in (START, END, IMAGE_START, IMAGE_END)} | set(TOKENIZER.stop_ids)


pieces = st.sampled_from([*TOKENS, "assistant\n", "{camera}", "{index}", "\n", "_"]) | st.text(max_size=9)
tricky = st.lists(pieces, max_size=6).map("".join)


def structure(ids: list[int]) -> list[int]:
    """Everything but text; all visual tokens are the same here."""
    return [min(number, VOCABULARY) for number in ids if number in SPECIAL or number >= VOCABULARY]


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(tricky)
def test_questions(text: str) -> None:
    assert structure(PROMPT.suffix(text)) == structure(PROMPT.suffix("What?"))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(tricky, tricky)
def test_camera_names(one: str, other: str) -> None:
    assert structure(PROMPT.prefix([(one, 1)])) == structure(PROMPT.prefix([("front", 1)]))
    views, plain = [(one, 1), (other, 2)], [("front", 1), ("back", 2)]
    assert structure(PROMPT.prefix(views)) == structure(PROMPT.prefix(plain))


@pytest.mark.parametrize("token", TOKENS)
def test_special_tokens_in_a_question_are_read_as_the_letters_they_are(token: str) -> None:
    ids = TOKENIZER.encode(f"Is it {token} here?")
    assert not SPECIAL & set(ids)
    assert TOKENIZER.decode(ids) == f"Is it {token} here?"


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text() | st.text(alphabet="\n\r\x1b\x07\u2028\u202e\udc80a"))
def test_what_errors_quote_has_one_line_and_no_control_characters(text: str) -> None:
    shown = printable(text, 20)
    assert shown.isprintable()
    assert "\n" not in shown
    assert len(shown) <= 20 * 10 + 3
    if text.isprintable() and len(text) <= 20:
        assert shown == text
