from __future__ import annotations

import numpy as np
from scripted_backend import make_backend

from litevlm_ros.lab.evaluation.replay import ReplayingDecoder
from litevlm_ros.text.drafts import NGramDrafts
from litevlm_ros.text.speculator import Speculator

WORDS = range(10, 30)
ANSWER = [11, 12, 13, 14, 11, 12, 13, 14, 2]


def decoder() -> ReplayingDecoder:
    return ReplayingDecoder(make_backend(40, 4, 200, WORDS).text)


def test_it_says_the_answer_step_by_step_while_the_other_reads() -> None:
    text = decoder()
    for prompt in (6, 9):
        text.cache.truncate(0)
        text.say(ANSWER)
        # Positions have a gap, as where visual tokens were dropped.
        first = text.forward(np.arange(10, 10 + prompt), np.array([*range(prompt - 1), 20]))
        assert first.next_tokens.tolist() == ANSWER[:1]
        assert first.logits().shape == (1, 40)
        second = text.forward(np.array(ANSWER[:1]), np.array([21]))
        assert second.next_tokens.tolist() == ANSWER[1:2]
        assert text.cache.length == prompt + 1
        assert list(text.decode_greedy(ANSWER[1], 22, 9)) == [*ANSWER[2:], 2, 2]


def test_drafts_are_right_where_they_are_the_answers_tokens() -> None:
    text = decoder()
    text.say(ANSWER)
    text.forward(np.arange(10, 16), np.arange(6))
    checked = text.forward(np.array([11, 12, 29, 28]), np.array([6, 7, 8, 9]), num_logits=4)
    assert checked.next_tokens.tolist() == ANSWER[1:5]


def test_speculation_comes_to_the_same_answer() -> None:
    text = decoder()
    speculator = Speculator(text, NGramDrafts(), 4)
    for _ in range(2):
        text.cache.truncate(0)
        text.say(ANSWER)
        speculator.begin([10, 15], topic="the same")
        first = speculator.start(text.forward(np.array([10, 15]), np.array([0, 1])))
        said = [first]
        for token in speculator.decode(first, 2, 20):
            said.append(token)
            if token == 2:
                break
        speculator.finish(complete=True)
        assert said == ANSWER


def test_the_rest_is_the_other_decoders() -> None:
    backend = make_backend(40, 4, 200, WORDS)
    text = ReplayingDecoder(backend.text)
    text.prepare([1, 2])
    assert backend.text.prepared == (1, 2)
    assert (text.most_logits, text.gives_hidden) == (16, False)
    assert text.cache is backend.text.cache
