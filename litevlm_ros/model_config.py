"""The architecture and prompt family of a checkpoint, read from the `config.json` files of a model directory.

Two spellings of an InternVL configuration exist, and both are read: OpenGVLab's original one (`force_image_size`,
`llm_config`, `template`) and the one of transformers' own InternVL classes (`model_type: internvl`, `text_config`).
Models that this package cannot run faithfully are refused here, before any weight is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litevlm_ros.architectures import NATIVE, check_whole_model, language_model
from litevlm_ros.checksums import unchanged
from litevlm_ros.config_json import ConfigSection, read_config
from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.prompt_families import prompt_family

_DEFAULT_MAX_TILES = 12
_MOST_LAYERS = 1000
"""Bound of what a damaged file may ask for, since all layers' weights are listed by name. Published models have 80."""


@dataclass(frozen=True)
class VisionConfig:
    """InternViT and the projector behind it (arXiv 2312.14238, 2404.16821). Sizes are in pixels or channels."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    image_size: int
    patch_size: int
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    downsample_ratio: float = 0.5

    def __post_init__(self) -> None:
        _check_positive(self, "hidden_size", "intermediate_size", "num_layers", "num_heads", "image_size", "patch_size")
        _check_multiple("hidden_size", self.hidden_size, "num_heads", self.num_heads)
        _check_multiple("image_size", self.image_size, "patch_size", self.patch_size)
        if not 0.01 <= self.downsample_ratio <= 1 or 1 / self.downsample_ratio != self.shuffle:
            raise CheckpointError(f"downsample_ratio is {self.downsample_ratio}; supported: 1 / n, InternVL uses 0.5")
        _check_multiple("image_size / patch_size", self.grid, "1 / downsample_ratio", self.shuffle)

    @property
    def grid(self) -> int:
        """Number of patches along one edge of a tile."""
        return self.image_size // self.patch_size

    @property
    def shuffle(self) -> int:
        """Number of patches along one edge that the pixel shuffle folds into one visual token."""
        return round(1 / self.downsample_ratio)

    @property
    def tokens_per_tile(self) -> int:
        """Visual tokens of a tile after the pixel shuffle, such as 256 for 448 pixels, patches of 14 and ratio 0.5."""
        return (self.grid // self.shuffle) ** 2

    @property
    def projector_size(self) -> int:
        """Number of channels of one visual token before the projector."""
        return self.hidden_size * self.shuffle**2


@dataclass(frozen=True)
class TextConfig:
    """A Qwen2, Qwen2.5 (arXiv 2407.10671) or Qwen3 (arXiv 2505.09388) decoder.

    `qk_norm` says that the queries and keys of each head pass an RMSNorm before they are rotated. `head_dim` need not
    be `hidden_size` / `num_heads`.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    vocab_size: int
    tie_word_embeddings: bool
    max_position_embeddings: int
    qkv_bias: bool = True
    qk_norm: bool = False

    def __post_init__(self) -> None:
        _check_positive(
            self,
            "hidden_size",
            "intermediate_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "rope_theta",
            "vocab_size",
            "max_position_embeddings",
        )
        _check_multiple("num_attention_heads", self.num_heads, "num_key_value_heads", self.num_kv_heads)
        _check_multiple("head_dim", self.head_dim, "the two halves of a rotary pair,", 2)


@dataclass(frozen=True)
class ModelConfig:
    """Everything about a checkpoint that is not a weight.

    `template` names the prompt family, one of `prompt_families.FAMILIES`. `max_dynamic_tiles` counts the tiles of one
    image without its thumbnail.
    """

    vision: VisionConfig
    text: TextConfig
    template: str
    use_thumbnail: bool
    max_dynamic_tiles: int

    def __post_init__(self) -> None:
        _check_positive(self, "max_dynamic_tiles")

    @classmethod
    def from_directory(cls, path: str | Path) -> ModelConfig:
        """Reads `vision_encoder/config.json` and `text_decoder/config.json` below `path`.

        Raises CheckpointError if a file is missing, unreadable or not what it was when it was made, if the architecture
        is not supported, or if the two halves do not fit together.
        """
        root = Path(path)
        vision_file = root / VISION / "config.json"
        text_file = root / TEXT / "config.json"
        with unchanged(vision_file, text_file):
            vision, text = read_config(vision_file), read_config(text_file)
        return cls.from_sections(ConfigSection(vision, vision_file), ConfigSection(text, text_file))

    @classmethod
    def from_sections(cls, whole: ConfigSection, language: ConfigSection) -> ModelConfig:
        """Reads the configurations of a whole model and of its language model. Raises CheckpointError as above."""
        check_whole_model(whole)
        text = _text(language)
        _check_language_model(whole, text)
        return cls(
            vision=_vision(whole),
            text=text,
            template=prompt_family(whole, is_native=is_native(whole.values)),
            use_thumbnail=bool(whole.get("use_thumbnail", True)),
            max_dynamic_tiles=_max_dynamic_tiles(whole),
        )


def is_native(config: dict[str, Any]) -> bool:
    """Returns whether the configuration of a whole model is in the spelling of transformers' own InternVL classes."""
    return config.get("model_type") == NATIVE or "text_config" in config


def _vision(whole: ConfigSection) -> VisionConfig:
    """Reads the vision half.

    Raises CheckpointError for anything but InternViT with LayerNorm and plain attention, which is InternViT-300M.
    """
    native = is_native(whole.values)
    tower = whole.section("vision_config")
    if native:
        whole.require("vision_feature_layer", -1, -1)
        whole.require("vision_feature_select_strategy", "default", "default")
        whole.require("projector_hidden_act", "gelu", "gelu")
        _refuse_larger_encoder(tower, "use_qk_norm", False)
        tower.require("use_mean_pooling", True, True)
        tower.require("use_absolute_position_embeddings", True, True)
        image_size = tower.integer("image_size")
    else:
        whole.require("ps_version", "v1", "v2")
        whole.require("select_layer", -1, -1)
        _refuse_larger_encoder(tower, "qk_normalization", True)  # the original class defaults to InternViT-6B
        image_size = whole.integer("force_image_size", whole.get("image_size", tower.get("image_size")))
        if tower.integer("image_size", image_size) != image_size:
            whole.refuse(
                "force_image_size",
                image_size,
                f"vision_config.image_size, {tower.get('image_size')}: position embeddings are not interpolated",
            )
    tower.require("norm_type", "layer_norm" if native else "rms_norm", "layer_norm")
    tower.require("hidden_act", "gelu", "gelu")
    tower.require("num_channels", 3, 3)
    return VisionConfig(
        hidden_size=tower.integer("hidden_size"),
        intermediate_size=tower.integer("intermediate_size"),
        num_layers=tower.integer("num_hidden_layers", most=_MOST_LAYERS),
        num_heads=tower.integer("num_attention_heads"),
        image_size=image_size,
        patch_size=tower.integer("patch_size"),
        layer_norm_eps=tower.number("layer_norm_eps", 1e-6),
        qkv_bias=bool(tower.get("attention_bias" if native else "qkv_bias", False)),
        downsample_ratio=whole.number("downsample_ratio", 0.5),
    )


def _refuse_larger_encoder(tower: ConfigSection, key: str, default: bool) -> None:
    """Raises CheckpointError if `key`, or its `default`, says that queries and keys are normed, as in InternViT-6B."""
    value = tower.get(key, default)
    if value is not False:
        tower.refuse(
            key,
            value,
            "False, as InternViT-300M has it. InternViT-6B, the vision encoder of the InternVL models from 26B up, is "
            "not run. Take --model internvl3-2b or internvl3_5-2b",
        )


def _check_language_model(whole: ConfigSection, text: TextConfig) -> None:
    """Raises CheckpointError if `text` is not as wide as the language model that the projector was trained for."""
    if not any(key in whole.values for key in ("llm_config", "text_config")):
        return
    language = whole.section("llm_config", "text_config")
    if language.integer("hidden_size", text.hidden_size) != text.hidden_size:
        raise CheckpointError(
            f"{whole.file}: {language.prefix}hidden_size is {language.get('hidden_size')}, but {TEXT}/ is "
            f"{text.hidden_size} wide: the vision encoder belongs to another language model. "
            "Take both halves from the same InternVL checkpoint"
        )


def _max_dynamic_tiles(whole: ConfigSection) -> int:
    return whole.integer("max_dynamic_patch", _DEFAULT_MAX_TILES) if whole.get("dynamic_image_size", True) else 1


def _text(section: ConfigSection) -> TextConfig:
    """Reads the text half.

    Raises CheckpointError for anything but a row of LANGUAGE_MODELS with full attention and plain rotary positions.
    """
    row = language_model(section)
    section.require("hidden_act", "silu", "silu")
    section.require("use_sliding_window", False, False)
    if not row.qkv_bias:
        section.require("attention_bias", False, False)  # it would give the output projection a bias as well
    if any(kind != "full_attention" for kind in section.texts("layer_types")):
        section.refuse("layer_types", section.get("layer_types"), "'full_attention' in every layer")
    heads = section.integer("num_attention_heads")
    hidden = section.integer("hidden_size")
    return TextConfig(
        hidden_size=hidden,
        intermediate_size=section.integer("intermediate_size"),
        num_layers=section.integer("num_hidden_layers", most=_MOST_LAYERS),
        num_heads=heads,
        num_kv_heads=section.integer("num_key_value_heads", heads),
        head_dim=section.integer("head_dim", row.head_dim or hidden // max(heads, 1)),
        rms_norm_eps=section.number("rms_norm_eps", 1e-6),
        rope_theta=_rope_theta(section),
        vocab_size=section.integer("vocab_size"),
        tie_word_embeddings=bool(section.get("tie_word_embeddings", False)),
        max_position_embeddings=section.integer("max_position_embeddings", 32768),
        qkv_bias=row.qkv_bias,
        qk_norm=row.qk_norm,
    )


def _rope_theta(section: ConfigSection) -> float:
    """Returns the rotary base. Raises CheckpointError for scaled positions.

    `dynamic` scaling, which InternVL3 declares, changes nothing up to max_position_embeddings, and the pipeline never
    goes beyond. Every other scaling changes all positions and is refused.
    """
    for key in ("rope_scaling", "rope_parameters"):
        values = section.get(key)
        if isinstance(values, dict):
            kind = values.get("rope_type", values.get("type", "default"))
            if kind not in ("default", "dynamic"):
                section.refuse(key, values, "none, 'default' or 'dynamic'")
    parameters = section.get("rope_parameters", {})
    theta = section.get("rope_theta", parameters.get("rope_theta") if isinstance(parameters, dict) else None)
    return ConfigSection({"rope_theta": theta}, section.file).number("rope_theta", 10000.0)


def _check_positive(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise CheckpointError(
                f"{name} is {getattr(config, name)}; it must be positive. Is the config.json damaged?"
            )


def _check_multiple(name: str, value: int, divisor_name: str, divisor: int) -> None:
    if value % divisor:
        raise CheckpointError(
            f"{name} is {value}, not a multiple of {divisor_name} {divisor}. Is the config.json damaged?"
        )
