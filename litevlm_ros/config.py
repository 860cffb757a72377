"""Settings of a run: one frozen dataclass per concern, validated when it is built.

Each field that is a number or a choice declares its default, its range and its choices here, and nowhere else: the ROS
parameters of the same names take them from `SETTINGS`. Every ConfigError names the field, its value, what is allowed
and what to do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from litevlm_ros.errors import ConfigError
from litevlm_ros.precision import PRECISION_CHOICES

BACKENDS = ("auto", "tensorrt", "onnxruntime")
"""Values of `PipelineConfig.backend`."""

DECODES = ("auto", "kernels", "engine")
"""Values of `PipelineConfig.decode`."""

SPECULATIONS = ("off", "ngram", "head", "auto")
"""Values of `SpeculationConfig.source`."""

VIEW_SELECTIONS = ("off", "lexical", "learned")
"""Values of `ViewSelectionConfig.method`."""

TOKEN_SELECTIONS = ("off", "random", "diversity", "similarity", "scorer")
"""Values of `TokenSelectionConfig.method`."""

MAX_TILES = 40
"""The most tiles a view can be cut into; InternVL's own largest setting."""

DEMO_CAMERAS = ("front", "front_left", "front_right", "back", "back_left", "back_right")
"""The cameras of the demo: the default of the node, and the views that the demo's world is rendered from."""

CAPTION_PROMPT = "Describe the scene."
"""The instruction that captions follow where nobody gives another one."""

MOST_DRAFT_TOKENS = 15
"""The most tokens of one draft."""

MOST_LOGITS = MOST_DRAFT_TOKENS + 1
"""The most tokens of one decoder call whose logits can be asked for: a draft and the token before it."""

_LABEL = re.compile(r"([^{}]|\{index\}|\{camera\})*")
"""The values of `PipelineConfig.view_label`."""

_MANY = 2**20
"""The upper end of the ROS ranges of whole numbers that have no limit of their own."""


@dataclass(frozen=True)
class Setting:
    """One number or choice: its name in messages and ROS parameters, its default, and its allowed values.

    `choices` are the values of a text. A number lies between `low` and `high`, both included; with `above`, `low` is
    excluded. The range of a ROS parameter is finite and includes both of its ends, so `offered` is a narrower one for
    it where `low` and `high` are not such ends. `fix` completes the error message of a wrong value.
    """

    name: str
    default: str | int | float
    fix: str = ""
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = math.inf
    above: bool = False
    offered: tuple[float, float] | None = None

    @property
    def parameter_range(self) -> tuple[float, float] | None:
        """The lowest and the highest value of the ROS parameter, both included; None for a choice."""
        return None if self.choices else self.offered or (self.low, self.high)

    def check(self, value: object) -> None:
        """Raises ConfigError if the setting cannot have this value."""
        if self.choices:
            if value not in self.choices:
                raise ConfigError(
                    f"{self.name} is {value!r}; allowed: {', '.join(self.choices)}. Use {self.default!r} if in doubt"
                )
            return
        whole = isinstance(self.default, int)
        fits_type = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        number: Any = value if fits_type else math.nan
        fits = self.low <= number <= self.high and number != math.inf and not (self.above and number == self.low)
        if not fits:
            raise ConfigError(f"{self.name} is {value!r}; allowed: {self._allowed(whole)}. To correct it, {self.fix}")

    def _allowed(self, whole: bool) -> str:
        most = f"{self.high:g}" if self.high < math.inf else ""
        if whole:
            return f"whole numbers from {self.low}" + (f" to {most}" if most else "")
        return f"numbers {'above' if self.above else 'from'} {self.low:g}" + (f", at most {most}" if most else "")


def _choice(name: str, default: str, choices: tuple[str, ...]) -> Any:
    """Returns a field for one of `choices`."""
    return field(default=default, metadata={"setting": Setting(name, default, choices=choices)})


def _number(name: str, default: float, fix: str, **limits: Any) -> Any:
    """Returns a field for numbers, which are whole if `default` is an int. `limits` are fields of Setting."""
    return field(default=default, metadata={"setting": Setting(name, default, fix, **limits)})


def _settings(config: Any) -> dict[str, Setting]:
    """Returns the Setting of each field of a dataclass that has one, by the field's name."""
    return {each.name: each.metadata["setting"] for each in fields(config) if "setting" in each.metadata}


class _Validated:
    """Base of the dataclasses here. Checks every field that has a Setting when an object is built."""

    def __post_init__(self) -> None:
        for name, setting in _settings(self).items():
            setting.check(getattr(self, name))


@dataclass(frozen=True)
class SamplingConfig(_Validated):
    """The way one answer is generated.

    `temperature` 0 always takes the likeliest token; above 0 it samples from softmax(logits / temperature), among the
    `top_k` likeliest tokens (0: all) and the likeliest tokens whose probabilities reach `top_p` (1: all).
    `repetition_penalty` above 1 makes tokens of the answer so far less likely (arXiv 1909.05858).
    The same `seed` gives the same answer; None takes a new one each time.
    """

    max_new_tokens: int = _number(
        "max_new_tokens", 64, "give the most tokens an answer may have", low=1, offered=(1, _MANY)
    )
    temperature: float = _number("temperature", 0.0, "use 0 for the likeliest token", offered=(0, 100))
    top_k: int = _number("top_k", 0, "use 0 for no limit", offered=(0, _MANY))
    top_p: float = _number("top_p", 1.0, "use 1 for no limit", above=True, high=1, offered=(0.001, 1))
    repetition_penalty: float = _number("repetition_penalty", 1.0, "use 1 for none", above=True, offered=(0.01, 100))
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed is not None:
            Setting("seed", 0, "use None for a new seed each time").check(self.seed)

    @property
    def greedy(self) -> bool:
        """True if the next token is always the backend's own argmax, so that no logits are needed."""
        return self.temperature == 0 and self.repetition_penalty == 1


@dataclass(frozen=True)
class SpeculationConfig(_Validated):
    """Drafts for greedy decoding, whose tokens are checked together. They change its speed but no answer.

    `source` 'ngram' drafts what followed the same words in the prompt, in the answer so far and in the previous answer
    to the same question about the same cameras. 'head' guesses with `draft_head.onnx`, which is trained for the model.
    'auto' does the first where four words match, else the second, or only the first where there is no head. Drafts are
    used where they prove faster. `most_tokens` are drafted at a time.
    """

    source: str = _choice("speculation", "off", SPECULATIONS)
    most_tokens: int = _number(
        "speculation_tokens",
        MOST_DRAFT_TOKENS,
        f"use {MOST_DRAFT_TOKENS} to let measurements decide",
        low=1,
        high=MOST_DRAFT_TOKENS,
    )


@dataclass(frozen=True)
class ReuseConfig(_Validated):
    """Results that are kept for further questions about the same frames. They change no answer.

    The visual tokens of `frames` frames are kept, of views that say which frame they are; the decoder's cache is then
    used as far as a prompt begins like the previous one. A frame takes 0.5 MB a tile with InternVL2-1B in fp16. 0 keeps
    nothing.
    """

    frames: int = _number("reuse_frames", 8, "use 0 to encode each frame anew", high=1000)


@dataclass(frozen=True)
class ViewSelectionConfig(_Validated):
    """The choice of the views that a question is answered from; the others are not even encoded.

    `method` 'lexical' goes by the words of the question (`vision/view_selection.py`): a view scores 1 if its camera or
    that side of the robot is named and 0.4 if its direction is mentioned, and those above `threshold` are kept. Without
    any hint all are. `phrases` adds words for cameras, by their names and in any language. 'learned' adds the logits of
    `view_selector.onnx` in the model directory to these scores (`vision/learned_view_selection.py`).
    """

    method: str = _choice("view_selection", "off", VIEW_SELECTIONS)
    threshold: float = _number("view_selection_threshold", 0.5, "use 0.5", high=1)
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for camera, phrases in self.phrases.items():
            if isinstance(phrases, str) or not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
                raise ConfigError(
                    f"view_selection_phrases of {camera} is {phrases!r}; allowed: texts that are not blank. Leave the "
                    "camera out if there are none"
                )


@dataclass(frozen=True)
class TokenSelectionConfig(_Validated):
    """The choice of the visual tokens that the language model reads; the others are dropped before prefill.

    `keep` is the share of each tile's tokens that stay. `method` names how they are chosen
    (`vision/token_selection.py`): 'diversity' and 'similarity' need no training, 'scorer' needs the model's
    `token_scorer.onnx`, and 'random' is there to compare with.
    """

    method: str = _choice("token_selection", "off", TOKEN_SELECTIONS)
    keep: float = _number(
        "token_selection_keep", 0.6, "use 0.6, which costs little", above=True, high=1, offered=(0.001, 1)
    )


@dataclass(frozen=True)
class PipelineConfig(_Validated):
    """Everything that `Pipeline.from_config` has to know to load a model and run it.

    `model_dir`: the model directory, with engines or exported graphs.
    `engine_dir`: the directory of the engines if they are elsewhere.
    `backend`: 'auto' takes TensorRT if there are engines that fit this machine, else ONNX Runtime.
    `vision_precision`, `text_precision`: precision of the engine or graph to load; 'auto' takes the most accurate
    engine that fits, or on a CPU the graph that suits it (`runtime/onnx/graph_choice.py`).
    `decode`: what computes decode steps and drafts on TensorRT: 'kernels' is one kernel of this package, 'engine' the
    engine's blocks, and 'auto' the kernel where it is supported and right.
    `memory_budget_mb`: memory in MB above which loading the model gives a warning (0: none).
    `max_context`: most tokens of prompt, images and answer together (0: as many as model and engine allow).
    `max_tiles`: most tiles that a view is cut into, without its thumbnail.
    `threads`: CPU threads of ONNX Runtime (0: one for each core).
    `spin_threads`: threads keep a core busy while they wait for each other or for the GPU, which is faster if nothing
    else needs the core.
    `system_prompt`: replaces the model family's own; '' leaves it out.
    `view_label`: the text before each image in the prompt, such as 'Image-{index} ({camera}): '; {index} counts from 1.
    '' is the form that the model family was trained on, where a line behind several images names their cameras.
    `stitch_views`: several views are shown as one picture (`vision/stitching.py`), for models that were trained so.
    `sampling`: the default of every answer. The other fields are described in their own classes.
    """

    model_dir: Path
    engine_dir: Path | None = None
    backend: str = _choice("backend", "auto", BACKENDS)
    vision_precision: str = _choice("vision_precision", "auto", PRECISION_CHOICES)
    text_precision: str = _choice("text_precision", "auto", PRECISION_CHOICES)
    decode: str = _choice("decode", "auto", DECODES)
    memory_budget_mb: int = _number("memory_budget_mb", 0, "use 0 for no budget", offered=(0, _MANY))
    max_context: int = _number("max_context", 0, "use 0 for as many tokens as the model allows", offered=(0, _MANY))
    max_tiles: int = _number("max_tiles", 1, "use 1 to show the model each view as one tile", low=1, high=MAX_TILES)
    threads: int = _number("threads", 0, "use 0 for one thread for each core", offered=(0, 1024))
    spin_threads: bool = False
    system_prompt: str | None = None
    view_label: str = ""
    stitch_views: bool = False
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    speculation: SpeculationConfig = field(default_factory=SpeculationConfig)
    reuse: ReuseConfig = field(default_factory=ReuseConfig)
    view_selection: ViewSelectionConfig = field(default_factory=ViewSelectionConfig)
    token_selection: TokenSelectionConfig = field(default_factory=TokenSelectionConfig)

    def __post_init__(self) -> None:
        if not isinstance(self.model_dir, (str, Path)) or not str(self.model_dir):
            raise ConfigError(f"model_dir is {self.model_dir!r}; allowed: a path. Give the directory of the model")
        object.__setattr__(self, "model_dir", Path(self.model_dir))
        if self.engine_dir is not None:
            object.__setattr__(self, "engine_dir", Path(self.engine_dir))
        super().__post_init__()
        if self.system_prompt is not None and not isinstance(self.system_prompt, str):
            raise ConfigError(
                f"system_prompt is {self.system_prompt!r}; allowed: a text. Use None for the model family's own"
            )
        if not isinstance(self.view_label, str) or not _LABEL.fullmatch(self.view_label):
            raise ConfigError(
                f"view_label is {self.view_label!r}; allowed: a text without braces but those of {{index}} and "
                "{camera}. Use '' for the model family's own form"
            )

    @property
    def engines(self) -> Path:
        """The directory of the engines."""
        return self.engine_dir or self.model_dir


SETTINGS: Mapping[str, Setting] = {
    setting.name: setting
    for config in (
        PipelineConfig, SamplingConfig, SpeculationConfig, ReuseConfig, ViewSelectionConfig, TokenSelectionConfig,
    )
    for setting in _settings(config).values()
}  # fmt: skip
"""Every number and choice of these dataclasses, by the name of its ROS parameter."""
