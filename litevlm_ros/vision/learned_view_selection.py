"""View selection by words and by what a small text transformer has learned of whole questions.

This is the learned part of LiteVLM's patch selection (arXiv 2506.07416). `view_selector_graph.py` runs the transformer.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from litevlm_ros.config import ViewSelectionConfig
from litevlm_ros.model_directory import VIEW_SELECTOR_GRAPH
from litevlm_ros.vision.camera_words import NAMED
from litevlm_ros.vision.view_selection import LexicalSelector, ViewSelector, cameras_above
from litevlm_ros.vision.view_selector_graph import ViewSelectorGraph

PADDING = 0
"""The row that stands for no word; the words of the vocabulary follow in order."""
MOST_WORDS = 48
"""The most words of a question that the graph reads."""

_QUESTIONS = 64
"""Questions whose logits are kept: a robot is asked few questions, again and again."""
_WORD = re.compile(r"\w+")
_LOGGER = logging.getLogger(__name__)


def load_view_selector(config: ViewSelectionConfig, model_dir: Path) -> ViewSelector | None:
    """Returns the selector that the settings ask for, None for 'off'. Raises EngineError if 'learned' cannot run."""
    if config.method == "off":
        return None
    lexical = LexicalSelector(config.threshold, config.phrases)
    return LearnedSelector(model_dir / VIEW_SELECTOR_GRAPH, lexical) if config.method == "learned" else lexical


class LearnedSelector:
    """Adds the graph's logits to the scores of a lexical selector, whose threshold it uses.

    In doubt it chooses as the lexical selector does: if the graph knows none of the cameras, if the question names a
    camera that the graph does not know, if the question is longer than MOST_WORDS or has a word that the graph never
    read, and if no camera reaches the threshold. A question that is about all views for the lexical selector keeps all.
    """

    def __init__(self, file: Path, lexical: LexicalSelector) -> None:
        """Raises EngineError if ONNX Runtime or the graph is missing, or if `file` holds another kind of graph."""
        graph = ViewSelectorGraph(file)
        self._file, self._lexical = file, lexical
        self.cameras = graph.cameras
        """The cameras that the graph was trained for."""
        self._rows = word_rows(graph.vocabulary)
        # Logits follow from the words alone, so they stay right when settings or cameras change.
        self._logits = lru_cache(_QUESTIONS)(graph.logits)
        self._warned = False

    def select(self, question: str, cameras: Sequence[str]) -> tuple[str, ...]:
        """See `ViewSelector.select`. Raises EngineError if the graph fails."""
        lexical = self._lexical.scores(question, cameras)
        by_words = self._lexical.pick(lexical)
        words = tuple(encode_words(question, self._rows))
        reads = 1 <= len(words) <= MOST_WORDS and PADDING not in words
        unknown = set(by_words).difference(self.cameras)
        names_unknown = unknown and len(by_words) < len(cameras)
        if min(lexical.values()) >= NAMED or not reads or names_unknown or not self._knows_any(cameras):
            return by_words
        logits = dict(zip(self.cameras, self._logits(words), strict=True))
        scores = {camera: score + logits[camera] for camera, score in lexical.items() if camera in logits}
        learned = cameras_above(self._lexical.threshold, scores)
        return tuple([camera for camera in cameras if camera in learned or camera in unknown]) if learned else by_words

    def changed(self, config: ViewSelectionConfig) -> LearnedSelector:
        """See `ViewSelector.changed`. Both selectors share the graph."""
        other = copy.copy(self)
        other._lexical = self._lexical.changed(config)
        return other

    def _knows_any(self, cameras: Sequence[str]) -> bool:
        if not set(cameras).isdisjoint(self.cameras):
            return True
        if not self._warned:
            self._warned = True
            _LOGGER.warning(
                "%s was trained for the cameras %s, and there are %s: views are chosen by the words of the question "
                "alone. Name the cameras as it does, or set view_selection to lexical",
                self._file, ", ".join(self.cameras), ", ".join(cameras),
            )  # fmt: skip
        return False


def split_words(text: str) -> list[str]:
    """Returns the words of a text in lower case, without punctuation."""
    return _WORD.findall(text.casefold())


def word_rows(vocabulary: Sequence[str]) -> dict[str, int]:
    """Returns the row of each word that a graph knows."""
    return {word: row for row, word in enumerate(vocabulary, start=PADDING + 1)}


def encode_words(text: str, rows: Mapping[str, int]) -> list[int]:
    """Returns the row of each word of a text, PADDING for words that are not in `rows`."""
    return [rows.get(word, PADDING) for word in split_words(text)]
