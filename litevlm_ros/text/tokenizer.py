"""The tokenizer of a checkpoint, and the incremental detokenizer for streaming."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_config import read_config
from litevlm_ros.model_directory import TEXT

_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 (arXiv 2407.10671) splits text before byte-pair merging; tokenizer.json holds it, merges.txt does not."""

_REPLACEMENT = "\ufffd"
"""What incomplete UTF-8 decodes to."""


class TextTokenizer:
    """Text to ids and back. `stop_ids` end an answer."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: Sequence[int] = ()) -> None:
        """`tokenizer` must be a byte-level one, as Qwen2's is. Raises CheckpointError if it is not."""
        parts = json.loads(tokenizer.to_str())
        if (parts["decoder"] or {}).get("type") != "ByteLevel":
            raise CheckpointError("the tokenizer is not a byte-level one; use the tokenizer.json of a Qwen2 checkpoint")
        self._tokenizer = tokenizer
        # A second one that knows no special tokens, for what people write.
        self._plain = Tokenizer.from_str(json.dumps(parts | {"added_tokens": [], "post_processor": None}))
        self.stop_ids = frozenset(stop_ids)

    @classmethod
    def from_directory(cls, model: str | Path) -> TextTokenizer:
        """Reads the tokenizer below `model`/text_decoder: tokenizer.json, or else vocab.json and merges.txt.

        Stop ids come from generation_config.json and tokenizer_config.json, plus <|im_end|>, which ends every turn.
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
        """Ids of plain text; what looks like a special token in it is text too. Broken Unicode becomes '?'."""
        return list(self._plain.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False).ids)

    def special(self, token: str) -> int:
        """Id of a special token. Raises CheckpointError if there is none."""
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(
                f"the tokenizer has no {token}; take {TEXT}/tokenizer.json from the same InternVL checkpoint"
            )
        return int(found)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


class Detokenizer:
    """Text of an answer as it grows. The pieces never hold part of a character and add up to the decoded whole."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._pending: list[int] = []

    def add(self, token: int) -> str:
        """The text that is complete now, often ''."""
        self._pending.append(token)
        text = self._tokenizer.decode(self._pending)
        # Byte-level tokens decode independently of each other wherever a character ends.
        if text.endswith(_REPLACEMENT):
            return ""
        self._pending.clear()
        return text

    def flush(self) -> str:
        """What is left at the end, with U+FFFD for incomplete characters."""
        text = self._tokenizer.decode(self._pending)
        self._pending.clear()
        return text


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
    """Qwen2's tokenizer from the files of older checkpoints, whose special tokens are in tokenizer_config.json."""
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
    """A token of tokenizer_config.json, which is a text or an object with the text inside."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
