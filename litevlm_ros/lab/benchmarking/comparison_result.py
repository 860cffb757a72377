"""The results of a comparison of engines with transformers, as JSON and as a chart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.benchmarking.accuracy import Accuracy
from litevlm_ros.lab.benchmarking.build_time import Build
from litevlm_ros.machine import describe
from litevlm_ros.packages import pip_command


@dataclass(frozen=True)
class StageTime:
    """The median of a stage and its floor, both in ms."""

    ms: float
    floor_ms: float


@dataclass(frozen=True)
class Caption:
    """Medians in ms of a caption of some views: 'vision', 'prefill', 'decode_token' and 'total', preprocessing too."""

    views: int
    prompt_tokens: int
    times: dict[str, float]

    def parts(self, tokens: int) -> dict[str, float]:
        """Splits the time of a caption of `tokens` tokens into its stages and the rest, in ms."""
        parts = {
            "vision": self.times["vision"],
            "prefill": self.times["prefill"],
            "decode": self.times["decode_token"] * max(1, tokens - 1),
        }
        return {**parts, "rest": max(0.0, self.times["total"] - sum(parts.values()))}


@dataclass(frozen=True)
class EngineFacts:
    """Facts that only engines have.

    `cutting` has the ms in which six views are cut into tiles on the 'host' and on the 'device'; `memory` the device
    memory by purpose, in bytes, without CUDA's context.
    """

    build: Build
    load_seconds: float
    cutting: dict[str, float]
    memory: dict[str, int]
    accuracy: Accuracy


@dataclass(frozen=True)
class Way:
    """One way to run the model. `stages` has the times by title (`Stage.title`).

    `memory` is this process's device memory in bytes after the captions, CUDA's context included; None where NVML does
    not tell. `engines` is None for transformers.
    """

    name: str
    stages: dict[str, StageTime]
    captions: tuple[Caption, ...]
    memory: int | None
    engines: EngineFacts | None = None


@dataclass(frozen=True)
class Comparison:
    """All ways, and the rates behind the floors in bytes/s and FLOP/s. `tokens` is the length of the captions."""

    ways: tuple[Way, ...]
    bandwidth: float
    rate: float
    tokens: int
    runs: int
    skipped: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """Returns all of it, and what this machine is."""
        return {"machine": describe(), **asdict(self)}

    def draw(self, file: Path) -> None:
        """Draws where the time of a caption goes, fastest first, in a panel for each number of views.

        Raises ConfigError without matplotlib, and OSError.
        """
        try:
            from litevlm_ros.lab.charts import StackedBars, draw_comparison
        except ImportError as error:
            raise ConfigError(f"--chart needs matplotlib ({error}): `{pip_command('matplotlib')}`") from error
        panels = {}
        captions = [(way.name, caption) for way in self.ways for caption in way.captions]
        for count in sorted({caption.views for _, caption in captions}):
            shown = sorted(
                ((name, caption) for name, caption in captions if caption.views == count),
                key=lambda pair: pair[1].times["total"],
            )
            title = f"{count} view{'s' * (count > 1)}, {shown[0][1].prompt_tokens} + {self.tokens} tokens"
            parts = [caption.parts(self.tokens) for _, caption in shown]
            panels[title] = StackedBars(
                [name for name, _ in shown],
                {name: [part[name] for part in parts] for name in parts[0]},
                [f"{caption.times['total']:.1f} ms" for _, caption in shown],
            )
        draw_comparison(panels, file)
