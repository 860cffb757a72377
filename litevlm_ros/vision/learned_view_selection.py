"""View selection with a small text transformer, the learned part of LiteVLM's patch selection (arXiv 2506.07416).

The graph reads words only, so it runs on ONNX Runtime on the CPU, whatever runs the model. Its input `words` int64 [S]
holds rows of its own table of words, its output `logits` fp32 [C] has one number for each camera that it was trained
for, and its metadata `cameras` and `vocabulary` are JSON lists of texts.
"""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from litevlm_ros.config import ViewSelectionConfig
from litevlm_ros.errors import EngineError, NotFiniteError
from litevlm_ros.model_directory import VIEW_SELECTOR_GRAPH
from litevlm_ros.vision.view_selection import NAMED, LexicalSelector, ViewSelector, cameras_above

PADDING = 0
"""The row that stands for no word; the words of the vocabulary follow in order."""
MOST_WORDS = 48
"""The most words of a question that the graph reads."""

_TRAIN = "ros2 run litevlm_ros train_view_selector"
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
        self._file, self._lexical = file, lexical
        self._session = _open(file)
        self.cameras, vocabulary = _metadata(file, self._session)
        """The cameras that the graph was trained for."""
        self._rows = word_rows(vocabulary)
        self._warned = False

    def select(self, question: str, cameras: Sequence[str]) -> tuple[str, ...]:
        """See `ViewSelector.select`. Raises EngineError if the graph fails."""
        lexical = self._lexical.scores(question, cameras)
        by_words = self._lexical.pick(lexical)
        words = encode_words(question, self._rows)
        reads = 1 <= len(words) <= MOST_WORDS and PADDING not in words
        unknown = set(by_words).difference(self.cameras)
        names_unknown = unknown and len(by_words) < len(cameras)
        if min(lexical.values()) >= NAMED or not reads or names_unknown or not self._knows_any(cameras):
            return by_words
        logits = dict(zip(self.cameras, self.logits(words), strict=True))
        scores = {camera: score + float(logits[camera]) for camera, score in lexical.items() if camera in logits}
        learned = cameras_above(self._lexical.threshold, scores)
        return tuple(camera for camera in cameras if camera in learned or camera in unknown) if learned else by_words

    def changed(self, config: ViewSelectionConfig) -> LearnedSelector:
        """See `ViewSelector.changed`. Both selectors share the graph."""
        other = copy.copy(self)
        other._lexical = self._lexical.changed(config)
        return other

    def logits(self, words: Sequence[int]) -> npt.NDArray[np.float32]:
        """Returns float32 [C], the evidence for each of `self.cameras`; a negative number speaks against the camera.

        `words` holds 1 to MOST_WORDS rows. Raises EngineError.
        """
        try:
            logits: npt.NDArray[np.float32] = self._session.run(["logits"], {"words": np.array(words, np.int64)})[0]
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise EngineError(f"{self._file} failed on {len(words)} words: {error}; {_hint(self._file)}") from error
        if not np.isfinite(logits).all():
            raise NotFiniteError(f"{self._file} gives infinite or NaN logits, so it is damaged; {_hint(self._file)}")
        return logits

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
    return re.findall(r"\w+", text.casefold())


def word_rows(vocabulary: Sequence[str]) -> dict[str, int]:
    """Returns the row of each word that a graph knows."""
    return {word: row for row, word in enumerate(vocabulary, start=PADDING + 1)}


def encode_words(text: str, rows: Mapping[str, int]) -> list[int]:
    """Returns the row of each word of a text, PADDING for words that are not in `rows`."""
    return [rows.get(word, PADDING) for word in split_words(text)]


def _open(file: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise EngineError(
            "view_selection is learned, which needs ONNX Runtime whatever runs the model: `pip install onnxruntime`, "
            "or set view_selection to lexical"
        ) from None
    if not file.is_file():
        raise EngineError(
            f"view_selection is learned, but there is no {file}: {_hint(file)}, or set view_selection to lexical"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions have no common base
        raise EngineError(f"{file} cannot be loaded: {error}; {_hint(file)}") from error


def _metadata(file: Path, session: Any) -> tuple[tuple[str, ...], list[str]]:
    """Returns the cameras and the vocabulary. Raises EngineError if the graph has no such metadata."""
    entries = session.get_modelmeta().custom_metadata_map
    try:
        cameras, vocabulary = (json.loads(entries[name]) for name in ("cameras", "vocabulary"))
        fits = [value.shape for value in session.get_outputs()] == [[len(cameras)]]
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise EngineError(f"{file} does not say which cameras it was trained for, or is another graph; {_hint(file)}")
    return tuple(cameras), vocabulary


def _hint(file: Path) -> str:
    return f"train one with `{_TRAIN} --output {file}`"
