from __future__ import annotations

from litevlm_ros.config import MOST_DRAFT_TOKENS
from litevlm_ros.text.drafts import LONGEST_MATCH, NGramDrafts, Offer


def look(source: NGramDrafts) -> tuple[tuple[int, ...], int]:
    """All that is drafted, and how long the match is."""
    offer = source.offer()
    tokens = tuple(source.draft(offer.most))
    assert len(tokens) == offer.most
    return tokens, offer.kind


NOTHING = ((), 0)


def drafts(prompt: list[int], *said: int, topic: str = "front") -> NGramDrafts:
    source = NGramDrafts()
    tell(source, prompt, *said, topic=topic)
    return source


def tell(source: NGramDrafts, prompt: list[int], *said: int, topic: str = "front") -> None:
    source.begin(prompt, topic)
    for token in said:
        source.add(token, None)


def test_what_followed_the_same_words_in_the_prompt_is_drafted() -> None:
    source = drafts([1, 2, 3, 4, 5, 6], 9, 2, 3)
    assert source.offer() == Offer(6, 2, guess=4)
    assert source.draft(2) == [4, 5]
    assert source.draft(6) == [4, 5, 6, 9, 2, 3]


def test_the_answer_itself_is_looked_in_and_its_end_does_not_match_itself() -> None:
    assert look(drafts([1], 7, 8, 9, 7, 8)) == ((9, 7, 8), 2)
    assert look(drafts([1], 7, 8)) == NOTHING


def test_longer_matches_come_first_and_later_ones_among_equals() -> None:
    prompt = [5, 6, 10, 0, 6, 11, 0, 6, 12]
    assert look(drafts(prompt, 5, 6))[0][0] == 10
    assert look(drafts(prompt, 9, 6))[0][0] == 12


def test_nothing_is_offered_before_an_answer() -> None:
    assert NGramDrafts().offer() == Offer()


def test_the_first_word_of_an_answer_finds_the_previous_one_of_its_topic() -> None:
    prompt = [101, 102, 103, 104, 105]
    source = drafts(prompt, 7, 8, 9, 10, 0)
    source.remember()
    tell(source, prompt, 7)
    assert look(source) == ((8, 9, 10, 0), LONGEST_MATCH)
    tell(source, prompt, 6)
    assert look(source) == NOTHING
    tell(source, prompt, 6, 9)
    assert look(source) == ((10, 0), 1)
    tell(source, prompt, 7, topic="back")
    assert look(source) == NOTHING


def test_the_previous_answer_comes_before_the_prompt() -> None:
    source = drafts([3, 4], 3, 5, 6)
    source.remember()
    tell(source, [8, 3, 4], 3)
    assert look(source) == ((5, 6), 3)


def test_an_answer_that_was_not_remembered_is_not_drafted() -> None:
    source = drafts([1], 7, 8, 9)
    tell(source, [1], 7)
    assert look(source) == NOTHING


def test_topics_are_forgotten_in_their_order() -> None:
    source = NGramDrafts()
    for topic in range(100):
        tell(source, [1], 7, topic, topic=str(topic))
        source.remember()
    tell(source, [1], 7, topic="0")
    assert look(source) == NOTHING
    tell(source, [1], 7, topic="99")
    assert look(source) == ((99,), 2)


def test_no_more_is_offered_than_a_verification_takes() -> None:
    source = drafts(list(range(100)), 7, 8)
    assert source.offer() == Offer(MOST_DRAFT_TOKENS, 2, guess=9)


def test_the_end_of_an_answer_is_not_drafted() -> None:
    prompt, end = [101, 102, 103, 104, 105], 0
    source = NGramDrafts({end})
    tell(source, prompt, 7, 8, 9, end)
    source.remember()
    tell(source, prompt, 7)
    assert look(source) == ((8, 9), LONGEST_MATCH)
    tell(source, prompt, 7, 8, 9)
    assert source.offer().guess is None
    assert look(source) == ((), LONGEST_MATCH), "it is known that the answer ends, and drafting that saves nothing"
