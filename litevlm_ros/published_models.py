"""The published checkpoints that `download_models --model` knows by name: one entry each, with its real shapes.

To add a model, add its entry to PUBLISHED_MODELS and write the table of docs/models.md anew with
`python test/support/models_page.py`. The tests compare each entry's shapes and sizes with transformers' classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.precision import PACKED_PRECISIONS, stored_in
from litevlm_ros.prompt_families import HERMES, INTERNVL2_5, INTERNVL_HF

_SCALE_BYTES = 2
_INT4_BLOCK = 128
"""Packed weights have an fp16 scale for each output of a matrix, and in int4 one for each block of so many inputs."""

_BITS = {"fp16": 16, "bf16": 16, "fp8": 8, "int8": 8, "int4": 4}

_MIT, _APACHE = "MIT", "Apache-2.0"


@dataclass(frozen=True)
class PublishedModel:
    """A checkpoint on the Hugging Face hub, and what it takes.

    `name` is that of `--model`. `revision` is a commit, or a branch where no commit is known; `origin.json` records the
    commit that was downloaded. `licence` is the one that the model card names, '' if the card is to be read for it.
    `language_model` names the language model that `model.text` describes. `stitched` says that the model was trained
    with all camera views in one picture, as the parameter `stitch_views` makes it. `note` is a sentence for people.
    """

    name: str
    repository: str
    revision: str
    licence: str
    language_model: str
    model: ModelConfig
    stitched: bool = False
    note: str = ""

    @property
    def parameters(self) -> int:
        """The number of parameters of both halves, projector included."""
        return sum(rows * columns for _, rows, columns in _matrices(self.model)) + _vectors(self.model)

    @property
    def tokens_per_tile(self) -> int:
        """The number of visual tokens of a view that is one tile."""
        return self.model.vision.tokens_per_tile

    @property
    def download_bytes(self) -> int:
        """Size of the weights on the hub: 16 bits a parameter."""
        return 2 * self.parameters

    def weight_bytes(self, precision: str) -> int:
        """Returns the bytes of all weights in `precision`, one of PRECISIONS, as engines store them.

        Beside packed matrices, every other number counts with 32 bits. Biases have 16, but are too few to matter.
        """
        matrices = sum(_stored_bytes(name, rows, columns, precision) for name, rows, columns in _matrices(self.model))
        return matrices + (4 if precision in PACKED_PRECISIONS else 2) * _vectors(self.model)

    def cache_bytes(self, tokens: int) -> int:
        """Returns the bytes of a KV cache of `tokens` rows, whose numbers have 16 bits."""
        text = self.model.text
        return 2 * 2 * tokens * text.num_layers * text.num_kv_heads * text.head_dim


def _matrices(model: ModelConfig) -> Iterator[tuple[str, int, int]]:
    """Yields the name, outputs and inputs of each matrix. Tables of words come last; tied ones are one table."""
    vision, text = model.vision, model.text
    width, text_width = vision.hidden_size, text.hidden_size
    yield "patch_embedding.weight", width, 3 * vision.patch_size**2
    for layer in range(vision.num_layers):
        yield f"layers.{layer}.qkv.weight", 3 * width, width
        yield f"layers.{layer}.proj.weight", width, width
        yield f"layers.{layer}.fc1.weight", vision.intermediate_size, width
        yield f"layers.{layer}.fc2.weight", width, vision.intermediate_size
    yield "projector.fc1.weight", text_width, vision.projector_size
    yield "projector.fc2.weight", text_width, text_width
    heads, groups = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    for layer in range(text.num_layers):
        yield f"layers.{layer}.qkv.weight", heads + 2 * groups, text_width
        yield f"layers.{layer}.o_proj.weight", text_width, heads
        yield f"layers.{layer}.gate_up.weight", 2 * text.intermediate_size, text_width
        yield f"layers.{layer}.down.weight", text_width, text.intermediate_size
    for table in ("embed_tokens.weight",) if text.tie_word_embeddings else ("embed_tokens.weight", "lm_head.weight"):
        yield table, text.vocab_size, text_width


def _vectors(model: ModelConfig) -> int:
    """Counts the numbers that belong to no matrix: biases, norms, scales of layers, CLS token and positions."""
    vision, text = model.vision, model.text
    width, text_width = vision.hidden_size, text.hidden_size
    biases = (3 if vision.qkv_bias else 0) * width + 2 * width + vision.intermediate_size
    embedding = width * (1 + 1 + 1 + vision.grid**2)  # bias of the patch embedding, CLS token, positions
    projector = 2 * vision.projector_size + 2 * text_width
    encoder = embedding + vision.num_layers * (biases + 6 * width) + projector
    qkv = (text.num_heads + 2 * text.num_kv_heads) * text.head_dim if text.qkv_bias else 0
    norms = 2 * text_width + (2 * text.head_dim if text.qk_norm else 0)
    return encoder + text.num_layers * (qkv + norms) + text_width


def _stored_bytes(name: str, rows: int, columns: int, precision: str) -> int:
    stored = stored_in(name, precision) if precision in PACKED_PRECISIONS else precision
    scales = rows * (columns // _INT4_BLOCK) if stored == "int4" else rows if stored in PACKED_PRECISIONS else 0
    return rows * columns * _BITS[stored] // 8 + scales * _SCALE_BYTES


_INTERN_VIT = VisionConfig(1024, 4096, 24, 16, image_size=448, patch_size=14)
"""InternViT-300M-448px, which all entries have, with a projector to the width of the language model."""

_QWEN2_0_5B = TextConfig(
    hidden_size=896,
    intermediate_size=4864,
    num_layers=24,
    num_heads=14,
    num_kv_heads=2,
    head_dim=64,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    vocab_size=151655,
    tie_word_embeddings=False,
    max_position_embeddings=32768,
)
_QWEN2_5_0_5B = replace(_QWEN2_0_5B, vocab_size=151674)
_QWEN2_5_1_5B = replace(
    _QWEN2_5_0_5B, hidden_size=1536, intermediate_size=8960, num_layers=28, num_heads=12, head_dim=128
)
_QWEN3_0_6B = TextConfig(
    hidden_size=1024,
    intermediate_size=3072,
    num_layers=28,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    vocab_size=151936,
    tie_word_embeddings=False,
    max_position_embeddings=40960,
    qkv_bias=False,
    qk_norm=True,
)
_QWEN3_1_7B = replace(_QWEN3_0_6B, hidden_size=2048, intermediate_size=6144)


def _internvl(text: TextConfig, template: str) -> ModelConfig:
    return ModelConfig(_INTERN_VIT, text, template, use_thumbnail=True, max_dynamic_tiles=12)


DEFAULT_MODEL = "internvl2-1b"

PUBLISHED_MODELS = {
    entry.name: entry
    for entry in (
        PublishedModel(
            DEFAULT_MODEL,
            "OpenGVLab/InternVL2-1B",
            "0d75ccd166b1d0b79446ae6c5d1a4a667f1e6187",
            _MIT,
            "Qwen2-0.5B",
            _internvl(_QWEN2_0_5B, HERMES),
            note="The default.",
        ),
        PublishedModel(
            "mini-internvl2-1b-da-drivelm",
            "OpenGVLab/Mini-InternVL2-1B-DA-Drivelm",
            "main",
            _MIT,
            "Qwen2-0.5B",
            _internvl(_QWEN2_0_5B, HERMES),
            stitched=True,
            note="InternVL2-1B, trained further on DriveLM's questions about six cameras of a car.",
        ),
        PublishedModel(
            "internvl2_5-1b",
            "OpenGVLab/InternVL2_5-1B",
            "9d423ea1ae9f893897ee3f7493141073f5afcf22",
            _MIT,
            "Qwen2.5-0.5B",
            _internvl(_QWEN2_5_0_5B, INTERNVL2_5),
        ),
        PublishedModel(
            "internvl3-1b",
            "OpenGVLab/InternVL3-1B",
            "4415a3b810e636d11dfa86b0e9ba40bb00535aa8",
            _APACHE,
            "Qwen2.5-0.5B",
            _internvl(_QWEN2_5_0_5B, INTERNVL2_5),
        ),
        PublishedModel(
            "internvl3-1b-hf",
            "OpenGVLab/InternVL3-1B-hf",
            "014c0583a0d4bedf29fbe2dbff4f865eb998e171",
            "",
            "Qwen2.5-0.5B",
            _internvl(_QWEN2_5_0_5B, INTERNVL_HF),
            note="`internvl3-1b` in transformers' layout.",
        ),
        PublishedModel(
            "internvl3-2b",
            "OpenGVLab/InternVL3-2B",
            "899155015275a9b7338c7f4677e19c784e0e5a21",
            _APACHE,
            "Qwen2.5-1.5B",
            _internvl(_QWEN2_5_1_5B, INTERNVL2_5),
        ),
        PublishedModel(
            "internvl3-2b-hf",
            "OpenGVLab/InternVL3-2B-hf",
            "cb57a075cb75a2e6d1b668b128d48bb00ae321d2",
            "",
            "Qwen2.5-1.5B",
            _internvl(_QWEN2_5_1_5B, INTERNVL_HF),
            note="`internvl3-2b` in transformers' layout.",
        ),
        PublishedModel(
            "internvl3_5-1b",
            "OpenGVLab/InternVL3_5-1B",
            "main",
            _APACHE,
            "Qwen3-0.6B",
            _internvl(_QWEN3_0_6B, INTERNVL2_5),
        ),
        PublishedModel(
            "internvl3_5-1b-hf",
            "OpenGVLab/InternVL3_5-1B-HF",
            "9191dbccf312b537016f041b25d61c72e7c5c9f3",
            _APACHE,
            "Qwen3-0.6B",
            _internvl(_QWEN3_0_6B, INTERNVL_HF),
            note="`internvl3_5-1b` in transformers' layout.",
        ),
        PublishedModel(
            "internvl3_5-2b",
            "OpenGVLab/InternVL3_5-2B",
            "main",
            _APACHE,
            "Qwen3-1.7B",
            _internvl(_QWEN3_1_7B, INTERNVL2_5),
        ),
    )
}
"""Name for `--model` → entry. Sources: the model cards, the config.json files of the repositories, and arXiv
2404.16821, 2412.05271, 2504.10479, 2508.18265, 2410.16261."""
