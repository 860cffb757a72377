from __future__ import annotations

from litevlm_ros.text.drafts import LONGEST_MATCH, Draft, NGramDrafts


def drafts(prompt: list[int], *said: int, topic: str = "front") -> NGramDrafts:
    source = NGramDrafts()
    tell(source, prompt, *said, topic=topic)
    return source


def tell(source: NGramDrafts, prompt: list[int], *said: int, topic: str = "front") -> None:
    source.begin(prompt, topic)
    for token in said:
        source.add(token)


def test_what_followed_the_same_words_in_the_prompt_is_drafted() -> None:
    source = drafts([1, 2, 3, 4, 5, 6], 9, 2, 3)
    assert source.draft(8) == Draft((4, 5, 6, 9, 2, 3), 2)
    assert source.draft(2) == Draft((4, 5), 2)


def test_the_answer_itself_is_looked_in_and_its_end_does_not_match_itself() -> None:
    assert drafts([1], 7, 8, 9, 7, 8).draft(8) == Draft((9, 7, 8), 2)
    assert drafts([1], 7, 8).draft(8) == Draft()


def test_longer_matches_come_first_and_later_ones_among_equals() -> None:
    prompt = [5, 6, 10, 0, 6, 11, 0, 6, 12]
    assert drafts(prompt, 5, 6).draft(1) == Draft((10,), 2)
    assert drafts(prompt, 9, 6).draft(1) == Draft((12,), 1)


def test_no_room_no_draft() -> None:
    assert drafts([1, 2, 1], 2).draft(0) == Draft()
    assert NGramDrafts().draft(4) == Draft()


def test_the_first_word_of_an_answer_finds_the_previous_one_of_its_topic() -> None:
    prompt = [101, 102, 103, 104, 105]
    source = drafts(prompt, 7, 8, 9, 10, 0)
    source.remember()
    tell(source, prompt, 7)
    assert source.draft(15) == Draft((8, 9, 10, 0), LONGEST_MATCH)
    tell(source, prompt, 6)
    assert source.draft(15) == Draft()
    tell(source, prompt, 6, 9)
    assert source.draft(15) == Draft((10, 0), 1)
    tell(source, prompt, 7, topic="back")
    assert source.draft(15) == Draft()


def test_the_previous_answer_comes_before_the_prompt() -> None:
    source = drafts([3, 4], 3, 5, 6)
    source.remember()
    tell(source, [8, 3, 4], 3)
    assert source.draft(1) == Draft((5,), 3)


def test_an_answer_that_was_not_remembered_is_not_drafted() -> None:
    source = drafts([1], 7, 8, 9)
    tell(source, [1], 7)
    assert source.draft(15) == Draft()


def test_topics_are_forgotten_in_their_order() -> None:
    source = NGramDrafts()
    for topic in range(100):
        tell(source, [1], 7, topic, topic=str(topic))
        source.remember()
    tell(source, [1], 7, topic="0")
    assert source.draft(1) == Draft()
    tell(source, [1], 7, topic="99")
    assert source.draft(1) == Draft((99,), 2)
