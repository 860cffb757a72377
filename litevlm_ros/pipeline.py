"""Views and a question to a streamed answer with its timings.

The stages are LiteVLM's (arXiv 2506.07416): select views -> encode -> select tokens -> prefill -> decode.

A pipeline belongs to one thread. After any exception, also one that a callback raised, it can be used as before.
"""

from __future__ import annotations

import itertools
import operator
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from litevlm_ros.backend import Backend, DecoderOutput, TokenIds, TokenSelector
from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.errors import ConfigError, ContextOverflowError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.load import load_backend
from litevlm_ros.text.draft_sources import load_drafts
from litevlm_ros.text.drafts import DraftSource
from litevlm_ros.text.generation import Generation
from litevlm_ros.text.prefix import Prefix
from litevlm_ros.text.prompt import PromptBuilder
from litevlm_ros.text.sampling import Sampler
from litevlm_ros.text.speculator import Speculator
from litevlm_ros.text.tokenizer import Detokenizer, TextTokenizer
from litevlm_ros.types import Answer, FinishReason, OnText, Reuse, Speculation, Timings, TokenCounts, View
from litevlm_ros.vision.view_encoder import ViewEncoder, VisibleViews
from litevlm_ros.vision.view_selection import load_view_selector


@dataclass(frozen=True, eq=False)
class EncodedViews(VisibleViews):
    """Some views as the text decoder sees them. Further questions about the same object reuse its keys and values."""

    cameras: tuple[str, ...]
    prefix: Prefix
    """The prompt up to the newline behind the last image."""
    select_ms: float
    """Of choosing visual tokens."""


class Pipeline:
    """A loaded model."""

    def __init__(
        self,
        config: PipelineConfig,
        model: ModelConfig,
        tokenizer: TextTokenizer,
        backend: Backend,
        drafts: DraftSource | None = None,
    ) -> None:
        """`drafts` takes the place of the source that `config.speculation` names.

        Raises ConfigError where the settings do not fit the model, and EngineError without the graph they
        need.
        """
        if config.max_tiles > 1 and model.max_dynamic_tiles == 1:
            raise ConfigError(f"max_tiles is {config.max_tiles}; allowed: 1, as this model sees each view whole. Use 1")
        self.config = config
        self.model = model
        self.tokenizer = tokenizer
        self.backend = backend
        vocab_size, tokens_per_tile = model.text.vocab_size, model.vision.tokens_per_tile
        self._prompt = PromptBuilder(model.template, tokenizer, vocab_size, tokens_per_tile, config.system_prompt)
        self._view_encoder = ViewEncoder(backend.vision, model, config.max_tiles, config.reuse.frames)
        self._view_selector = load_view_selector(config.view_selection, config.model_dir)
        self.token_selector: TokenSelector | None = None
        """Drops visual tokens. Another may take its place between two questions."""
        if config.token_selection.method != "off":
            self.token_selector = backend.token_selector(config.token_selection)
        self._in_cache: EncodedViews | None = None
        self._speculator: Speculator | None = None
        drafts = drafts or load_drafts(config, model, backend.text, tokenizer.stop_ids)
        if drafts is not None:
            self._speculator = Speculator(backend.text, drafts, config.speculation.most_tokens)

    @classmethod
    def from_config(cls, config: PipelineConfig, drafts: DraftSource | None = None) -> Pipeline:
        """Loads model and backend. Raises ConfigError, CheckpointError or EngineError."""
        model = ModelConfig.from_directory(config.model_dir)
        tokenizer = TextTokenizer.from_directory(config.model_dir)
        return cls(config, model, tokenizer, load_backend(config, model), drafts)

    def change(self, config: PipelineConfig) -> None:
        """Takes over `sampling` and what `view_selection` and `token_selection` have beside their methods, from the
        next answer on; all other settings must be the present ones."""
        before, self.config = self.config, config
        if self._view_selector is not None:
            self._view_selector = self._view_selector.changed(config.view_selection)
        if self.token_selector is not None and config.token_selection != before.token_selection:
            self.token_selector = self.backend.token_selector(config.token_selection)

    def close(self) -> None:
        """Gives the model's memory back. Called on the pipeline's thread, and nothing may be called after it."""
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
        """Selects views, encodes them and answers the question about them. See `encode` and `answer`.

        With `all_views`, such as when somebody chose them, none is left out.
        """
        started = time.perf_counter()
        chosen = views if all_views else self._choose(views, question)
        select_ms = _milliseconds_since(started)
        encoded = self.encode(chosen)
        answer = self.answer(encoded, question, sampling, on_text, cancel)
        timings = replace(
            answer.timings,
            preprocess=encoded.preprocess_ms,
            vision=encoded.vision_ms,
            select=select_ms + encoded.select_ms,
            total=_milliseconds_since(started),
        )
        return replace(answer, timings=timings)

    def _choose(self, views: Sequence[View], question: str) -> Sequence[View]:
        """The views that the question needs."""
        if self._view_selector is None or len(views) < 2:
            return views
        cameras = self._view_selector.select(question, tuple(view.camera for view in views))
        return [view for view in views if view.camera in cameras]

    def encode(self, views: Sequence[View]) -> EncodedViews:
        """Runs the vision encoder on the tiles of all views, but those whose frames it has seen lately; selects tokens.

        Raises ConfigError without views, ImageError that names the camera, and EngineError.
        """
        if not views:
            raise ConfigError("there are no views; give at least one image")
        cameras = tuple(view.camera for view in views)
        seen = self._view_encoder.encode(views)
        tiles = (rows // self.model.vision.tokens_per_tile for rows in seen.rows)
        ids = self._prompt.prefix(list(zip(cameras, tiles, strict=True)))
        prefix = Prefix.whole(ids, self.model.text.vocab_size)
        started = time.perf_counter()
        if self.token_selector is not None:
            selection = self.token_selector.select(seen.visual)
            prefix = prefix.keep(selection.places)
            rows = tuple(rows * selection.visual.count // seen.visual.count for rows in seen.rows)
            seen = replace(seen, visual=selection.visual, rows=rows)
        return EncodedViews(**vars(seen), cameras=cameras, prefix=prefix, select_ms=_milliseconds_since(started))

    def answer(
        self,
        encoded: EncodedViews,
        question: str,
        sampling: SamplingConfig | None = None,
        on_text: OnText | None = None,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """Answers a question about encoded views.

        `sampling` defaults to the configured one. `cancel` is looked at before prefill and before each token. The
        timings are those of this call, so encoding is not in them. Where the context ends before `max_new_tokens`, the
        answer ends there. Raises ConfigError for an empty question, ContextOverflowError, EngineError, and whatever
        `on_text` raises.
        """
        sampling = sampling or self.config.sampling
        started = time.perf_counter()
        suffix = self._suffix(question)
        prompt_length = len(encoded.prefix.ids) + len(suffix)
        most_tokens = min(sampling.max_new_tokens, self._room(encoded, len(suffix)))
        generation = Generation(Detokenizer(self.tokenizer), on_text)
        speculator = self._speculator if sampling.greedy else None
        prefill_ms = decode_ms = 0.0
        in_cache, speculation = 0, Speculation()
        if _is_set(cancel):
            generation.finish_reason = FinishReason.CANCELLED
        else:
            in_cache = self._shared(encoded)
            output = self._prefill(encoded, suffix, in_cache)
            prefill_ms = _milliseconds_since(started)
            decode_started = time.perf_counter()
            if speculator is not None:
                speculator.begin([*encoded.prefix.words, *suffix.tolist()], topic=(encoded.cameras, question))
            position = encoded.prefix.end + len(suffix)
            self._decode(generation, output, position, most_tokens, sampling, cancel)
            decode_ms = _milliseconds_since(decode_started)
            if speculator is not None:
                speculation = speculator.finish(complete=generation.finish_reason is not FinishReason.CANCELLED)
        return Answer(
            text=generation.text,
            prompt=question,
            cameras=encoded.cameras,
            finish_reason=generation.finish_reason,
            tokens=TokenCounts(prompt_length, encoded.visual.count, len(generation.tokens)),
            timings=Timings(prefill=prefill_ms, decode=decode_ms, total=_milliseconds_since(started)),
            speculation=speculation,
            reuse=Reuse(encoded.reused, in_cache),
        )

    def _suffix(self, question: str) -> TokenIds:
        if not question.strip():
            raise ConfigError("the question is empty; ask something")
        return np.array(self._prompt.suffix(question), np.int64)

    def _room(self, encoded: EncodedViews, suffix: int) -> int:
        """Tokens that an answer may have."""
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

    def _shared(self, encoded: EncodedViews) -> int:
        """How many tokens of the prefix the cache holds: up to the first other word, or the first other picture."""
        held = self._in_cache
        if held is encoded:
            return len(encoded.prefix.ids)
        if held is None or not self.config.reuse.frames:
            return 0
        same_views = itertools.takewhile(bool, map(operator.eq, held.frames, encoded.frames))
        return held.prefix.shared(encoded.prefix, sum(map(operator.mul, encoded.rows, same_views)))

    def _prefill(self, encoded: EncodedViews, suffix: TokenIds, in_cache: int) -> DecoderOutput:
        """Reads the prompt behind the tokens that the cache holds."""
        text = self.backend.text
        if self._in_cache is not encoded:
            self._in_cache = None
        text.cache.truncate(in_cache)
        new = np.concatenate((encoded.prefix.ids[in_cache:], suffix))
        positions = np.concatenate((encoded.prefix.positions[in_cache:], encoded.prefix.end + np.arange(len(suffix))))
        visual = encoded.visual if new.max() >= self.model.text.vocab_size else None
        output = text.forward(new, positions, visual)
        self._in_cache = encoded
        return output

    def _decode(
        self,
        generation: Generation,
        output: DecoderOutput,
        position: int,
        most_tokens: int,
        sampling: SamplingConfig,
        cancel: threading.Event | None,
    ) -> None:
        """One token at a time until a stop token, `most_tokens` or cancellation."""
        if sampling.greedy:
            tokens = self._greedy(output, position, most_tokens)
        else:
            tokens = self._sampled(output, position, Sampler(sampling), generation.tokens)
        while not _is_set(cancel):
            token = next(tokens)
            if token in self.tokenizer.stop_ids:
                return generation.finish(FinishReason.STOP)
            generation.add(token)
            if len(generation.tokens) == most_tokens:
                return generation.finish(FinishReason.LENGTH)
        generation.finish(FinishReason.CANCELLED)

    def _greedy(self, output: DecoderOutput, position: int, most_tokens: int) -> Iterator[int]:
        """The backend's own choices, which it need not wait for us to make."""
        if self._speculator is not None:
            first = self._speculator.start(output)
            yield first
            yield from self._speculator.decode(first, position, most_tokens - 1)
        else:
            first = int(output.next_tokens[-1])
            yield first
            yield from self.backend.text.decode_greedy(first, position, most_tokens - 1)

    def _sampled(self, output: DecoderOutput, position: int, sampler: Sampler, said: Sequence[int]) -> Iterator[int]:
        """Drawn from the logits; `said` are the answer's tokens so far."""
        for place in itertools.count(position):
            token = sampler.draw(output.logits()[-1], said)
            yield token
            output = self.backend.text.forward(np.array([token]), np.array([place]))


def _is_set(event: threading.Event | None) -> bool:
    return event is not None and event.is_set()


def _milliseconds_since(started: float) -> float:
    return 1e3 * (time.perf_counter() - started)
