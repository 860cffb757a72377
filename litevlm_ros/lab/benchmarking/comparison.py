"""Our engines against transformers in one run, with the same weights, images and questions.

Beside each time stands its multiple of the floor: the bytes a stage must read over the measured copy bandwidth, or its
FLOPs over the measured matrix rate, whichever takes longer (see roofline.py).
"""

from __future__ import annotations

import gc
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from litevlm_ros.config import CAPTION_PROMPT, PipelineConfig, ReuseConfig
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.lab.benchmarking.roofline import copy_bandwidth, decode_cost, matrix_rate, prefill_cost, vision_cost
from litevlm_ros.lab.benchmarking.stages import Workload, camera_views, time_answers
from litevlm_ros.machine import describe
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.precision import parse_precision_pair
from litevlm_ros.types import Notify

COMPARED = ("vision", "prefill", "decode_token")
REFERENCES = ("eager", "compiled")
RESOLUTION = (1280, 720)


@dataclass(frozen=True)
class Row:
    """Medians in ms of one way to run the model on some views.

    `times` has the COMPARED and 'total': an answer of all tokens from image to last token. `floors` has the COMPARED.
    `memory` is in bytes, CUDA context included; None where `nvidia-smi` does not tell.
    """

    name: str
    views: int
    prompt_tokens: int
    times: dict[str, float]
    floors: dict[str, float] = field(default_factory=dict)
    memory: int | None = None

    def parts(self, tokens: int) -> dict[str, float]:
        """Splits the time of an answer of `tokens` tokens into its stages and the rest, in ms."""
        parts = {
            "vision": self.times["vision"],
            "prefill": self.times["prefill"],
            "decode": self.times["decode_token"] * max(1, tokens - 1),
        }
        return {**parts, "rest": max(0.0, self.times["total"] - sum(parts.values()))}


@dataclass(frozen=True)
class Comparison:
    """All rows, and the rates behind the floors in bytes/s and FLOP/s."""

    rows: tuple[Row, ...]
    bandwidth: float
    rate: float
    tokens: int
    runs: int
    skipped: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """Returns all of it, and what this machine is."""
        return {"machine": describe(), **asdict(self)}

    def draw(self, file: Path) -> None:
        """Draws where the time of an answer goes, fastest first, in a panel for each number of views.

        Raises ConfigError without matplotlib, and OSError.
        """
        try:
            from litevlm_ros.lab.charts import StackedBars, draw_comparison
        except ImportError as error:
            raise ConfigError(f"--chart needs matplotlib ({error}): `pip install matplotlib`") from error
        panels = {}
        for count in sorted({row.views for row in self.rows}):
            rows = sorted((row for row in self.rows if row.views == count), key=lambda row: row.times["total"])
            title = f"{count} view{'s' * (count > 1)}, {rows[0].prompt_tokens} + {self.tokens} tokens"
            parts = [row.parts(self.tokens) for row in rows]
            panels[title] = StackedBars(
                [row.name for row in rows],
                {name: [part[name] for part in parts] for name in parts[0]},
                [f"{row.times['total']:.1f} ms" for row in rows],
            )
        draw_comparison(panels, file)


def compare(
    model: Path,
    engines: Sequence[tuple[str, str]],
    references: Sequence[str],
    views: Sequence[int],
    tokens: int,
    runs: int,
    notify: Notify = print,
) -> Comparison:
    """Measures `engines`, as precisions of vision encoder and text decoder, and the ways in `references`.

    Engines that are not there are skipped and named. Needs a GPU and PyTorch, and transformers for references. Raises
    LiteVLMError.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--compare-transformers needs PyTorch ({error}): `pip install torch transformers`"
        ) from error
    before = _device_memory_in_use()
    config = ModelConfig.from_directory(model)
    rows, skipped = [], []
    for vision, text in engines:
        try:
            rows += _ours(model, vision, text, views, tokens, runs, before, notify)
        except EngineError as error:
            skipped.append(f"{vision}/{text}: {error}")
            notify(f"skipped {skipped[-1]}")
    for way in references:
        rows += _theirs(model, way, views, tokens, runs, before, notify)
    bandwidth, rate = copy_bandwidth(), matrix_rate()
    rows = [_with_floors(row, config, tokens, bandwidth, rate) for row in rows]
    return Comparison(tuple(rows), bandwidth, rate, tokens, runs, tuple(skipped))


def comparison_table(comparison: Comparison) -> str:
    """Returns a table in which each time is followed by its multiple of the floor."""
    title = f"caption of {comparison.tokens} ms"
    lines = [
        f"copy {comparison.bandwidth / 1e12:.2f} TB/s, matrices {comparison.rate / 1e12:.0f} TFLOP/s; medians of "
        f"{comparison.runs}; x: multiples of the floor at these rates",
        f"{'':24}{'views':>6}{'tokens':>7}{'vision ms':>17}{'prefill ms':>17}{'ms/token':>17}{title:>20}{'GB':>7}",
    ]
    for row in comparison.rows:
        stages = "".join(
            f"{row.times[name]:10.3f}{row.times[name] / row.floors[name]:6.1f}x"
            if row.floors
            else f"{row.times[name]:17.3f}"
            for name in COMPARED
        )
        memory = f"{row.memory / 1e9:7.2f}" if row.memory is not None else f"{'?':>7}"
        lines.append(f"{row.name:24}{row.views:6}{row.prompt_tokens:7}{stages}{row.times['total']:20.2f}{memory}")
    return "\n".join(lines)


def _ours(
    model: Path,
    vision: str,
    text: str,
    views: Sequence[int],
    tokens: int,
    runs: int,
    before: int | None,
    notify: Notify,
) -> list[Row]:
    settings = PipelineConfig(
        model, backend="tensorrt", vision_precision=vision, text_precision=text, spin_threads=True,
        reuse=ReuseConfig(frames=0),  # each run stands for a new frame
    )  # fmt: skip
    pipeline = Pipeline.from_config(settings)
    rows = []
    try:
        notify(pipeline.backend.description)
        for count in views:
            answers = time_answers(pipeline, camera_views(count, RESOLUTION), tokens, runs)
            times = {name: answers[name].median for name in (*COMPARED, "total")}
            rows.append(Row(f"ours {vision}/{text}", count, round(answers["prompt_tokens"].median), times,
                            memory=_difference(before)))  # fmt: skip
            notify(f"  {count} views: {times}")
        notify("  device memory: " + ", ".join(f"{name} {size / 1e6:.0f} MB"
                                               for name, size in pipeline.backend.memory().items()))  # fmt: skip
    finally:
        pipeline.close()
    return rows


def _theirs(
    model: Path, way: str, views: Sequence[int], tokens: int, runs: int, before: int | None, notify: Notify
) -> list[Row]:
    import torch

    from litevlm_ros.lab.benchmarking.transformers_stages import TransformersStages, time_stages

    loads = {count: Workload.of(model, camera_views(count, RESOLUTION), CAPTION_PROMPT) for count in views}
    room = max(len(load.prompt) for load in loads.values()) + tokens
    stages = TransformersStages(model, way, dtype=torch.float16, device="cuda", max_context=-(-room // 64) * 64)
    rows = []
    for count, load in loads.items():
        samples = time_stages(stages, load, tokens, runs)
        times = {name: statistics.median(values) for name, values in samples.items()}
        rows.append(Row(f"transformers {way}", count, len(load.prompt), times, memory=_difference(before)))
        notify(f"transformers {way}, {count} views: {times}")
    del stages
    gc.collect()
    torch.compiler.reset()
    torch.cuda.empty_cache()
    return rows


def _with_floors(row: Row, model: ModelConfig, tokens: int, bandwidth: float, rate: float) -> Row:
    precisions = row.name.removeprefix("ours ").split("/") if row.name.startswith("ours") else ["fp16", "fp16"]
    vision, text = ("fp16" if name == "auto" else name for name in precisions)
    costs = (
        vision_cost(model, row.views, vision),
        prefill_cost(model, row.prompt_tokens, text),
        decode_cost(model, row.prompt_tokens + tokens // 2, text),
    )
    floors = {name: cost.floor_ms(bandwidth, rate) for name, cost in zip(COMPARED, costs, strict=True)}
    return Row(row.name, row.views, row.prompt_tokens, row.times, floors, row.memory)


def _difference(before: int | None) -> int | None:
    now = _device_memory_in_use()
    return None if now is None or before is None else now - before


def _device_memory_in_use() -> int | None:
    """Returns the bytes of the first GPU that programs use; None where `nvidia-smi` does not tell (Jetson)."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return int(output.strip()) << 20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def compare_named(
    model: Path, engines: str, references: str, views: Sequence[int], tokens: int, runs: int
) -> Comparison:
    """Compares `engines` such as 'fp16/fp16,fp8/fp8' and `references` such as 'eager'. Raises LiteVLMError."""
    pairs = [parse_precision_pair("--engines", text) for text in engines.split(",") if text]
    ways = [way for way in references.split(",") if way]
    for way in ways:
        if way not in REFERENCES:
            raise ConfigError(f"--references has {way!r}; allowed: {', '.join(REFERENCES)}")
    return compare(model, pairs, ways, views, tokens, runs)
