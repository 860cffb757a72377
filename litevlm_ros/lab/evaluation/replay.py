"""A loaded model that says given texts and does the whole work of finding them.

With it a model of another size, or one with random weights, is timed on the answers of another model: as many tokens,
and as many right drafts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from litevlm_ros.backend import DecoderOutput, HiddenStates, KVCache, Logits, TextDecoder, TokenIds, VisualTokens
from litevlm_ros.config import (
    PipelineConfig,
    ReuseConfig,
    SamplingConfig,
    SpeculationConfig,
    TokenSelectionConfig,
    ViewSelectionConfig,
)
from litevlm_ros.lab.evaluation.table_accuracy import Given
from litevlm_ros.lab.evaluation.table_rows import RenderedViews, TableQuestion
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.runtime.load import load_backend
from litevlm_ros.text.tokenizer import TextTokenizer
from litevlm_ros.types import Answer


@dataclass(frozen=True)
class _Replayed:
    """The output of the wrapped decoder with other next tokens."""

    found: DecoderOutput
    next_tokens: TokenIds

    def logits(self) -> Logits:
        """See `DecoderOutput.logits`."""
        return self.found.logits()

    def hidden(self) -> HiddenStates:
        """See `DecoderOutput.hidden`."""
        return self.found.hidden()


class ReplayingDecoder:
    """A `TextDecoder` around another one. `say` sets the answer to the next prompt."""

    def __init__(self, text: TextDecoder) -> None:
        self._text = text
        self._answer: Sequence[int] = ()
        self._start: int | None = None

    def say(self, answer: Sequence[int]) -> None:
        """Sets the tokens of the next answer. The last one, which should be a stop token, is repeated for ever."""
        self._answer, self._start = answer, None

    @property
    def cache(self) -> KVCache:
        """See `TextDecoder.cache`."""
        return self._text.cache

    @property
    def most_logits(self) -> int:
        """See `TextDecoder.most_logits`."""
        return self._text.most_logits

    @property
    def gives_hidden(self) -> bool:
        """See `TextDecoder.gives_hidden`."""
        return self._text.gives_hidden

    def prepare(self, counts: Sequence[int]) -> None:
        """See `TextDecoder.prepare`."""
        self._text.prepare(counts)

    def forward(
        self,
        input_ids: TokenIds,
        position_ids: TokenIds,
        visual_tokens: VisualTokens | None = None,
        num_logits: int = 1,
    ) -> DecoderOutput:
        """See `TextDecoder.forward`. The first call after `say` reads the prompt."""
        if self._start is None:
            self._start = int(position_ids[-1]) + 1
        found = self._text.forward(input_ids, position_ids, visual_tokens, num_logits)
        # Reading them waits until they are computed, as it does when they are what counts.
        replayed = np.array(found.next_tokens)
        replayed[:] = [self._after(int(position)) for position in position_ids[-num_logits:]]
        return _Replayed(found, replayed)

    def decode_greedy(self, token: int, position: int, limit: int) -> Iterator[int]:
        """See `TextDecoder.decode_greedy`."""
        for place, _ in enumerate(self._text.decode_greedy(token, position, limit), start=position):
            yield self._after(place)

    def _after(self, position: int) -> int:
        """Returns the answer's token that follows the one at `position`."""
        index = position + 1 - (self._start or 0)
        return self._answer[min(index, len(self._answer) - 1)]


def loading(config: PipelineConfig) -> PipelineConfig:
    """Returns `config` without the settings that a loaded model does not depend on. Equal results share a model."""
    return replace(
        config,
        sampling=SamplingConfig(),
        speculation=SpeculationConfig(),
        reuse=ReuseConfig(),
        view_selection=ViewSelectionConfig(),
        token_selection=TokenSelectionConfig(),
        system_prompt=None,
        view_label="",
        stitch_views=False,
    )


class ReplayingPipeline:
    """A pipeline that repeats known answers from known views, and takes as long as if it had found them."""

    def __init__(self, pipeline: Pipeline, text: ReplayingDecoder, rendered: RenderedViews) -> None:
        """`text` is the decoder of `pipeline`."""
        self._pipeline, self._text, self._rendered = pipeline, text, rendered
        self._stop = min(pipeline.tokenizer.stop_ids)

    def answer(self, asked: TableQuestion, given: Given) -> Answer:
        """Repeats `given` as the answer. Raises what `Pipeline.generate` raises."""
        self._text.say([*self._pipeline.tokenizer.encode(given.text), self._stop])
        views = [replace(view, frame=None) for view in self._rendered.of(asked) if view.camera in given.cameras]
        return self._pipeline.generate(views, asked.question.text, all_views=True)

    def answer_without_drafts(self, asked: TableQuestion, given: Given) -> Answer:
        """Does the same, and the source of drafts learns nothing from it."""
        speculator, self._pipeline.speculator = self._pipeline.speculator, None
        try:
            return self.answer(asked, given)
        finally:
            self._pipeline.speculator = speculator


class ReplayingModel:
    """A model that is loaded once, for several pipelines one after the other."""

    def __init__(self, config: PipelineConfig, rendered: RenderedViews) -> None:
        """Loads the model of `config`. Raises ConfigError, CheckpointError or EngineError."""
        started = time.monotonic()
        self._model = ModelConfig.from_directory(config.model_dir)
        self._tokenizer = TextTokenizer.from_directory(config.model_dir)
        self._backend, self._rendered = load_backend(config, self._model), rendered
        self.description = self._backend.description
        self.load_seconds = time.monotonic() - started

    def pipeline(self, config: PipelineConfig) -> ReplayingPipeline:
        """Makes a pipeline of `config`, whose `loading` is that of this model. Raises ConfigError and EngineError."""
        text = ReplayingDecoder(self._backend.text)
        pipeline = Pipeline(config, self._model, self._tokenizer, replace(self._backend, text=text))
        return ReplayingPipeline(pipeline, text, self._rendered)

    def close(self) -> None:
        """Releases the model's memory. None of its pipelines can be used afterwards."""
        self._backend.close()
