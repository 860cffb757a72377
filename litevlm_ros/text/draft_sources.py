"""Makes the source of drafts that a configuration names."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Hashable, Sequence

from litevlm_ros.backend import HiddenState, TextDecoder
from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import HEAD_GRAPH
from litevlm_ros.packages import pip_command
from litevlm_ros.runtime.onnx.session import export_command
from litevlm_ros.text.drafts import LONGEST_MATCH, DraftSource, NGramDrafts, Offer


class CombinedDrafts:
    """Drafts from a match of LONGEST_MATCH tokens if there is one, else from the draft head."""

    reads_hidden = True

    def __init__(self, ngrams: NGramDrafts, head: DraftSource) -> None:
        self._both = (ngrams, head)
        self._offering: DraftSource = head

    def begin(self, prompt: Sequence[int], topic: Hashable) -> None:
        """See `DraftSource.begin`."""
        for source in self._both:
            source.begin(prompt, topic)

    def add(self, token: int, hidden: HiddenState | None) -> None:
        """See `DraftSource.add`."""
        for source in self._both:
            source.add(token, hidden)

    def offer(self) -> Offer:
        """See `DraftSource.offer`."""
        ngrams, head = self._both
        found, guessed = ngrams.offer(), head.offer()
        takes_ngrams = found.kind == LONGEST_MATCH or not guessed.most
        self._offering = ngrams if takes_ngrams else head
        return found if takes_ngrams else guessed

    def draft(self, count: int) -> Sequence[int]:
        """See `DraftSource.draft`."""
        return self._offering.draft(count)

    def remember(self) -> None:
        """See `DraftSource.remember`."""
        for source in self._both:
            source.remember()


def load_drafts(
    config: PipelineConfig, model: ModelConfig, text: TextDecoder, stop_ids: Collection[int]
) -> DraftSource | None:
    """Returns the source of drafts that `config.speculation` names, None for 'off'.

    `stop_ids` are the tokens that end an answer. Raises ConfigError if 'head' is asked for and there is none that can
    be used, and EngineError if it is damaged.
    """
    source = config.speculation.source
    if source == "off":
        return None
    ngrams = NGramDrafts(stop_ids)
    if source == "ngram":
        return ngrams
    obstacle = head_obstacle(config, text)
    if obstacle is None:
        head = _load_head(config, model, text, stop_ids)
        return head if source == "head" else CombinedDrafts(ngrams, head)
    if source == "auto":
        return ngrams
    raise ConfigError(f"speculation is 'head', but {obstacle}; or use 'ngram'")


def head_obstacle(config: PipelineConfig, text: TextDecoder) -> str | None:
    """Returns why the draft head cannot be used, with the fix, or None if it can."""
    if not text.gives_hidden:
        return (
            "the text decoder gives no hidden states. TensorRT engines never do; for the "
            f"onnxruntime backend export the graphs again with `{export_command(config.model_dir)}`"
        )
    if importlib.util.find_spec("onnxruntime") is None:
        return f"ONNX Runtime, which runs the head, is not installed: `{pip_command('onnxruntime')}`"
    if not (config.model_dir / HEAD_GRAPH).is_file():
        return (
            f"{HEAD_GRAPH} is missing in {config.model_dir}: make it with `ros2 run litevlm_ros train_draft_head "
            f"--model {config.model_dir}`"
        )
    return None


def _load_head(config: PipelineConfig, model: ModelConfig, text: TextDecoder, stop_ids: Collection[int]) -> DraftSource:
    # Imported here, because the other sources work without ONNX Runtime.
    from litevlm_ros.runtime.onnx.session import session_options
    from litevlm_ros.text.draft_head import HeadDrafts

    file = config.model_dir / HEAD_GRAPH
    return HeadDrafts(file, model.text, text.cache.capacity, session_options(config), stop_ids)
