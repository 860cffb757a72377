"""The architecture and prompt family of a checkpoint, read from the `config.json` files of a model directory.

Two spellings of an InternVL configuration exist and both are read: OpenGVLab's original one (`force_image_size`,
`llm_config`, `template`) and the one of transformers' own InternVL classes (`model_type: internvl`, `text_config`).
What this package cannot run faithfully is refused here, before any weight is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_directory import TEXT, VISION

HERMES_TEMPLATE = "Hermes-2"
"""Prompt family of InternVL2-1B."""
INTERNVL2_5_TEMPLATE = "internvl2_5"
"""Prompt family of InternVL2.5 and InternVL3."""

_INTERNVL2_1B_VOCABULARY = 151655
_DEFAULT_MAX_TILES = 12


@dataclass(frozen=True)
class VisionConfig:
    """InternViT and the projector behind it (arXiv 2312.14238, 2404.16821). Sizes in pixels or channels."""

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
        if not 0 < self.downsample_ratio <= 1 or 1 / self.downsample_ratio != self.shuffle:
            raise CheckpointError(f"downsample_ratio is {self.downsample_ratio}; supported: 1 / n, InternVL uses 0.5")
        _check_multiple("image_size / patch_size", self.grid, "1 / downsample_ratio", self.shuffle)

    @property
    def grid(self) -> int:
        """Patches along one edge of a tile."""
        return self.image_size // self.patch_size

    @property
    def shuffle(self) -> int:
        """Patches along one edge that the pixel shuffle folds into one visual token."""
        return round(1 / self.downsample_ratio)

    @property
    def tokens_per_tile(self) -> int:
        """Visual tokens of one tile after the pixel shuffle: 256 for 448 pixels, patches of 14 and ratio 0.5."""
        return (self.grid // self.shuffle) ** 2

    @property
    def projector_size(self) -> int:
        """Channels of one visual token before the projector."""
        return self.hidden_size * self.shuffle**2


@dataclass(frozen=True)
class TextConfig:
    """A Qwen2 or Qwen2.5 decoder (arXiv 2407.10671)."""

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

    `template` names the prompt family: `Hermes-2` (InternVL2-1B), `internvl2_5` (InternVL2.5, InternVL3) or
    `litevlm-demo` (the shipped model). `max_dynamic_tiles` counts the tiles of one image without its thumbnail.
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
        """Read `vision_encoder/config.json` and `text_decoder/config.json` below `path`.

        Raises CheckpointError if a file is missing or unreadable, if the architecture is not supported, or if the two
        halves do not fit together.
        """
        root = Path(path)
        vision_file = root / VISION / "config.json"
        text_file = root / TEXT / "config.json"
        whole = read_config(vision_file)
        text = _Section(read_config(text_file), text_file).text()
        section = _Section(whole, vision_file)
        section.check_language_model(text)
        return cls(
            vision=section.vision(),
            text=text,
            template=section.template(),
            use_thumbnail=bool(section.get("use_thumbnail", True)),
            max_dynamic_tiles=section.max_dynamic_tiles(),
        )


def read_config(file: Path) -> dict[str, Any]:
    """Parse a `config.json`. Raises CheckpointError that names the file if it is missing or not a JSON object."""
    try:
        parsed = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{file} is missing; a model directory holds {VISION}/ and {TEXT}/, each with its "
            "config.json. Download a model with `ros2 run litevlm_ros download_models`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:  # JSON's and UTF-8's are ValueErrors
        raise CheckpointError(f"{file} cannot be read as JSON: {error}. Download the model again") from error
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{file} holds a {type(parsed).__name__}, not a JSON object. Download the model again")
    return parsed


def is_native(config: dict[str, Any]) -> bool:
    """Whether a whole-model configuration is written the way of transformers' own InternVL classes."""
    return config.get("model_type") == "internvl" or "text_config" in config


class _Section:
    """One JSON object of a configuration file: typed access, and errors that name file and key."""

    def __init__(self, values: dict[str, Any], file: Path, prefix: str = "") -> None:
        self.values = values
        self.file = file
        self.prefix = prefix

    # Access

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`; `default` if it is absent or null."""
        value = self.values.get(key)
        return default if value is None else value

    def sub(self, *keys: str) -> _Section:
        for key in keys:
            if isinstance(self.values.get(key), dict):
                return _Section(self.values[key], self.file, f"{self.prefix}{key}.")
        raise CheckpointError(
            f"{self.file}: {' or '.join(keys)} is missing. Is this the config.json of an InternVL model?"
        )

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.get(key, default)
        if isinstance(value, (list, tuple)) and value and all(side == value[0] for side in value):
            value = value[0]  # transformers writes [height, width]
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(key, value, "a square size as an integer" if "size" in key else "an integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.refuse(key, value, "a number")
        return float(value)

    def texts(self, key: str) -> list[str]:
        value = self.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.refuse(key, value, "a list of texts")
        return value

    def refuse(self, key: str, value: Any, supported: str) -> NoReturn:
        raise CheckpointError(f"{self.file}: {self.prefix}{key} is {value!r}; supported: {supported}")

    def require(self, key: str, default: Any, *supported: Any) -> None:
        value = self.get(key, default)
        if value not in supported:
            self.refuse(key, value, " or ".join(repr(choice) for choice in supported))

    # The whole model

    def vision(self) -> VisionConfig:
        """Raises CheckpointError for anything but InternViT with LayerNorm and plain attention: InternViT-300M."""
        native = is_native(self.values)
        tower = self.sub("vision_config")
        if native:
            self.require("vision_feature_layer", -1, -1)
            self.require("vision_feature_select_strategy", "default", "default")
            self.require("projector_hidden_act", "gelu", "gelu")
            tower.require("use_qk_norm", False, False)
            tower.require("use_mean_pooling", True, True)
            tower.require("use_absolute_position_embeddings", True, True)
            image_size = tower.integer("image_size")
        else:
            self.require("ps_version", "v1", "v2")
            self.require("select_layer", -1, -1)
            tower.require("qk_normalization", True, False)  # the original class defaults to InternViT-6B
            image_size = self.integer("force_image_size", self.get("image_size", tower.get("image_size")))
            if tower.integer("image_size", image_size) != image_size:
                self.refuse(
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
            num_layers=tower.integer("num_hidden_layers"),
            num_heads=tower.integer("num_attention_heads"),
            image_size=image_size,
            patch_size=tower.integer("patch_size"),
            layer_norm_eps=tower.number("layer_norm_eps", 1e-6),
            qkv_bias=bool(tower.get("attention_bias" if native else "qkv_bias", False)),
            downsample_ratio=self.number("downsample_ratio", 0.5),
        )

    def check_language_model(self, text: TextConfig) -> None:
        """The projector was trained for one language model; another one of a different width cannot even be run."""
        if not any(key in self.values for key in ("llm_config", "text_config")):
            return
        language = self.sub("llm_config", "text_config")
        if language.integer("hidden_size", text.hidden_size) != text.hidden_size:
            raise CheckpointError(
                f"{self.file}: {language.prefix}hidden_size is {language.get('hidden_size')}, but {TEXT}/ is "
                f"{text.hidden_size} wide: the vision encoder belongs to another language model. "
                "Take both halves from the same InternVL checkpoint"
            )

    def template(self) -> str:
        """The prompt family: the key `template` if present, as in every original checkpoint.

        A transformers-native file has no such key. The published ones are InternVL2.5 and InternVL3, which share one
        family; only InternVL2-1B, told by its vocabulary of 151655 or its name, uses another.
        """
        given = self.get("template")
        if given is not None:
            if not isinstance(given, str):
                self.refuse("template", given, "the name of a prompt family")
            return given
        if not is_native(self.values):
            raise CheckpointError(
                f"{self.file}: template is missing; add the prompt family, such as {HERMES_TEMPLATE!r} "
                f"for InternVL2-1B or {INTERNVL2_5_TEMPLATE!r} for InternVL2.5 and 3"
            )
        name = str(self.get("_name_or_path", ""))
        vocabulary = self.sub("text_config").get("vocab_size")
        old = vocabulary == _INTERNVL2_1B_VOCABULARY or "InternVL2-1B" in name
        return HERMES_TEMPLATE if old else INTERNVL2_5_TEMPLATE

    def max_dynamic_tiles(self) -> int:
        return self.integer("max_dynamic_patch", _DEFAULT_MAX_TILES) if self.get("dynamic_image_size", True) else 1

    # The language model

    def text(self) -> TextConfig:
        """Raises CheckpointError for anything but Qwen2 with full attention and plain rotary positions."""
        if self.get("model_type") != "qwen2" and "Qwen2ForCausalLM" not in self.texts("architectures"):
            self.refuse(
                "model_type",
                self.get("model_type"),
                "'qwen2'; take an InternVL whose language model is Qwen2 or Qwen2.5, such as "
                "InternVL2-1B, InternVL2_5-1B, InternVL3-1B or InternVL3-2B",
            )
        self.require("hidden_act", "silu", "silu")
        self.require("use_sliding_window", False, False)
        if any(kind != "full_attention" for kind in self.texts("layer_types")):
            self.refuse("layer_types", self.get("layer_types"), "'full_attention' in every layer")
        heads = self.integer("num_attention_heads")
        hidden = self.integer("hidden_size")
        return TextConfig(
            hidden_size=hidden,
            intermediate_size=self.integer("intermediate_size"),
            num_layers=self.integer("num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=self.integer("num_key_value_heads", heads),
            head_dim=self.integer("head_dim", hidden // max(heads, 1)),
            rms_norm_eps=self.number("rms_norm_eps", 1e-6),
            rope_theta=self.rope_theta(),
            vocab_size=self.integer("vocab_size"),
            tie_word_embeddings=bool(self.get("tie_word_embeddings", False)),
            max_position_embeddings=self.integer("max_position_embeddings", 32768),
        )

    def rope_theta(self) -> float:
        """The rotary base.

        `dynamic` scaling, which InternVL3 declares, equals none up to max_position_embeddings, and the pipeline never
        goes beyond. Every other scaling changes all positions and is refused.
        """
        for key in ("rope_scaling", "rope_parameters"):
            values = self.get(key)
            if isinstance(values, dict):
                kind = values.get("rope_type", values.get("type", "default"))
                if kind not in ("default", "dynamic"):
                    self.refuse(key, values, "none, 'default' or 'dynamic'")
        parameters = self.get("rope_parameters", {})
        theta = self.get("rope_theta", parameters.get("rope_theta") if isinstance(parameters, dict) else None)
        return _Section({"rope_theta": theta}, self.file).number("rope_theta", 10000.0)


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
