"""The tokenizer of a checkpoint, and the text of an answer as it grows."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from litevlm_ros.checksums import check_part
from litevlm_ros.config_json import read_config
from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_directory import TEXT
from litevlm_ros.types import FinishReason, OnText

REGION_MARKS = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")
"""The special tokens that questions and answers may contain: they stand around words and places in the image.

A question about a place may be written `What is in <box>[[100, 250, 400, 800]]</box>?`, with x1, y1, x2, y2 in
thousandths of the image's width and height. Source: arXiv 2404.16821, and the model cards of InternVL.
"""

_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern by which Qwen2 (arXiv 2407.10671) splits text before byte-pair merging.

tokenizer.json holds it; checkpoints with merges.txt do not have it anywhere.
"""

_AT_MARKS = re.compile(f"({'|'.join(REGION_MARKS)})")

_TOKENIZER, _CONFIG = "tokenizer.json", "tokenizer_config.json"

_REPLACEMENT = "\ufffd"
"""The character that incomplete UTF-8 is decoded to."""


class TextTokenizer:
    """Converts text to token ids and back. `stop_ids` are the tokens that end an answer."""

    def __init__(
        self, tokenizer: Tokenizer, stop_ids: Sequence[int] = (), skipped_ids: Collection[int] | None = None
    ) -> None:
        """`skipped_ids` are left out of answers. They default to all special tokens of `tokenizer`.

        Raises CheckpointError if `tokenizer` is not a byte-level one, as Qwen2's is.
        """
        parts = json.loads(tokenizer.to_str())
        if (parts["decoder"] or {}).get("type") != "ByteLevel":
            raise CheckpointError("the tokenizer is not a byte-level one; use the tokenizer.json of a Qwen2 checkpoint")
        self._tokenizer = tokenizer
        # A second tokenizer without special tokens, for text that people write.
        try:
            self._plain = Tokenizer.from_str(json.dumps(parts | {"added_tokens": [], "post_processor": None}))
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(f"the tokenizer is damaged: {error}. Download the model again") from error
        if skipped_ids is None:
            skipped_ids = [token["id"] for token in parts["added_tokens"] if token["special"]]
        self._skipped = frozenset(skipped_ids)
        self._marks = {mark: tokenizer.token_to_id(mark) for mark in REGION_MARKS}
        self.stop_ids = frozenset(stop_ids)

    @classmethod
    def from_directory(cls, model: str | Path) -> TextTokenizer:
        """Reads the tokenizer in `model`/text_decoder as `from_files` does, which says what is raised.

        CheckpointError is also raised if a file there is not what it was when it was made.
        """
        check_part(Path(model), TEXT)
        return cls.from_files(Path(model) / TEXT)

    @classmethod
    def from_files(cls, directory: Path) -> TextTokenizer:
        """Reads the tokenizer of a checkpoint in `directory`: tokenizer.json, or else vocab.json and merges.txt.

        Stop ids come from generation_config.json and tokenizer_config.json, and <|im_end|>, which ends every turn.
        Raises CheckpointError if a file is missing or damaged, or if two files disagree.
        """
        settings = _optional(directory / _CONFIG)
        tokenizer = _read(directory, settings)
        stop_ids = _optional(directory / "generation_config.json").get("eos_token_id", [])
        stops = list(stop_ids) if isinstance(stop_ids, list) else [stop_ids]
        stops += [tokenizer.token_to_id(token) for token in (_content(settings.get("eos_token")), "<|im_end|>")]
        return cls(
            tokenizer, [stop for stop in stops if isinstance(stop, int)], _skipped(directory, settings, tokenizer)
        )

    def encode(self, text: str) -> list[int]:
        """Returns the ids of plain text. Special tokens in it are read as text too, and broken Unicode as '?'."""
        return list(self._plain.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False).ids)

    def encode_question(self, text: str) -> list[int]:
        """Returns the ids of a question: REGION_MARKS that the tokenizer has are their tokens, all else is plain text.

        The text between two marks is encoded on its own, as every tokenizer does it around special tokens.
        """
        ids: list[int] = []
        for piece in _AT_MARKS.split(text):
            mark = self._marks.get(piece)
            ids += self.encode(piece) if mark is None else [mark]
        return ids

    def special(self, token: str) -> int:
        """Returns the id of a special token. Raises CheckpointError if the tokenizer lacks it."""
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(
                f"the tokenizer has no {token}; take {TEXT}/tokenizer.json from the same InternVL checkpoint"
            )
        return int(found)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, without the tokens that answers leave out."""
        shown = [token for token in ids if token not in self._skipped]
        return str(self._tokenizer.decode(shown, skip_special_tokens=False))


class GrowingAnswer:
    """An answer while it is decoded: its tokens, its text, and why it ended.

    The text has no white space around it, as in InternVL's `chat()`. `on_text` is called with each new piece of the
    text. A piece never holds part of a character, and the pieces add up to the text: white space comes with what
    follows it. `tokenizers.decoders.DecodeStream` gives the same pieces, but not the rest of an answer that was cut
    inside a character.
    """

    def __init__(self, tokenizer: TextTokenizer, on_text: OnText | None = None) -> None:
        self.tokens: list[int] = []
        self.text = ""
        self.finish_reason = FinishReason.LENGTH
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._pending: list[int] = []
        self._space = ""

    def add(self, token: int) -> None:
        """Appends a token. Raises whatever `on_text` raises."""
        self.tokens.append(token)
        self._pending.append(token)
        piece = self._tokenizer.decode(self._pending)
        # Byte-level tokens decode independently of each other wherever a character ends.
        if not piece.endswith(_REPLACEMENT):
            self._emit(piece)

    def finish(self, reason: FinishReason) -> None:
        """Ends the answer, with U+FFFD for a character that is incomplete. Raises whatever `on_text` raises."""
        self.finish_reason = reason
        self._emit(self._tokenizer.decode(self._pending))

    def _emit(self, piece: str) -> None:
        self._pending.clear()
        grown = self._space + piece if self.text else piece.lstrip()
        piece = grown.rstrip()
        self._space = grown[len(piece) :]
        if piece:
            self.text += piece
            if self._on_text is not None:
                self._on_text(piece, len(self.tokens))


def _read(directory: Path, settings: Mapping[str, Any]) -> Tokenizer:
    whole, vocabulary, merges = directory / _TOKENIZER, directory / "vocab.json", directory / "merges.txt"
    try:
        if whole.is_file():
            return _completed(Tokenizer.from_file(str(whole)), settings, whole)
        if vocabulary.is_file() and merges.is_file():
            return _completed(_qwen2(vocabulary, merges), settings, vocabulary)
    except CheckpointError:
        raise
    except BaseException as error:  # the library raises plain Exception, and a BaseException where it would crash
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(f"the tokenizer in {directory} is damaged: {error}. Download the model again") from error
    raise CheckpointError(
        f"{directory} has no {_TOKENIZER}, nor {vocabulary.name} and {merges.name}; copy them from the checkpoint"
    )


def _qwen2(vocabulary: Path, merges: Path) -> Tokenizer:
    """Builds Qwen2's tokenizer, without the tokens that were added to it, from the files of older checkpoints."""
    tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _completed(tokenizer: Tokenizer, settings: Mapping[str, Any], file: Path) -> Tokenizer:
    """Returns the tokenizer with the tokens that tokenizer_config.json lists as added, as transformers adds them.

    `file` is where the tokenizer comes from. Raises CheckpointError if it disagrees with tokenizer_config.json about
    the id of a token, or if a vocabulary comes without any such tokens.
    """
    added = {int(number): token for number, token in settings.get("added_tokens_decoder", {}).items()}
    if not added and file.name != _TOKENIZER:
        raise CheckpointError(
            f"{file.with_name(_CONFIG)} lists no added_tokens_decoder, which completes {file.name}; copy it from the "
            "checkpoint"
        )
    for number, token in sorted(added.items()):
        content = token["content"]
        if tokenizer.token_to_id(content) is None:
            tokenizer.add_tokens([AddedToken(**{key: token[key] for key in _ADDED_TOKEN_KEYS if key in token})])
        found = tokenizer.token_to_id(content)
        if found != number:
            raise CheckpointError(
                f"{file} and {_CONFIG} beside it disagree about the id of {content}: {found} and {number}. Take both "
                "files from the same checkpoint"
            )
    return tokenizer


_ADDED_TOKEN_KEYS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def _skipped(directory: Path, settings: Mapping[str, Any], tokenizer: Tokenizer) -> list[int] | None:
    """Returns the tokens that the original leaves out of answers; None if the checkpoint leaves it to tokenizer.json.

    InternVL decodes with `skip_special_tokens` of transformers' Qwen2Tokenizer (the slow one of 4.37, which its code
    asks for). That skips the tokens that the settings name, as eos_token and so on and as additional_special_tokens,
    whatever added_tokens_decoder calls special. special_tokens_map.json counts only where there is no
    added_tokens_decoder. Checkpoints that name no additional ones are newer, and decoded by tokenizer.json.
    """
    if "added_tokens_decoder" not in settings:
        settings = {**_optional(directory / "special_tokens_map.json"), **settings}
    additional = settings.get("additional_special_tokens")
    if not isinstance(additional, (list, type(None))):
        raise CheckpointError(f"additional_special_tokens in {directory} is not a list; copy it from the checkpoint")
    if additional is None and (directory / _TOKENIZER).is_file():
        return None
    named = [settings.get(role, default) for role, default in _NAMED_TOKENS.items()]
    found = (tokenizer.token_to_id(_content(token)) for token in [*named, *(additional or [])])
    return [number for number in found if number is not None]


_NAMED_TOKENS = {
    **dict.fromkeys(("bos_token", "sep_token", "cls_token", "mask_token"), ""),
    **dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
}
"""The special tokens that tokenizer_config.json names by what they are for, and Qwen2Tokenizer's defaults for them."""


def _optional(file: Path) -> Mapping[str, Any]:
    return read_config(file) if file.is_file() else {}


def _content(token: Any) -> str:
    """Returns the text of a token in tokenizer_config.json, which is a string or an object that holds the string."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
