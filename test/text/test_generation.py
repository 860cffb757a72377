from __future__ import annotations

from tiny_tokenizer import make_tokenizer

from litevlm_ros.text.generation import Generation
from litevlm_ros.text.tokenizer import Detokenizer, TextTokenizer
from litevlm_ros.types import FinishReason


def test_text_grows_by_whole_characters_and_is_told_with_the_tokens_so_far() -> None:
    tokenizer = TextTokenizer(make_tokenizer())
    told: list[tuple[str, int]] = []
    generation = Generation(Detokenizer(tokenizer), lambda piece, tokens: told.append((piece, tokens)))
    tokens = tokenizer.encode("a 車")
    for token in tokens:
        generation.add(token)
    assert generation.finish_reason is FinishReason.LENGTH
    generation.finish(FinishReason.STOP)
    assert (generation.text, generation.tokens, generation.finish_reason) == ("a 車", tokens, FinishReason.STOP)
    assert "".join(piece for piece, _ in told) == "a 車"
    assert told[-1][1] == len(tokens)
