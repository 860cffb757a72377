"""The ROS parameters that concern the model, and the pipeline they describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from litevlm_ros.config import (
    BACKENDS,
    MAX_TILES,
    MOST_DRAFT_TOKENS,
    SPECULATIONS,
    TOKEN_SELECTIONS,
    VIEW_SELECTIONS,
    PipelineConfig,
    ReuseConfig,
    SamplingConfig,
    SpeculationConfig,
    TokenSelectionConfig,
    ViewSelectionConfig,
)
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.node.parameter_types import Parameter, Values
from litevlm_ros.precision import PRECISION_CHOICES

MODEL_PARAMETERS: Mapping[str, Parameter] = {
    "model_dir": Parameter("", "Directory of the model. Empty: the demo model that ships with the package."),
    "backend": Parameter(
        "auto", "Inference backend. `auto`: TensorRT where its engines fit this machine, else ONNX Runtime.",
        choices=BACKENDS,
    ),
    "engine_dir": Parameter("", "Directory of the model's TensorRT engines. Empty: model_dir."),
    "vision_precision": Parameter(
        "auto", "Which engine, or graph, of the vision encoder is loaded. `auto`: the most accurate one that fits.",
        choices=PRECISION_CHOICES,
    ),
    "text_precision": Parameter(
        "auto", "Which engine, or graph, of the text decoder is loaded. `auto`: the most accurate one that fits.",
        choices=PRECISION_CHOICES,
    ),
    "memory_budget_mb": Parameter(
        0, "Memory in MB, of process and GPU together, above which loading the model gives a warning. 0: none.", 0,
        2**20,
    ),
    "threads": Parameter(0, "CPU threads of the backend. 0: one for each core.", 0, 1024),
    "max_tiles": Parameter(
        1, "Most tiles that a view is cut into. More see finer detail and take longer.", 1, MAX_TILES
    ),
    "max_context": Parameter(
        0, "Most tokens of prompt, images and answer together. 0: as many as the model allows.", 0, 2**20
    ),
    "system_prompt": Parameter("", "Replaces the system prompt of the model family. Empty: the family's own."),
    "max_new_tokens": Parameter(
        64, "Most tokens of a caption, or of an answer whose query does not say.", 1, 2**20, live=True
    ),
    "temperature": Parameter(
        0.0, "Of captions; a query has its own. 0: always the likeliest token. Above 0: sample, more freely if higher.",
        0, 100, live=True,
    ),
    "top_k": Parameter(
        0, "Of captions, where temperature is above 0: this many of the likeliest tokens. 0: no limit.", 0, 2**20,
        live=True,
    ),
    "top_p": Parameter(
        1.0, "Of captions, where temperature is above 0: the likeliest tokens that reach this probability. 1: all.",
        0.001, 1, live=True,
    ),
    "repetition_penalty": Parameter(
        1.0, "Above 1 makes tokens of the text so far less likely. 1: none.", 0.01, 100, live=True
    ),
    "view_selection": Parameter(
        "off", "How a question about all cameras chooses those that it needs. `lexical` goes by its words; where they "
        "say nothing, all are kept. `learned` adds what view_selector.onnx of the model says.", choices=VIEW_SELECTIONS
    ),
    "view_selection_threshold": Parameter(
        0.5, "Score from which a view is kept: a camera that is named has 1, one whose direction is mentioned 0.4.",
        0, 1, live=True,
    ),
    "view_selection_phrases": Parameter(
        [""], "Further words for cameras, such as `gripper: hand, tool`, one camera an entry. Empty: none.", live=True
    ),
    "token_selection": Parameter(
        "off", "How the visual tokens of each tile are chosen that the language model reads. `diversity` and "
        "`similarity` need no training, `scorer` needs the model's token_scorer.onnx, `random` is to compare with.",
        choices=TOKEN_SELECTIONS,
    ),
    "token_selection_keep": Parameter(0.6, "Share of each tile's visual tokens that is kept.", 0.001, 1, live=True),
    "speculation": Parameter(
        "off", "Source of drafts that greedy decoding checks several tokens at a time. `ngram` looks for the same "
        "words in earlier text, `head` asks a small trained network, `auto` does both. Drafting is used where it "
        "proves faster, and changes no answer.", choices=SPECULATIONS
    ),
    "speculation_tokens": Parameter(MOST_DRAFT_TOKENS, "Most tokens of one draft.", 1, MOST_DRAFT_TOKENS),
    "reuse_frames": Parameter(
        8, "Frames whose visual tokens are kept, so that another question about one does not encode it again. 0: none.",
        0, 1000,
    ),
}  # fmt: skip


def read_pipeline_config(values: Values) -> PipelineConfig:
    """Reads and checks the model's parameters. Raises ConfigError."""
    try:
        return PipelineConfig(
            model_dir=Path(values.text("model_dir")).expanduser()
            if values.text("model_dir")
            else demo_model_directory(),
            engine_dir=Path(values.text("engine_dir")).expanduser() if values.text("engine_dir") else None,
            backend=values.text("backend"),
            vision_precision=values.text("vision_precision"),
            text_precision=values.text("text_precision"),
            memory_budget_mb=values.integer("memory_budget_mb"),
            max_context=values.integer("max_context"),
            max_tiles=values.integer("max_tiles"),
            threads=values.integer("threads"),
            system_prompt=values.text("system_prompt") or None,
            sampling=SamplingConfig(
                max_new_tokens=values.integer("max_new_tokens"),
                temperature=values.number("temperature"),
                top_k=values.integer("top_k"),
                top_p=values.number("top_p"),
                repetition_penalty=values.number("repetition_penalty"),
            ),
            speculation=SpeculationConfig(values.text("speculation"), values.integer("speculation_tokens")),
            reuse=ReuseConfig(values.integer("reuse_frames")),
            view_selection=ViewSelectionConfig(
                method=values.text("view_selection"),
                threshold=values.number("view_selection_threshold"),
                phrases=_phrases(values.names("view_selection_phrases")),
            ),
            token_selection=TokenSelectionConfig(values.text("token_selection"), values.number("token_selection_keep")),
        )
    except ConfigError as error:
        raise ConfigError(f"parameter {str(error).removeprefix('parameter ')}") from None


def _phrases(entries: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`gripper: hand, tool` → {'gripper': ('hand', 'tool')}. Raises ConfigError."""
    phrases = {}
    for entry in entries:
        camera, colon, words = entry.partition(":")
        if not colon or not camera.strip():
            raise ConfigError(f"view_selection_phrases has {entry!r}; allowed: CAMERA: PHRASE, PHRASE. Add the colon")
        phrases[camera.strip()] = tuple(word.strip() for word in words.split(","))
    return phrases
