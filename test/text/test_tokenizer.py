from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizer import SPECIAL_TOKENS, make_tokenizer, write_tokenizer
from tokenizers import Tokenizer, decoders, models

from litevlm_ros.errors import CheckpointError
from litevlm_ros.text.tokenizer import REGION_MARKS, GrowingAnswer, TextTokenizer
from litevlm_ros.types import FinishReason

RAW = make_tokenizer()
TOKENIZER = TextTokenizer(RAW)
SIZE = RAW.get_vocab_size()
SPECIAL_IDS = {RAW.token_to_id(token) for token in SPECIAL_TOKENS}


@given(st.text())
def test_text_comes_back(text: str) -> None:
    tokenizer = TextTokenizer(RAW)
    ids = tokenizer.encode(text)
    assert tokenizer.encode(tokenizer.decode(ids)) == ids
    if text.isascii():
        assert tokenizer.decode(ids) == text


@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, " ", "a", "\n", "<", "|im_end|>"])).map("".join))
def test_nobody_can_write_a_special_token(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert SPECIAL_IDS.isdisjoint(ids)
    assert TOKENIZER.decode(ids) == text


def test_tokens_that_are_added_but_not_special_cannot_be_written_either(tmp_path: Path) -> None:
    raw = make_tokenizer()
    raw.add_tokens(["<tool_call>"])
    tokenizer = TextTokenizer(raw)
    assert raw.encode("<tool_call>").ids == [SIZE]
    assert SIZE not in tokenizer.encode("<tool_call>")


def test_broken_unicode_is_text_too() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud800b")) == "a?b"


def stream(ids: list[int]) -> list[tuple[str, int]]:
    """The pieces of an answer, each with the number of tokens by then."""
    told: list[tuple[str, int]] = []
    answer = GrowingAnswer(TOKENIZER, lambda piece, tokens: told.append((piece, tokens)))
    for token in ids:
        answer.add(token)
    assert answer.finish_reason is FinishReason.LENGTH
    answer.finish(FinishReason.STOP)
    assert answer.text == "".join(piece for piece, _ in told)
    assert (answer.tokens, answer.finish_reason) == (ids, FinishReason.STOP)
    return told


@settings(max_examples=300)
@given(st.lists(st.integers(0, SIZE - 1), max_size=40))
def test_pieces_of_any_tokens_add_up_to_the_whole(ids: list[int]) -> None:
    assert "".join(piece for piece, _ in stream(ids)) == TOKENIZER.decode(ids).strip()


@given(st.text())
def test_no_piece_holds_part_of_a_character(text: str) -> None:
    whole = TOKENIZER.decode(TOKENIZER.encode(text)).strip()
    pieces = [piece for piece, _ in stream(TOKENIZER.encode(text))]
    assert "".join(pieces) == whole
    if "\ufffd" not in whole:
        assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_of_many_tokens_comes_at_once() -> None:
    ids = TOKENIZER.encode("車")
    assert len(ids) == 3
    assert stream(ids) == [("車", 3)]
    assert stream(ids[:2]) == [("\ufffd", 2)]
    assert stream([*TOKENIZER.encode("a "), *ids])[-1] == (" 車", len(TOKENIZER.encode("a ")) + 3)


@given(st.lists(st.sampled_from(["a", "b!", " ", "\n", "\t", "\u3000", "\xa0", "車"])).map("".join))
def test_white_space_is_told_with_what_follows_it_and_never_around_the_text(text: str) -> None:
    pieces = [piece for piece, _ in stream(TOKENIZER.encode(text))]
    assert "".join(pieces) == text.strip()
    assert not any(piece != piece.rstrip() for piece in pieces)


def test_a_text_of_white_space_alone_is_empty() -> None:
    assert stream(TOKENIZER.encode(" \n\n ")) == []


def test_stop_ids_come_from_all_files(tmp_path: Path) -> None:
    write_tokenizer(RAW, tmp_path / "text_decoder")
    tokenizer = TextTokenizer.from_directory(tmp_path)
    assert tokenizer.stop_ids == {RAW.token_to_id("<|im_end|>"), RAW.token_to_id("<|endoftext|>")}
    (tmp_path / "text_decoder/generation_config.json").write_text('{"eos_token_id": 7}')
    (tmp_path / "text_decoder/tokenizer_config.json").write_text('{"eos_token": "<img>"}')
    ends = {7, RAW.token_to_id("<img>"), RAW.token_to_id("<|im_end|>")}
    assert TextTokenizer.from_directory(tmp_path).stop_ids == ends
    (tmp_path / "text_decoder/generation_config.json").unlink()
    (tmp_path / "text_decoder/tokenizer_config.json").unlink()
    assert TextTokenizer.from_directory(tmp_path).stop_ids == {RAW.token_to_id("<|im_end|>")}


def write_old_files(directory: Path) -> Path:
    """vocab.json, merges.txt and tokenizer_config.json, as InternVL2-1B has them."""
    text = directory / "text_decoder"
    text.mkdir()
    model = json.loads(RAW.to_str())["model"]
    words = {word: number for word, number in model["vocab"].items() if word not in SPECIAL_TOKENS}
    # The special tokens' ids come last, as in Qwen2.
    words = {word: number for number, word in enumerate(sorted(words, key=words.__getitem__))}
    (text / "vocab.json").write_text(json.dumps(words))
    (text / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"]))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = {str(len(words) + index): {"content": token, **flags} for index, token in enumerate(SPECIAL_TOKENS)}
    settings_ = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "added_tokens_decoder": added}
    (text / "tokenizer_config.json").write_text(json.dumps(settings_))
    return text


TEXTS = [
    "A red car, 12 vans!",
    "  two\n\nlines \t",
    "I'll don't",
    "車が走る",
    "naïve café",
    "e\u0301",
    "x=3*(y+2)//7",
    "",
]


def test_vocabulary_and_merges_are_enough(tmp_path: Path) -> None:
    text = write_old_files(tmp_path)
    tokenizer = TextTokenizer.from_directory(tmp_path)
    words = len(json.loads((text / "vocab.json").read_text()))
    assert tokenizer.special("<|endoftext|>") == words
    assert tokenizer.stop_ids == {tokenizer.special("<|im_end|>")}
    assert tokenizer.decode([*tokenizer.encode("a red car"), tokenizer.special("<|im_end|>")]) == "a red car"


def test_vocabulary_and_merges_give_what_transformers_gives(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    text = write_old_files(tmp_path)
    theirs = transformers.Qwen2TokenizerFast.from_pretrained(text)
    ours = TextTokenizer.from_directory(tmp_path)
    for sample in TEXTS:
        assert ours.encode(sample) == theirs(sample)["input_ids"], sample


def test_wrong_ids_of_special_tokens_are_noticed(tmp_path: Path) -> None:
    text = write_old_files(tmp_path)
    config = json.loads((text / "tokenizer_config.json").read_text())
    added = config["added_tokens_decoder"]
    config["added_tokens_decoder"] = {str(int(number) + 1): token for number, token in added.items()}
    (text / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError, match=r"vocab\.json and tokenizer_config\.json .*about the id of <\|endoftext\|>"
    ):
        TextTokenizer.from_directory(tmp_path)


def test_a_vocabulary_without_added_tokens_is_incomplete(tmp_path: Path) -> None:
    text = write_old_files(tmp_path)
    (text / "tokenizer_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json lists no added_tokens_decoder.* vocab\.json"):
        TextTokenizer.from_directory(tmp_path)


# --- tokens that were added


MARKS = {SIZE + index: mark for index, mark in enumerate((*REGION_MARKS, "<tool_call>"))}


def write_incomplete(directory: Path, added: dict[int, str], **more: Any) -> Path:
    """tokenizer.json without tokens that tokenizer_config.json lists as added."""
    text = directory / "text_decoder"
    write_tokenizer(RAW, text)
    tokens = {str(number): {"content": token, "special": token != "<tool_call>"} for number, token in added.items()}
    (text / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": tokens, **more}))
    return text


def test_tokens_that_tokenizer_json_lacks_are_completed(tmp_path: Path) -> None:
    specials = {RAW.token_to_id(token): token for token in SPECIAL_TOKENS}
    write_incomplete(tmp_path, {**specials, **MARKS})
    tokenizer = TextTokenizer.from_directory(tmp_path)
    assert [tokenizer.special(mark) for mark in MARKS.values()] == list(MARKS)
    assert tokenizer.encode_question("a<box>b</box>") == [
        *TOKENIZER.encode("a"), tokenizer.special("<box>"), *TOKENIZER.encode("b"), tokenizer.special("</box>")
    ]  # fmt: skip


def test_completing_gives_what_transformers_gives(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    text = write_incomplete(tmp_path, MARKS)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(text)
    ours = TextTokenizer.from_directory(tmp_path)
    assert {mark: ours.special(mark) for mark in MARKS.values()} == {
        mark: theirs.convert_tokens_to_ids(mark) for mark in MARKS.values()
    }
    question = "Where is <ref>the red car</ref> in <quad>[[1,2]]</quad>?"
    assert ours.encode_question(question) == theirs(question)["input_ids"]


@pytest.mark.parametrize("added", [{SIZE + 1: "<ref>"}, {5: "<ref>"}, {0: "<img>"}])
def test_other_ids_are_named_with_both_files(tmp_path: Path, added: dict[int, str]) -> None:
    text = write_incomplete(tmp_path, added)
    [token] = added.values()
    with pytest.raises(CheckpointError) as caught:
        TextTokenizer.from_directory(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{text / 'tokenizer.json'} and tokenizer_config.json beside it disagree")
    assert f"the id of {token}: " in message
    assert "Take both files from the same checkpoint" in message


# --- which tokens answers keep


NAMED = ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]


def slow_decode(ids: list[int], named: set[str], tokens: dict[int, str]) -> str:
    """transformers 4.37's Qwen2Tokenizer with skip_special_tokens: ids of named tokens go, all others are text."""
    return "".join(
        tokens.get(number) or TOKENIZER.decode([number]) for number in ids if tokens.get(number) not in named
    )


@pytest.mark.parametrize("keeps", [True, False])
def test_answers_keep_the_added_tokens_that_the_checkpoint_does_not_name(tmp_path: Path, keeps: bool) -> None:
    named = [*NAMED, *([] if keeps else REGION_MARKS)]
    write_incomplete(tmp_path, MARKS, eos_token="<|im_end|>", additional_special_tokens=named, pad_token=None)
    tokenizer = TextTokenizer.from_directory(tmp_path)
    tokens = {**MARKS, **{RAW.token_to_id(token): token for token in SPECIAL_TOKENS}}
    ids = [*TOKENIZER.encode("See "), *tokens, *TOKENIZER.encode(" there")]
    assert tokenizer.decode(ids) == slow_decode(ids, {*named, "<|endoftext|>"}, tokens)
    assert ("<box></box>" in tokenizer.decode(ids)) == keeps
    assert "<tool_call>" in tokenizer.decode(ids)


def test_special_tokens_map_counts_where_nothing_was_added(tmp_path: Path) -> None:
    text = write_old_files(tmp_path)
    names = {"additional_special_tokens": [{"content": "<img>"}]}
    (text / "special_tokens_map.json").write_text(json.dumps(names))
    slow = TextTokenizer.from_directory(tmp_path)
    assert slow.decode([slow.special(token) for token in SPECIAL_TOKENS]) == "<|im_start|><IMG_CONTEXT><img></img>"
    write_tokenizer(RAW, text)
    fast = TextTokenizer.from_directory(tmp_path)
    assert fast.decode([fast.special(token) for token in SPECIAL_TOKENS]) == "<|im_start|><IMG_CONTEXT></img>"


def test_tokenizer_json_decides_where_the_checkpoint_names_none(tmp_path: Path) -> None:
    specials = {RAW.token_to_id(token): token for token in SPECIAL_TOKENS}
    write_incomplete(tmp_path, {**specials, **MARKS})
    tokenizer = TextTokenizer.from_directory(tmp_path)
    assert tokenizer.decode([*specials, *MARKS]) == "<tool_call>"


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"text_decoder has no tokenizer\.json, nor vocab\.json and merges\.txt"):
        TextTokenizer.from_directory(tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_tokenizer(RAW, tmp_path / "text_decoder")
    (tmp_path / "text_decoder/tokenizer.json").write_text('{"version"')
    with pytest.raises(CheckpointError, match=r"text_decoder is damaged: .*Download the model again"):
        TextTokenizer.from_directory(tmp_path)


def test_other_kinds_of_tokenizers_are_refused() -> None:
    other = Tokenizer(models.BPE())
    other.decoder = decoders.Metaspace()
    with pytest.raises(CheckpointError, match="not a byte-level one"):
        TextTokenizer(other)


def test_missing_special_tokens_are_named() -> None:
    with pytest.raises(CheckpointError, match="the tokenizer has no <quad>"):
        TOKENIZER.special("<quad>")


def test_names_of_any_form_are_read(tmp_path: Path) -> None:
    names = [5, None, {}, {"content": 3}, "<img>"]
    write_incomplete(tmp_path, MARKS, additional_special_tokens=names, eos_token=names)
    tokenizer = TextTokenizer.from_directory(tmp_path)
    assert tokenizer.decode([tokenizer.special("<img>"), *TOKENIZER.encode("a")]) == "a"


@pytest.mark.parametrize("names", [5, "<img>", {"a": 1}])
def test_names_that_are_no_list_are_refused(tmp_path: Path, names: Any) -> None:
    write_incomplete(tmp_path, MARKS, additional_special_tokens=names)
    with pytest.raises(CheckpointError, match=r"additional_special_tokens in .* is not a list"):
        TextTokenizer.from_directory(tmp_path)
