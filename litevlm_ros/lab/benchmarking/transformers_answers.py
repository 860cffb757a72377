"""A row of the paper's table for transformers: the base's questions, from the same frames to texts of equal length.

Vision encoder and decode step are compiled as transformers' documentation shows, with a static cache, each for one
shape. Prefill stays eager, since its length differs from question to question. Tiles are cut by the host.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import FrameType

import numpy as np
import torch

from litevlm_ros.backend import TokenIds
from litevlm_ros.config import SamplingConfig
from litevlm_ros.errors import LiteVLMError, first_line
from litevlm_ros.lab.benchmarking.transformers_stages import TransformersStages, cache_rows
from litevlm_ros.lab.evaluation.table_latency import RENDERED_EXERCISES, Asked, RowLatency, warm_up
from litevlm_ros.lab.evaluation.table_rows import RenderedViews
from litevlm_ros.lab.evaluation.table_run import Reference
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.text.prompt import PromptBuilder
from litevlm_ros.text.tokenizer import TextTokenizer
from litevlm_ros.types import Answer, FinishReason, Notify, Timings, TokenCounts, View
from litevlm_ros.vision.tiling import HostTiler

COMPILE_SECONDS = 240
"""The most time for loading and compiling. An H100 needs about 60 s."""

_COMPILING_RUNS = 3
"""The first run of a shape compiles, and the next ones record its CUDA graph."""
_MOST_TOKENS = SamplingConfig.max_new_tokens


class CompilingTooLong(LiteVLMError):
    """Loading and compiling took more than COMPILE_SECONDS."""


class TransformersAnswers:
    """transformers' model of a model directory, from views and a question to a text."""

    def __init__(
        self, directory: Path, pairs: Sequence[Asked], *, way: str, dtype: torch.dtype, device: str, max_tiles: int = 1
    ) -> None:
        """Loads what `TransformersStages` loads, with a cache that is as long as `pairs` need. Raises LiteVLMError."""
        self._model = ModelConfig.from_directory(directory)
        self._tokenizer = TextTokenizer.from_directory(directory)
        self._tiler = HostTiler(self._model, max_tiles)
        self._rendered = RenderedViews(RENDERED_EXERCISES)
        vocab_size, self._rows = self._model.text.vocab_size, self._model.vision.tokens_per_tile
        self._builder = PromptBuilder(self._model.template, self._tokenizer, vocab_size, self._rows)
        # Views of one size have equally many tiles, so one exercise tells the length of its prompt's beginning.
        views = self._rendered.of(pairs[0][0])
        prompts = (self._prompt(views, self._tiler.cut(views).counts, asked.question.text) for asked, _ in pairs)
        room = cache_rows(max(map(len, prompts)) + _MOST_TOKENS, self._model.text.max_position_embeddings)
        self._stages = TransformersStages(directory, way, dtype=dtype, device=device, max_context=room)

    def answer(self, pair: Asked) -> Answer:
        """Answers a question from all views with as many tokens as its given answer has, and a token that ends it."""
        asked, given = pair
        views, stages = self._rendered.of(asked), self._stages
        count = len(self._tokenizer.encode(given.text))
        steps = min(count, _MOST_TOKENS - 1)  # prefill gives the first token
        marks = [stages.now()]
        cut = self._tiler.cut(views)
        marks.append(stages.now())
        visual = stages.encode(cut.tiles)
        marks.append(stages.now())
        prompt = self._prompt(views, cut.counts, asked.question.text)
        token, cache = stages.prefill(prompt, visual)
        marks.append(stages.now())
        text = self._tokenizer.decode(stages.ids([token, *stages.decode(token, len(prompt), cache, steps)]))
        marks.append(stages.now())
        preprocess, vision, prefill, decode = np.diff(marks).tolist()
        return Answer(
            text=text,
            prompt=asked.question.text,
            cameras=tuple(view.camera for view in views),
            finish_reason=FinishReason.STOP if steps == count else FinishReason.LENGTH,
            tokens=TokenCounts(len(prompt), len(visual), min(count, _MOST_TOKENS)),
            timings=Timings(
                preprocess=preprocess, vision=vision, prefill=prefill, decode=decode, total=marks[-1] - marks[0]
            ),
        )

    def _prompt(self, views: Sequence[View], tiles: Sequence[int], question: str) -> TokenIds:
        prefix = self._builder.prefix([(view.camera, count) for view, count in zip(views, tiles, strict=True)])
        return np.array([*prefix, *self._builder.suffix(question)], np.int64)


def compiled_transformers(max_tiles: int) -> Reference:
    """Returns the row for a GPU with PyTorch and transformers; `max_tiles` is the pipeline's setting."""

    def measure(directory: Path, pairs: Sequence[Asked], count: int, notify: Notify) -> RowLatency:
        return time_transformers_answers(directory, pairs, count, notify, max_tiles=max_tiles)

    return Reference(
        title="transformers, compiled",
        measure=measure,
        packages=("torch", "transformers", "triton", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "tokenizers"),
        settings={"cache": "static", "compiled": ["vision encoder", "decode step"], "max_tiles": max_tiles},
    )


def time_transformers_answers(
    directory: Path,
    pairs: Sequence[Asked],
    count: int,
    notify: Notify,
    *,
    way: str = "compiled",
    dtype: torch.dtype = torch.float16,
    device: str = "cuda",
    max_tiles: int = 1,
) -> RowLatency:
    """Times the first `count` of `pairs`, after compiling and further questions. An error becomes the obstacle."""
    try:
        timed = _answers(directory, pairs, count, notify, way, dtype, device, max_tiles)
    except Exception as error:  # PyTorch's and Triton's own exceptions have no common base
        return RowLatency(obstacle=f"transformers cannot run here ({type(error).__name__}: {first_line(error)})")
    finally:
        gc.collect()
        torch.compiler.reset()
        torch.cuda.empty_cache()  # does nothing without CUDA
    return RowLatency.of(timed, [0.0], _description(way, dtype, device))


def _answers(
    directory: Path,
    pairs: Sequence[Asked],
    count: int,
    notify: Notify,
    way: str,
    dtype: torch.dtype,
    device: str,
    max_tiles: int,
) -> list[Answer]:
    started = time.monotonic()
    with _limited(COMPILE_SECONDS):
        answers = TransformersAnswers(directory, pairs, way=way, dtype=dtype, device=device, max_tiles=max_tiles)
        for pair in pairs[:_COMPILING_RUNS]:
            answers.answer(pair)
    compiled = time.monotonic()
    notify(f"  loaded and compiled in {compiled - started:.1f} s")
    for pair in warm_up(pairs, count):
        answers.answer(pair)
    timed = [answers.answer(pair) for pair in pairs[:count]]
    notify(f"  the row took {time.monotonic() - compiled:.1f} s")
    return timed


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """Raises CompilingTooLong in the block after `seconds`. It must be entered on the main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise CompilingTooLong(
            f"it was not compiled within {seconds} s; run the same command again, which goes on from PyTorch's cache"
        )

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _description(way: str, dtype: torch.dtype, device: str) -> str:
    kind = "static cache and torch.compile" if way == "compiled" else "a cache that grows"
    precision = {torch.float16: "fp16", torch.float32: "fp32"}[dtype]
    return (
        f"transformers {metadata.version('transformers')}, PyTorch {torch.__version__}, {device}, {precision}, {kind}, "
        "tiles cut on the host"
    )
