"""The tokenizer of a checkpoint, and the text of an answer as it grows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from litevlm_ros.config_json import read_config
from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_directory import TEXT
from litevlm_ros.types import FinishReason, OnText

_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern by which Qwen2 (arXiv 2407.10671) splits text before byte-pair merging.

tokenizer.json holds it; checkpoints with merges.txt do not have it anywhere.
"""

_REPLACEMENT = "\ufffd"
"""The character that incomplete UTF-8 is decoded to."""


class TextTokenizer:
    """Converts text to token ids and back. `stop_ids` are the tokens that end an answer."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: Sequence[int] = ()) -> None:
        """Raises CheckpointError if `tokenizer` is not a byte-level one, as Qwen2's is."""
        parts = json.loads(tokenizer.to_str())
        if (parts["decoder"] or {}).get("type") != "ByteLevel":
            raise CheckpointError("the tokenizer is not a byte-level one; use the tokenizer.json of a Qwen2 checkpoint")
        self._tokenizer = tokenizer
        # A second tokenizer without special tokens, for text that people write.
        self._plain = Tokenizer.from_str(json.dumps(parts | {"added_tokens": [], "post_processor": None}))
        self.stop_ids = frozenset(stop_ids)

    @classmethod
    def from_directory(cls, model: str | Path) -> TextTokenizer:
        """Reads the tokenizer in `model`/text_decoder: tokenizer.json, or else vocab.json and merges.txt.

        Stop ids come from generation_config.json and tokenizer_config.json, and <|im_end|>, which ends every turn.
        Raises CheckpointError if a file is missing or damaged.
        """
        directory = Path(model) / TEXT
        settings = _optional(directory / "tokenizer_config.json")
        tokenizer = _read(directory, settings)
        stop_ids = _optional(directory / "generation_config.json").get("eos_token_id", [])
        stops = list(stop_ids) if isinstance(stop_ids, list) else [stop_ids]
        stops += [tokenizer.token_to_id(token) for token in (_content(settings.get("eos_token")), "<|im_end|>")]
        return cls(tokenizer, [stop for stop in stops if isinstance(stop, int)])

    def encode(self, text: str) -> list[int]:
        """Returns the ids of plain text. Special tokens in it are read as text too, and broken Unicode as '?'."""
        return list(self._plain.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False).ids)

    def special(self, token: str) -> int:
        """Returns the id of a special token. Raises CheckpointError if the tokenizer lacks it."""
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(
                f"the tokenizer has no {token}; take {TEXT}/tokenizer.json from the same InternVL checkpoint"
            )
        return int(found)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


class GrowingAnswer:
    """An answer while it is decoded: its tokens, its text, and why it ended.

    `on_text` is called with each new piece of the text. A piece never holds part of a character, and the pieces add up
    to the text. `tokenizers.decoders.DecodeStream` gives the same pieces, but not the rest of an answer that was cut
    inside a character.
    """

    def __init__(self, tokenizer: TextTokenizer, on_text: OnText | None = None) -> None:
        self.tokens: list[int] = []
        self.text = ""
        self.finish_reason = FinishReason.LENGTH
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._pending: list[int] = []

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
        if piece:
            self.text += piece
            if self._on_text is not None:
                self._on_text(piece, len(self.tokens))


def _read(directory: Path, settings: Mapping[str, Any]) -> Tokenizer:
    whole, vocabulary, merges = (directory / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    try:
        if whole.is_file():
            return Tokenizer.from_file(str(whole))
        if vocabulary.is_file() and merges.is_file():
            return _qwen2(vocabulary, merges, settings)
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(f"the tokenizer in {directory} is damaged: {error}. Download the model again") from error
    raise CheckpointError(
        f"{directory} has no tokenizer.json, nor vocab.json and merges.txt; copy them from the checkpoint"
    )


def _qwen2(vocabulary: Path, merges: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """Builds Qwen2's tokenizer from the files of older checkpoints; tokenizer_config.json lists the special tokens."""
    added = {int(number): token for number, token in settings.get("added_tokens_decoder", {}).items()}
    if not added:
        raise CheckpointError("tokenizer_config.json lists no added_tokens_decoder")
    tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for number, token in sorted(added.items()):
        tokenizer.add_tokens([AddedToken(**{key: token[key] for key in _ADDED_TOKEN_KEYS if key in token})])
        if tokenizer.token_to_id(token["content"]) != number:
            raise CheckpointError(f"vocab.json and tokenizer_config.json disagree about the id of {token['content']}")
    return tokenizer


_ADDED_TOKEN_KEYS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def _optional(file: Path) -> Mapping[str, Any]:
    return read_config(file) if file.is_file() else {}


def _content(token: Any) -> str:
    """Returns the text of a token in tokenizer_config.json, which is a string or an object that holds the string."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
