"""Our engines against transformers in one run, with the same weights, images and questions.

Stages of fixed sizes are timed alone, and whole captions from image to last token. Engines are built first, which is
timed too. Beside that, the comparison takes about two minutes on an H100, most of which torch.compile needs: so engines
of one precision, and of transformers' two ways only the compiled one, are compared unless others are asked for.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from litevlm_ros.config import CAPTION_PROMPT, PipelineConfig, ReuseConfig
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.lab.benchmarking.accuracy import Accuracy, Observation, judge, observe
from litevlm_ros.lab.benchmarking.build_time import Build, time_build
from litevlm_ros.lab.benchmarking.comparison_result import Caption, Comparison, EngineFacts, StageTime, Way
from litevlm_ros.lab.benchmarking.exact_stages import (
    COMPILED_TILES,
    RESOLUTION,
    STAGES,
    Stage,
    fitting,
    time_cutting,
    time_engines,
    time_transformers,
)
from litevlm_ros.lab.benchmarking.gpu_access import Gpu
from litevlm_ros.lab.benchmarking.roofline import copy_bandwidth, matrix_rate
from litevlm_ros.lab.benchmarking.stages import Workload, camera_views, time_answers
from litevlm_ros.machine import find_device, gpu_memory_in_use, own_gpu_memory
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.packages import pip_command
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.precision import choose_precision, parse_precision_pair
from litevlm_ros.types import Notify

REFERENCES = ("eager", "compiled")
MAX_CONTEXT = 2048
MAX_TILES = 12


def compare_named(
    model: Path, engines: str, references: str, views: Sequence[int], tokens: int, runs: int, notify: Notify = print
) -> Comparison:
    """Compares `engines` such as 'fp16/fp16,bf16/bf16' and `references` such as 'eager,compiled'.

    Engines that cannot be built or run are skipped and named. Needs a GPU and PyTorch, and transformers for references.
    Raises LiteVLMError.
    """
    pairs = [parse_precision_pair("--engines", text) for text in engines.split(",") if text]
    ways = [way for way in references.split(",") if way]
    for way in ways:
        if way not in REFERENCES:
            raise ConfigError(f"--references has {way!r}; allowed: {', '.join(REFERENCES)}")
    require_transformers("on a CPU, `benchmark` alone measures what the node does")
    return _Comparing(model, tuple(views), tokens, runs, notify).run(pairs, ways)


def require_transformers(instead: str) -> None:
    """Raises ConfigError where --compare-transformers cannot run; `instead` says what can be done without a GPU."""
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--compare-transformers needs PyTorch and transformers ({error}): `{pip_command('torch', 'transformers')}`"
        ) from error
    if find_device() is None:
        raise ConfigError("--compare-transformers needs an NVIDIA GPU, and there is none here, or its driver does not "
                          f"start; {instead}")  # fmt: skip
    if not torch.cuda.is_available():
        raise ConfigError(
            f"--compare-transformers needs PyTorch for CUDA, and version {torch.__version__} finds no GPU: install "
            "one that fits this driver (https://pytorch.org/get-started)"
        )


class _Comparing:
    """One comparison."""

    def __init__(self, model: Path, views: tuple[int, ...], tokens: int, runs: int, notify: Notify) -> None:
        self._directory, self._views, self._tokens, self._runs = model, views, tokens, runs
        self._model = ModelConfig.from_directory(model)
        self._stages = fitting(STAGES, self._model, MAX_CONTEXT)
        self._notify = notify
        self._before = gpu_memory_in_use()

    def run(self, engines: Sequence[tuple[str, str]], references: Sequence[str]) -> Comparison:
        """Measures all ways. Raises LiteVLMError."""
        measured, skipped = [], []
        for pair in engines:
            try:
                measured.append(self._measure_engines(*pair))
            except EngineError as error:
                skipped.append(f"{'/'.join(pair)}: {error}")
                self._notify(f"skipped {skipped[-1]}")
        others = [self._measure_transformers(way) for way in references]
        # References for accuracy come last, as PyTorch keeps some of the memory that it has used.
        accuracies = [judge(each.seen, self._directory) for each in measured]
        bandwidth, rate = copy_bandwidth(), matrix_rate()
        ways = [
            each.way(accuracy, self._floors(each.times, each.precisions, bandwidth, rate))
            for each, accuracy in zip(measured, accuracies, strict=True)
        ]
        for name, times, captions, memory in others:
            ways.append(Way(name, self._floors(times, ("fp16", "fp16"), bandwidth, rate), captions, memory))
        return Comparison(tuple(ways), bandwidth, rate, self._tokens, self._runs, tuple(skipped))

    def _measure_engines(self, vision: str, text: str) -> _MeasuredEngines:
        """Builds engines and measures everything that does not need PyTorch."""
        device = find_device()
        capability = device.compute_capability if device else None
        built = [
            choose_precision(part, "fp16" if asked == "auto" else asked, capability).built
            for part, asked in ((VISION, vision), (TEXT, text))
        ]
        precisions = built[0], built[1]
        with contextlib.ExitStack() as stack:
            output = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="litevlm_engines_")))
            context = min(MAX_CONTEXT, self._model.text.max_position_embeddings)
            build = time_build(self._directory, output, *precisions, MAX_TILES, context)
            self._notify(f"engines {'/'.join(built)}: built in {build.seconds:.1f} s")
            settings = PipelineConfig(
                self._directory, engine_dir=output, backend="tensorrt", vision_precision=precisions[0],
                text_precision=precisions[1], spin_threads=True,
                reuse=ReuseConfig(frames=0),  # each run stands for a new frame
            )  # fmt: skip
            started = time.monotonic()
            pipeline = stack.enter_context(contextlib.closing(Pipeline.from_config(settings)))
            load_seconds = time.monotonic() - started
            backend = pipeline.backend
            self._notify(f"{backend.description}: loaded in {load_seconds:.1f} s")
            captions = tuple(self._caption(pipeline, count) for count in self._views)
            used, memory = self._used_memory(), dict(backend.memory())
            gpu = stack.enter_context(contextlib.closing(Gpu()))
            times = time_engines(backend, self._model, self._stages, self._runs, gpu)
            cutting = time_cutting(backend, self._model, self._runs, gpu)
            seen = observe(backend, self._model, gpu)
            self._notify(f"{backend.description}: {_in_words(times, captions, used)}")
        return _MeasuredEngines(
            precisions, times, captions, used, build, load_seconds, cutting, memory, seen
        )  # fmt: skip

    def _caption(self, pipeline: Pipeline, views: int) -> Caption:
        answers = time_answers(pipeline, camera_views(views, RESOLUTION), self._tokens, self._runs)
        times = {name: answers[name].median for name in ("vision", "prefill", "decode_token", "total")}
        return Caption(views, round(answers["prompt_tokens"].median), times)

    def _measure_transformers(self, way: str) -> tuple[str, dict[Stage, float], tuple[Caption, ...], int | None]:
        """Measures one of REFERENCES, and returns its name, stages, captions and memory."""
        import torch

        from litevlm_ros.lab.benchmarking.transformers_stages import TransformersStages, cache_rows, time_stages

        loads = {
            count: Workload.of(self._directory, camera_views(count, RESOLUTION), CAPTION_PROMPT)
            for count in self._views
        }
        longest = max(len(load.prompt) for load in loads.values()) + self._tokens
        reference = TransformersStages(
            self._directory,
            way,
            dtype=torch.float16,
            device="cuda",
            max_context=cache_rows(max(longest, MAX_CONTEXT), self._model.text.max_position_embeddings),
        )
        captions = []
        for count, load in loads.items():
            samples = time_stages(reference, load, self._tokens, self._runs)
            medians = {name: statistics.median(values) for name, values in samples.items()}
            captions.append(Caption(count, len(load.prompt), medians))
        memory = self._used_memory()
        self._notify(f"transformers, {way}: captions measured")
        wanted = [stage for stage in self._stages if stage.kind != "vision" or stage.size in COMPILED_TILES]
        times = time_transformers(reference, self._model, wanted, self._runs)
        self._notify(f"transformers, {way}: {_in_words(times, captions, memory)}")
        del reference
        gc.collect()
        torch.compiler.reset()
        torch.cuda.empty_cache()
        return f"transformers, {way}", times, tuple(captions), memory

    def _floors(
        self, times: dict[Stage, float], precisions: tuple[str, str], bandwidth: float, rate: float
    ) -> dict[str, StageTime]:
        return {
            stage.title: StageTime(ms, stage.cost(self._model, *precisions).floor_ms(bandwidth, rate))
            for stage, ms in times.items()
        }

    def _used_memory(self) -> int | None:
        """Returns this process's device memory, or how much more is in use than before where NVML tells only that."""
        own, now = own_gpu_memory(), gpu_memory_in_use()
        if own is not None or now is None or self._before is None:
            return own
        return now - self._before


def _in_words(times: dict[Stage, float], captions: Sequence[Caption], memory: int | None) -> str:
    """Returns the measurements of one way in a line, so that a run that is interrupted has shown them."""
    parts = [f"{stage.title} {ms:.2f} ms" for stage, ms in times.items()]
    parts += [f"caption of {caption.views} views {caption.times['total']:.1f} ms" for caption in captions]
    return ", ".join(parts if memory is None else [*parts, f"{memory / 1e9:.2f} GB on the GPU"])


@dataclass(frozen=True)
class _MeasuredEngines:
    """Measurements of engines before transformers told how accurate they are."""

    precisions: tuple[str, str]
    times: dict[Stage, float]
    captions: tuple[Caption, ...]
    used: int | None
    build: Build
    load_seconds: float
    cutting: dict[str, float]
    memory: dict[str, int]
    seen: Observation

    def way(self, accuracy: Accuracy, stages: dict[str, StageTime]) -> Way:
        """Adds accuracy and floors."""
        facts = EngineFacts(self.build, self.load_seconds, self.cutting, self.memory, accuracy)
        return Way(f"engines {'/'.join(self.precisions)}", stages, self.captions, self.used, facts)
