"""Estimates for Jetson Orin boards, on which nothing was measured: times and memory of each choice of precisions.

A time has a floor, which is the path's bytes and FLOPs (`path_costs.py`) at the rates of the board's data sheet, and an
estimate, which divides these rates by what real runs reach of them (`efficiency.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from litevlm_ros.config import SETTINGS
from litevlm_ros.lab.benchmarking import path_costs
from litevlm_ros.lab.benchmarking.boards import BOARDS, Board, Mode
from litevlm_ros.lab.benchmarking.efficiency import PUBLISHED, Efficiency, read_efficiency
from litevlm_ros.lab.benchmarking.path_memory import NODE_BYTES, model_memory
from litevlm_ros.launching.preflight import read_parameters
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import shipped
from litevlm_ros.vision.token_selection import tokens_kept

SCHEMES = (("fp16", "fp16"), ("fp8", "fp8"), ("fp16", "fp8"), ("fp16", "int4"))
"""The precisions of vision encoder and text decoder that are compared. All are computed with in fp16."""

TEXT_TOKENS = 64
"""The tokens of a prompt besides visual tokens: system prompt, instruction and template."""
QUESTION_TOKENS = 32
"""The tokens that a further question about the same views adds."""
CHECKED_TOKENS = 8
"""The tokens of one call that checks a draft."""


@dataclass(frozen=True)
class Time:
    """Milliseconds: `floor` at the rates of the data sheet, `estimate` at those that runs reach."""

    floor: float
    estimate: float

    def __add__(self, other: Time) -> Time:
        return Time(self.floor + other.floor, self.estimate + other.estimate)

    def times(self, count: int) -> Time:
        """Returns the time of `count` repetitions."""
        return Time(count * self.floor, count * self.estimate)

    def __str__(self) -> str:
        return f"{self.floor:.1f} / {self.estimate:.1f}"


@dataclass(frozen=True)
class Preset:
    """The values of a board's parameter file that decide on time and memory."""

    file: str
    keep: float
    max_context: int
    max_new_tokens: int
    caption_period: float
    memory_budget: float
    reuse_frames: int

    @classmethod
    def of(cls, board: Board) -> Preset:
        """Reads the file that ships with this package. Raises ConfigError."""
        file = Path("config") / board.parameters
        given = read_parameters(shipped(file))

        def value(name: str) -> Any:
            return given[name] if name in given else SETTINGS[name].default

        return cls(
            str(file),
            value("token_selection_keep") if value("token_selection") != "off" else 1.0,
            value("max_context"),
            value("max_new_tokens"),
            float(given["caption_period"]),
            1e6 * value("memory_budget_mb"),
            value("reuse_frames"),
        )


@dataclass(frozen=True)
class Projection:
    """The estimates of one board in one mode with one choice of precisions.

    `visual_tokens` of all views are read by the decoder. `vision` and `prefill` are those of new views, `token` is one
    token behind the prompt, `checked` a call with CHECKED_TOKENS, and `question` the prefill of a further question
    about the same views. `memory` has bytes by purpose. `is_preset` marks what the board's launch file sets up.
    """

    board: str
    mode: str
    vision_precision: str
    text_precision: str
    views: int
    visual_tokens: int
    vision: Time
    prefill: Time
    token: Time
    checked: Time
    question: Time
    memory: dict[str, float]
    expected_ms: float
    expected_bytes: float
    is_preset: bool

    @property
    def first_token(self) -> Time:
        """The time from new views to the first token."""
        return self.vision + self.prefill

    @property
    def memory_bytes(self) -> float:
        """All memory."""
        return sum(self.memory.values())

    def tokens_within(self, first: Time) -> tuple[int, int]:
        """Returns how many tokens fit into `expected_ms` if the first takes `first`: at the floor, by the estimate."""
        pairs = ((first.floor, self.token.floor), (first.estimate, self.token.estimate))
        at_floor, estimated = (max(0, 1 + int((self.expected_ms - start) // each)) for start, each in pairs)
        return at_floor, estimated


def project(
    model: ModelConfig, board: Board, mode: Mode, efficiency: Efficiency = PUBLISHED, views: int = 1
) -> list[Projection]:
    """Estimates `views` views of one tile each, for each of SCHEMES and for the board's preset."""
    preset, rates = Preset.of(board), board.rates(mode)

    def time(kind: str, path: path_costs.Path) -> Time:
        reached = efficiency.shares[kind].of(rates)
        return Time(path_costs.path_ms(path, rates), path_costs.path_ms(path, reached))

    def row(vision: str, text: str, keep: float) -> Projection:
        visual = views * tokens_kept(keep, model.vision.tokens_per_tile)
        prompt = visual + TEXT_TOKENS
        memory = model_memory(
            model, vision, text, tiles=views, max_context=preset.max_context, frames=preset.reuse_frames
        )
        return Projection(
            board.title,
            mode.name,
            vision,
            text,
            views,
            visual,
            time("vision", path_costs.vision_path(model, views, vision)),
            time("prefill", path_costs.prefill_path(model, prompt, 0, text)),
            time("decode", path_costs.step_path(model, 1, prompt, text)),
            time("decode", path_costs.step_path(model, CHECKED_TOKENS, prompt, text)),
            time("prefill", path_costs.prefill_path(model, QUESTION_TOKENS, prompt, text)),
            {**memory, "libraries": efficiency.library_bytes, "the node's process": NODE_BYTES},
            board.expected_ms,
            board.expected_bytes,
            is_preset=(vision, text) == board.built and keep == preset.keep,
        )

    rows = [row(vision, text, 1.0) for vision, text in SCHEMES]
    return rows if preset.keep == 1 else [*rows, row(*board.built, preset.keep)]


def report_projection(
    directory: Path, board: str, views: int, measured: Path | None = None
) -> tuple[str, dict[str, Any]]:
    """Estimates `board`, one of BOARDS or 'all', for a model directory. Returns a text and its figures for JSON.

    `measured` is a file for `read_efficiency`. Raises CheckpointError and ConfigError.
    """
    model = ModelConfig.from_directory(directory)
    efficiency = read_efficiency(measured, model) if measured else PUBLISHED
    boards = BOARDS.values() if board == "all" else [BOARDS[board]]
    lines, rows = list(_introduction(model, efficiency, views)), []
    for each in boards:
        for mode in each.modes:
            projections = project(model, each, mode, efficiency, views)
            lines += ["", *_table(each, mode, projections)]
            rows += projections
    figures = {
        "model": str(directory),
        "efficiency": asdict(efficiency),
        "estimates": [asdict(row) for row in rows],
    }
    return "\n".join(lines), figures


def _introduction(model: ModelConfig, efficiency: Efficiency, views: int) -> Iterable[str]:
    visual = views * model.vision.tokens_per_tile
    yield "ESTIMATES for boards on which nothing was measured. Each pair is: floor / estimate, times in ms."
    yield (
        "Floor: the bytes and FLOPs of this package's paths at the rates of the data sheet. A run can be faster only "
        "by what stays in the L2 cache."
    )
    yield f"Estimate: {efficiency.source}."
    yield f"Memory of CUDA, TensorRT and cuDNN: {efficiency.library_bytes / 1e9:.2f} GB, {efficiency.library_source}."
    yield (
        f"Work: {views} new view{'s' * (views > 1)} of {model.vision.image_size} px, {visual} visual tokens and "
        f"{TEXT_TOKENS} of text; {CHECKED_TOKENS} tokens of a draft checked in one call; the first token of a further "
        f"question of {QUESTION_TOKENS} tokens about the same views."
    )
    yield "FP8, INT8 and INT4 are forms of storage. An Orin computes with all of them in FP16."


_COLUMNS: Mapping[str, str] = {
    "vision": "vision",
    "prefill": "prefill",
    "first_token": "first token",
    "token": "each token",
    "checked": "8 checked",
    "question": "next question",
}


def _table(board: Board, mode: Mode, rows: Iterable[Projection]) -> Iterable[str]:
    rates = board.rates(mode)
    yield (
        f"{board.title}, {mode.name}: {rates.bandwidth / 1e9:.0f} GB/s, {rates.flops / 1e12:.1f} TFLOP/s in FP16; "
        f"goal {board.expected_ms:.0f} ms, {board.expected_bytes / 1e9:.1f} GB"
    )
    yield f"{'vision/text':13}" + "".join(f"{title:>16}" for title in _COLUMNS.values()) + f"{'memory':>10}"
    preset = None
    for row in rows:
        name = f"{row.vision_precision}/{row.text_precision}" + "*" * row.is_preset
        times = "".join(f"{getattr(row, column)!s:>16}" for column in _COLUMNS)
        yield f"{name:13}{times}{row.memory_bytes / 1e9:7.2f} GB"
        preset = row if row.is_preset else preset
    if preset is not None:
        yield from _preset_lines(Preset.of(board), preset)


def _preset_lines(preset: Preset, row: Projection) -> Iterable[str]:
    new, again = row.tokens_within(row.first_token), row.tokens_within(row.question)
    caption = row.first_token + row.token.times(preset.max_new_tokens - 1)
    yield (
        f"* {preset.file}, whose decoder reads {row.visual_tokens} visual tokens. A caption of {preset.max_new_tokens} "
        f"tokens takes {caption} ms without drafts; one is due each {1e3 * preset.caption_period:.0f} ms."
    )
    yield (
        f"  {row.expected_ms:.0f} ms are enough for {new[0]} / {new[1]} tokens about new views, and for {again[0]} / "
        f"{again[1]} about views that were captioned just before."
    )
    parts = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in row.memory.items())
    yield f"  Memory of {row.memory_bytes / 1e6:.0f} MB (budget {preset.memory_budget / 1e6:.0f}): {parts}."
