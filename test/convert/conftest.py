"""Checkpoints and model directories of a tiny InternVL, and a conversation to compare its decoder in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")
pytest.importorskip("transformers", reason="the reference model is transformers' InternVL")

from published_checkpoints import reference_model, write_native, write_original  # noqa: E402

from litevlm_ros.convert.checkpoint_split import split_checkpoint  # noqa: E402


@dataclass
class Cache:
    """A fixed-size cache of the text decoder, filled with noise: rows from `length` on must never matter."""

    layers: int
    rows: int
    heads: int
    width: int
    length: int = 0
    keys: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = torch.Generator().manual_seed(3)
        for stores in (self.keys, self.values):
            for _ in range(self.layers):
                stores.append(5 * torch.randn(self.rows, self.heads, self.width, generator=random))

    def append(self, new_keys: list[Any], new_values: list[Any]) -> None:
        count = new_keys[0].shape[0]
        for stores, news in ((self.keys, new_keys), (self.values, new_values)):
            for store, new in zip(stores, news, strict=True):
                store[self.length : self.length + count] = new
        self.length += count


Step = Callable[..., tuple[Any, Any, Any, list[Any], list[Any]]]


def conversation_errors(step: Step, model: Any) -> dict[str, float]:
    """Relative logit errors of a prefill, cached steps, a gap in positions, several tokens at once and a rollback.

    The reference runs the whole sequence anew each time, without any cache.
    """
    text = model.config.text_config
    random = torch.Generator().manual_seed(11)
    visual = torch.randn(5, text.hidden_size, generator=random)
    cache = Cache(text.num_hidden_layers, 40, text.num_key_value_heads, text.head_dim)
    said: list[int] = []
    places: list[int] = []
    errors: dict[str, float] = {}

    def turn(name: str, ids: list[int], positions: list[int], wanted: list[int]) -> None:
        logits, best, _, new_keys, new_values = step(
            torch.tensor(ids),
            torch.tensor(positions),
            torch.tensor([cache.length]),
            torch.tensor(wanted),
            visual,
            cache.keys,
            cache.values,
        )
        del said[cache.length :], places[cache.length :]
        said.extend(ids)
        places.extend(positions)
        expected = reference_logits(model, said, places, visual)[[cache.length + index for index in wanted]]
        cache.append(new_keys, new_values)
        assert expected.std() > 0.5, "degenerate logits compare nothing"
        errors[name] = float((logits - expected).abs().max() / expected.abs().max())
        assert best.tolist() == expected.argmax(-1).tolist(), name

    image = [text.vocab_size + row for row in (0, 1, 3, 4)]  # row 2 was not selected; its position stays empty
    turn("prefill", [5, 9, *image, 17, 20, 2], [0, 1, 2, 3, 5, 6, 7, 8, 9], [8, 0, 5])
    turn("decode", [31], [10], [0])
    turn("decode again", [31], [11], [0])
    turn("gap", [64], [25], [0])
    turn("several", [8, 13, 96], [26, 27, 28], [2, 1])
    cache.length = 10
    turn("rollback", [77, 3], [10, 11], [0, 1])
    turn("decode after rollback", [text.vocab_size + 2], [12], [0])
    return errors


def reference_logits(model: Any, ids: list[int], positions: list[int], visual: Any) -> Any:
    """transformers' logits [S, V] of a whole sequence, where ids from the vocabulary size on are rows of `visual`."""
    vocabulary = model.config.text_config.vocab_size
    table = model.get_input_embeddings().weight
    rows = [visual[token - vocabulary] if token >= vocabulary else table[token] for token in ids]
    # Without an attention mask transformers takes a gap in the positions for the start of another sequence.
    hidden = model.model.language_model(
        inputs_embeds=torch.stack(rows)[None],
        position_ids=torch.tensor([positions]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        use_cache=False,
    ).last_hidden_state
    return model.lm_head(hidden)[0]


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def reference() -> Any:
    return reference_model()


@pytest.fixture(scope="session")
def tied_reference() -> Any:
    return reference_model(tied=True)


@pytest.fixture(scope="session")
def qwen3_reference() -> Any:
    return reference_model(qwen3=True)


@pytest.fixture(scope="session")
def checkpoints(
    reference: Any, tied_reference: Any, qwen3_reference: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Whole checkpoints by name: original, native, both also with -tied and -qwen3, and original-sharded."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "original": write_original(reference, root / "original"),
        "original-sharded": write_original(reference, root / "original-sharded", shards=3),
        "original-tied": write_original(tied_reference, root / "original-tied"),
        "native": write_native(reference, root / "native"),
        "native-tied": write_native(tied_reference, root / "native-tied"),
        "original-qwen3": write_original(qwen3_reference, root / "original-qwen3"),
        "native-qwen3": write_native(qwen3_reference, root / "native-qwen3"),
    }


@pytest.fixture(scope="session")
def models(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model directories of these checkpoints, by the same names."""
    root = tmp_path_factory.mktemp("models")
    for name, checkpoint in checkpoints.items():
        split_checkpoint(checkpoint, root / name)
    return {name: root / name for name in checkpoints}


@pytest.fixture
def conversation() -> Callable[[Step, Any], dict[str, float]]:
    return conversation_errors
