"""Settings of a run: one frozen dataclass per concern, validated when built.

Every ConfigError names the field, its value, what is allowed and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from litevlm_ros.errors import ConfigError
from litevlm_ros.precision import PRECISION_CHOICES

BACKENDS = ("auto", "tensorrt", "onnxruntime")
"""Values of `PipelineConfig.backend`."""

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


@dataclass(frozen=True)
class SamplingConfig:
    """How one answer is generated.

    `temperature` 0 always takes the likeliest token; above 0 it samples from softmax(logits / temperature), among the
    `top_k` likeliest tokens (0: all) and the likeliest tokens whose probabilities reach `top_p` (1: all).
    `repetition_penalty` above 1 makes tokens of the answer so far less likely (arXiv 1909.05858).
    The same `seed` gives the same answer; None takes a new one each time.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _check_integer("max_new_tokens", self.max_new_tokens, 1, "give the most tokens an answer may have")
        _check_number("temperature", self.temperature, "use 0 for the likeliest token", zero=True)
        _check_integer("top_k", self.top_k, 0, "use 0 for no limit")
        _check_number("top_p", self.top_p, "use 1 for no limit", high=1)
        _check_number("repetition_penalty", self.repetition_penalty, "use 1 for none")
        if self.seed is not None:
            _check_integer("seed", self.seed, 0, "use None for a new seed each time")

    @property
    def greedy(self) -> bool:
        """Whether the backend's own argmax is the next token, so that no logits are needed."""
        return self.temperature == 0 and self.repetition_penalty == 1


SPECULATIONS = ("off", "ngram", "head", "auto")
"""Values of `SpeculationConfig.source`."""


@dataclass(frozen=True)
class SpeculationConfig:
    """Whether greedy decoding drafts tokens and has them checked together, which changes its speed but no answer.

    `source` 'ngram' drafts what followed the same words in the prompt, in the answer so far and in the previous answer
    to the same question about the same cameras. 'head' guesses with `draft_head.onnx`, which is trained for the model.
    'auto' does the first where four words match, else the second, or only the first where there is no head. Drafts are
    used where they prove faster. `most_tokens` are drafted at a time.
    """

    source: str = "off"
    most_tokens: int = MOST_DRAFT_TOKENS

    def __post_init__(self) -> None:
        if self.source not in SPECULATIONS:
            raise ConfigError(
                f"speculation is {self.source!r}; allowed: {', '.join(SPECULATIONS)}. Use 'off' if in doubt"
            )
        _check_integer(
            "speculation_tokens",
            self.most_tokens,
            1,
            f"use {MOST_DRAFT_TOKENS} to let measurements decide",
            MOST_DRAFT_TOKENS,
        )


@dataclass(frozen=True)
class ReuseConfig:
    """What is kept for further questions about the same frames, whose answers it does not change.

    `frames` is how many frames' visual tokens are kept, of views that say which frame they are; the decoder's cache is
    then used as far as a prompt begins like the previous one. A frame takes 0.5 MB a tile with InternVL2-1B in fp16.
    0 keeps nothing.
    """

    frames: int = 8

    def __post_init__(self) -> None:
        _check_integer("reuse_frames", self.frames, 0, "use 0 to encode each frame anew", 1000)


VIEW_SELECTIONS = ("off", "lexical", "learned")
"""Values of `ViewSelectionConfig.method`."""


@dataclass(frozen=True)
class ViewSelectionConfig:
    """Which of several views a question is answered from; the others are not even encoded.

    `method` 'lexical' goes by the words of the question (`vision/view_selection.py`): a view scores 1 if its camera or
    that side of the robot is named and 0.4 if its direction is mentioned, and those above `threshold` are kept. Without
    any hint all are. `phrases` adds words for cameras, by their names and in any language. 'learned' adds the logits of
    `view_selector.onnx` in the model directory to these scores (`vision/learned_view_selection.py`).
    """

    method: str = "off"
    threshold: float = 0.5
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in VIEW_SELECTIONS:
            raise ConfigError(
                f"view_selection is {self.method!r}; allowed: {', '.join(VIEW_SELECTIONS)}. Use 'off' if in doubt"
            )
        _check_number("view_selection_threshold", self.threshold, "use 0.5", zero=True, high=1)
        for camera, phrases in self.phrases.items():
            if isinstance(phrases, str) or not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
                raise ConfigError(
                    f"view_selection_phrases of {camera} is {phrases!r}; allowed: texts that are not blank. Leave the "
                    "camera out if there are none"
                )


TOKEN_SELECTIONS = ("off", "random", "diversity", "similarity", "scorer")
"""Values of `TokenSelectionConfig.method`."""


@dataclass(frozen=True)
class TokenSelectionConfig:
    """Which of a tile's visual tokens the language model reads; the others are dropped before prefill.

    `keep` is the share of each tile's tokens that stay. `method` is how they are chosen (`vision/token_selection.py`):
    'diversity' and 'similarity' need no training, 'scorer' needs the model's `token_scorer.onnx`, and 'random' is there
    to compare with.
    """

    method: str = "off"
    keep: float = 0.6

    def __post_init__(self) -> None:
        if self.method not in TOKEN_SELECTIONS:
            raise ConfigError(
                f"token_selection is {self.method!r}; allowed: {', '.join(TOKEN_SELECTIONS)}. Use 'off' if in doubt"
            )
        _check_number("token_selection_keep", self.keep, "use 0.6, which costs little with diversity", high=1)


@dataclass(frozen=True)
class PipelineConfig:
    """What `Pipeline.from_config` loads, and how it runs.

    `model_dir` is a model directory with engines or exported graphs; `engine_dir` is where its engines are if they are
    elsewhere. `backend` 'auto' is TensorRT where engines that fit this machine are there, else ONNX Runtime.
    `vision_precision` and `text_precision` name the engine, or ONNX Runtime's graph, if there are several; 'auto' takes
    the most accurate one that fits. `memory_budget_mb` is the memory in MB above which loading the model gives a
    warning (0: none). `max_context` counts the tokens of prompt, images and answer together (0: as many as model and
    engine allow); `max_tiles` the tiles a view is cut into, without its thumbnail; `threads` ONNX Runtime's CPU threads
    (0: one for each core). `spin_threads` lets threads burn CPU while they wait, for each other or for the GPU, which
    is faster where nothing else needs it. `system_prompt` replaces the model family's own; '' leaves it out. `sampling`
    is the default of every answer. `speculation` drafts tokens of greedy ones; `reuse` keeps what further questions
    about the same frames need; `view_selection` leaves out views, and `token_selection` parts of them.
    """

    model_dir: Path
    engine_dir: Path | None = None
    backend: str = "auto"
    vision_precision: str = "auto"
    text_precision: str = "auto"
    memory_budget_mb: int = 0
    max_context: int = 0
    max_tiles: int = 1
    threads: int = 0
    spin_threads: bool = False
    system_prompt: str | None = None
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
        _check_choice("backend", self.backend, BACKENDS)
        _check_choice("vision_precision", self.vision_precision, PRECISION_CHOICES)
        _check_choice("text_precision", self.text_precision, PRECISION_CHOICES)
        _check_integer("memory_budget_mb", self.memory_budget_mb, 0, "use 0 for no budget")
        _check_integer("max_context", self.max_context, 0, "use 0 for as many tokens as the model allows")
        _check_integer("max_tiles", self.max_tiles, 1, "use 1 to show the model each view as one tile", MAX_TILES)
        _check_integer("threads", self.threads, 0, "use 0 for one thread for each core")
        if self.system_prompt is not None and not isinstance(self.system_prompt, str):
            raise ConfigError(
                f"system_prompt is {self.system_prompt!r}; allowed: a text. Use None for the model family's own"
            )

    @property
    def engines(self) -> Path:
        """The directory of the engines."""
        return self.engine_dir or self.model_dir


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; allowed: {', '.join(choices)}. Use 'auto' if in doubt")


def _check_integer(name: str, value: object, low: int, fix: str, high: int | None = None) -> None:
    fits = isinstance(value, int) and not isinstance(value, bool) and low <= value and (high is None or value <= high)
    if not fits:
        allowed = f"whole numbers from {low}" + (f" to {high}" if high is not None else "")
        raise ConfigError(f"{name} is {value!r}; allowed: {allowed}. To correct it, {fix}")


def _check_number(name: str, value: object, fix: str, *, zero: bool = False, high: float = math.inf) -> None:
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(number) and number <= high and (number > 0 or (zero and number == 0))):
        allowed = ("numbers from 0" if zero else "numbers above 0") + (f", at most {high:g}" if high < math.inf else "")
        raise ConfigError(f"{name} is {value!r}; allowed: {allowed}. To correct it, {fix}")
