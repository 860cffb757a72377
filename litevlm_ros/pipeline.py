"""Answers questions about camera views, in the five stages of LiteVLM (arXiv 2506.07416):

1. select views: leave out the views that the question does not need
2. encode: cut the views into tiles and run the vision encoder
3. select tokens: drop visual tokens
4. prefill: have the text decoder read the prompt
5. decode: generate the answer token by token

A pipeline belongs to one thread. After any exception, also one that a callback raised, it can be used as before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from litevlm_ros.backend import Backend, DecoderOutput, TokenIds, TokenSelector
from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.errors import ConfigError, ContextOverflowError, NotFiniteError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.load import load_backend
from litevlm_ros.text.draft_sources import load_drafts
from litevlm_ros.text.drafts import DraftSource
from litevlm_ros.text.prompt import Prefix, PromptBuilder
from litevlm_ros.text.sampling import Sampler
from litevlm_ros.text.speculator import Speculator
from litevlm_ros.text.tokenizer import GrowingAnswer, TextTokenizer
from litevlm_ros.types import (
    Answer,
    FinishReason,
    OnText,
    Reuse,
    Speculation,
    Timings,
    TokenCounts,
    View,
    milliseconds_since,
)
from litevlm_ros.vision.learned_view_selection import load_view_selector
from litevlm_ros.vision.stitching import names, pictures
from litevlm_ros.vision.tiling import HostTiler
from litevlm_ros.vision.view_encoder import ViewEncoder, ViewTokens


@dataclass(frozen=True, eq=False)
class EncodedViews(ViewTokens):
    """Views as the text decoder reads them. Further questions about the same object reuse its keys and values."""

    cameras: tuple[str, ...]
    prefix: Prefix
    """The prompt up to the question."""
    select_ms: float
    """Time that token selection took, in milliseconds."""


class Pipeline:
    """A loaded model that answers questions about views."""

    def __init__(
        self,
        config: PipelineConfig,
        model: ModelConfig,
        tokenizer: TextTokenizer,
        backend: Backend,
        drafts: DraftSource | None = None,
    ) -> None:
        """`drafts` replaces the source of drafts that `config.speculation` names.

        Raises ConfigError if the settings do not fit the model, and EngineError if a graph that they need is missing.
        """
        if config.max_tiles > 1 and model.max_dynamic_tiles == 1:
            raise ConfigError(f"max_tiles is {config.max_tiles}; allowed: 1, as this model sees each view whole. Use 1")
        self.config = config
        self.model = model
        self.tokenizer = tokenizer
        self.backend = backend
        self.stop_ids = tokenizer.stop_ids
        """The tokens that end an answer. They may be replaced between two questions."""
        self.token_selector: TokenSelector | None = None
        """Drops visual tokens. It may be replaced between two questions."""
        self.speculator: Speculator | None = None
        """Decodes greedy answers with drafts. It may be replaced between two questions."""
        sizes = (model.text.vocab_size, model.vision.tokens_per_tile)
        self._prompt = PromptBuilder(model.template, tokenizer, *sizes, config.system_prompt, config.view_label)
        self._view_selector = load_view_selector(config.view_selection, config.model_dir)
        tiler = (backend.tiler or HostTiler)(model, config.max_tiles)
        self._view_encoder = ViewEncoder(tiler, backend.vision, model.vision, config.reuse.frames)
        if config.token_selection.method != "off":
            self.token_selector = backend.token_selector(config.token_selection)
        drafts = drafts or load_drafts(config, model, backend.text, tokenizer.stop_ids)
        if drafts is not None:
            self.speculator = Speculator(backend.text, drafts, config.speculation.most_tokens)
        self._cached: EncodedViews | None = None
        """The views whose prefix the decoder's cache begins with."""

    @classmethod
    def from_config(cls, config: PipelineConfig, drafts: DraftSource | None = None) -> Pipeline:
        """Loads the model and its backend. Raises ConfigError, CheckpointError or EngineError."""
        model = ModelConfig.from_directory(config.model_dir)
        tokenizer = TextTokenizer.from_directory(config.model_dir)
        with load_backend(config, model).closed_on_failure() as backend:
            return cls(config, model, tokenizer, backend, drafts)

    def change(self, config: PipelineConfig) -> None:
        """Applies `config` from the next answer on.

        It may differ in `sampling`, and in the settings of `view_selection` and `token_selection` but their methods.
        """
        before, self.config = self.config, config
        if self._view_selector is not None:
            self._view_selector = self._view_selector.changed(config.view_selection)
        if self.token_selector is not None and config.token_selection != before.token_selection:
            self.token_selector = self.backend.token_selector(config.token_selection)

    def close(self) -> None:
        """Frees the model's memory. It must be called on the pipeline's thread, and no other method after it."""
        self.backend.close()

    def generate(
        self,
        views: Sequence[View],
        question: str,
        sampling: SamplingConfig | None = None,
        on_text: OnText | None = None,
        cancel: threading.Event | None = None,
        *,
        all_views: bool = False,
    ) -> Answer:
        """Runs all stages and returns the answer to a question about views, or about none. See `encode` and `answer`.

        `all_views` skips view selection, such as for views that somebody chose.
        """
        started = time.perf_counter()
        chosen = views if all_views else self._select_views(views, question)
        select_ms = milliseconds_since(started)
        encoded = self.encode(chosen)
        answer = self.answer(encoded, question, sampling, on_text, cancel)
        timings = replace(
            answer.timings,
            preprocess=encoded.preprocess_ms,
            vision=encoded.vision_ms,
            select=select_ms + encoded.select_ms,
            total=milliseconds_since(started),
        )
        return replace(answer, timings=timings)

    def _select_views(self, views: Sequence[View], question: str) -> Sequence[View]:
        """Stage 1: returns the views that the question needs."""
        if self._view_selector is None or len(views) < 2:
            return views
        cameras = self._view_selector.select(question, tuple(view.camera for view in views))
        return [view for view in views if view.camera in cameras]

    def encode(self, views: Sequence[View]) -> EncodedViews:
        """Stages 2 and 3: runs the vision encoder on the views that it has not seen lately, and selects tokens.

        Without views, answers come from text alone. Raises ImageError, which names the camera, and EngineError.
        """
        shown = pictures(views, self.config.stitch_views)
        cameras = tuple(view.camera for picture in shown for view in picture)
        tokens = self._view_encoder.encode(shown)
        tiles = (rows // self.model.vision.tokens_per_tile for rows in tokens.rows)
        ids = self._prompt.prefix(list(zip(map(names, shown), tiles, strict=True)))
        started = time.perf_counter()
        tokens, prefix = self._select_tokens(tokens, Prefix.whole(ids, self.model.text.vocab_size))
        return EncodedViews(**vars(tokens), cameras=cameras, prefix=prefix, select_ms=milliseconds_since(started))

    def _select_tokens(self, tokens: ViewTokens, prefix: Prefix) -> tuple[ViewTokens, Prefix]:
        """Stage 3: returns the visual tokens to keep, and the prefix without the others."""
        if self.token_selector is None or not tokens.rows:
            return tokens, prefix
        selection = self.token_selector.select(tokens.visual)
        rows = tuple(rows * selection.visual.count // tokens.visual.count for rows in tokens.rows)
        return replace(tokens, visual=selection.visual, rows=rows), prefix.keep(selection.places)

    def answer(
        self,
        encoded: EncodedViews,
        question: str,
        sampling: SamplingConfig | None = None,
        on_text: OnText | None = None,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """Stages 4 and 5: answers a question about encoded views.

        `sampling` defaults to the configured one. `cancel` is checked before prefill and before each token. The
        timings leave out encoding. If the context ends before `max_new_tokens`, so does the answer. Raises ConfigError
        for an empty question, ContextOverflowError, EngineError, and whatever `on_text` raises.
        """
        sampling, cancel = sampling or self.config.sampling, cancel or threading.Event()
        started = time.perf_counter()
        if not question.strip():
            raise ConfigError("the question is empty; ask something")
        suffix = np.array(self._prompt.suffix(question), np.int64)
        most_tokens = min(sampling.max_new_tokens, self._room(encoded, len(suffix)))
        answer = GrowingAnswer(self.tokenizer, on_text)
        speculator = self.speculator if sampling.greedy else None
        prefill_ms, decode_ms, cached, speculation = 0.0, 0.0, 0, Speculation()
        if cancel.is_set():
            answer.finish(FinishReason.CANCELLED)
        else:
            cached = self._cached_tokens(encoded)
            try:
                output = self._prefill(encoded, suffix, cached)
                prefill_ms = milliseconds_since(started)
                decode_started = time.perf_counter()
                if speculator is not None:
                    speculator.begin([*encoded.prefix.words, *suffix.tolist()], topic=(encoded.cameras, question))
                self._decode(answer, output, encoded.prefix.end + len(suffix), most_tokens, sampling, cancel)
            except NotFiniteError:
                self._cached = None  # the numbers behind the prefix may have been bad before they were noticed
                raise
            decode_ms = milliseconds_since(decode_started)
            if speculator is not None:
                speculation = speculator.finish(complete=answer.finish_reason is not FinishReason.CANCELLED)
        return Answer(
            text=answer.text,
            prompt=question,
            cameras=encoded.cameras,
            finish_reason=answer.finish_reason,
            tokens=TokenCounts(len(encoded.prefix.ids) + len(suffix), encoded.visual.count, len(answer.tokens)),
            timings=Timings(prefill=prefill_ms, decode=decode_ms, total=milliseconds_since(started)),
            speculation=speculation,
            reuse=Reuse(encoded.reused, cached),
        )

    def _room(self, encoded: EncodedViews, suffix: int) -> int:
        """Returns the number of tokens that an answer may have. Raises ContextOverflowError if it is 0.

        `suffix` is the number of tokens behind the prefix.
        """
        capacity, most_positions = self.backend.text.cache.capacity, self.model.text.max_position_embeddings
        needed, end = len(encoded.prefix.ids) + suffix, encoded.prefix.end + suffix
        room = min(capacity - needed, most_positions - end)
        if room < 1:
            raise ContextOverflowError(
                f"the prompt needs {needed} tokens ({encoded.visual.count} of them visual tokens of "
                f"{len(encoded.cameras)} views, {suffix} for the question) and {end} positions, but max_context is "
                f"{capacity}. Use fewer views, a smaller max_tiles (now {self.config.max_tiles}), a shorter question, "
                f"or a larger max_context (this model allows {most_positions} tokens and positions)"
            )
        return room

    def _cached_tokens(self, encoded: EncodedViews) -> int:
        """Returns the number of prefix tokens in the decoder's cache: those before the first other word or picture."""
        cached = self._cached
        if cached is encoded:
            return len(encoded.prefix.ids)
        if cached is None or not self.config.reuse.frames:
            return 0
        return cached.prefix.shared(encoded.prefix, cached.shared(encoded))

    def _prefill(self, encoded: EncodedViews, suffix: TokenIds, cached: int) -> DecoderOutput:
        """Stage 4: reads the prompt, except for the `cached` tokens at its start."""
        text = self.backend.text
        if self._cached is not encoded:
            self._cached = None
        text.cache.truncate(cached)
        new = np.concatenate((encoded.prefix.ids[cached:], suffix))
        positions = np.concatenate((encoded.prefix.positions[cached:], encoded.prefix.end + np.arange(len(suffix))))
        visual = encoded.visual if new.max() >= self.model.text.vocab_size else None
        output = text.forward(new, positions, visual)
        self._cached = encoded
        return output

    def _decode(
        self,
        answer: GrowingAnswer,
        output: DecoderOutput,
        position: int,
        most_tokens: int,
        sampling: SamplingConfig,
        cancel: threading.Event,
    ) -> None:
        """Stage 5: appends one token at a time, until a stop token, `most_tokens` or cancellation."""
        if sampling.greedy:
            tokens = self._greedy(output, position, most_tokens)
        else:
            tokens = Sampler(sampling).decode(self.backend.text, output, position, answer.tokens)
        while not cancel.is_set():
            token = next(tokens)
            if token in self.stop_ids:
                return answer.finish(FinishReason.STOP)
            answer.add(token)
            if len(answer.tokens) == most_tokens:
                return answer.finish(FinishReason.LENGTH)
        answer.finish(FinishReason.CANCELLED)

    def _greedy(self, output: DecoderOutput, position: int, most_tokens: int) -> Iterator[int]:
        """Yields the decoder's own choices, which it may compute ahead."""
        if self.speculator is None:
            first, decode = int(output.next_tokens[-1]), self.backend.text.decode_greedy
        else:
            first, decode = self.speculator.start(output), self.speculator.decode
        yield first
        yield from decode(first, position, most_tokens - 1)
