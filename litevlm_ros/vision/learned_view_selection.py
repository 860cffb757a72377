"""The learned part of LiteVLM's patch selection (arXiv 2506.07416): a small text transformer beside the lexical score.

Its graph reads words only, so it runs on ONNX Runtime on the CPU, whatever runs the model. Graph: `words` int64 [S],
rows of its own table of words → `logits` fp32 [C], one for each camera that it was trained for. Its metadata `cameras`
and `vocabulary` are JSON lists of texts.
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
from litevlm_ros.errors import EngineError
from litevlm_ros.vision.view_selection import NAMED, LexicalSelector, keep

PADDING = 0
"""Row of no word; the vocabulary's words follow in order."""
MOST_WORDS = 48
"""Words of the longest question that the graph reads."""

_TRAIN = "ros2 run litevlm_ros train_view_selector"
_LOGGER = logging.getLogger(__name__)


class LearnedSelector:
    """Adds the graph's logits to the lexical scores. The threshold is the lexical selector's.

    In doubt it chooses as the lexical selector does: for cameras that the graph does not know and questions that name
    one, for questions that are longer than MOST_WORDS or have a word that it never read, and where nothing reaches the
    threshold. What the lexical selector takes for a question about all views keeps all.
    """

    def __init__(self, file: Path, lexical: LexicalSelector) -> None:
        """Raises EngineError where ONNX Runtime or the graph is missing, and for a graph that is none of this kind."""
        self._file, self._lexical = file, lexical
        self._session = _open(file)
        self.cameras, vocabulary = _metadata(file, self._session)
        """Those that the graph was trained for."""
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
        learned = keep(scores, self._lexical.threshold)
        return tuple(camera for camera in cameras if camera in learned or camera in unknown) if learned else by_words

    def changed(self, config: ViewSelectionConfig) -> LearnedSelector:
        """See `ViewSelector.changed`. Shares the graph."""
        other = copy.copy(self)
        other._lexical = self._lexical.changed(config)
        return other

    def logits(self, words: Sequence[int]) -> npt.NDArray[np.float32]:
        """float32 [C]: what speaks for each of `self.cameras`, negative against it. `words` is 1 to MOST_WORDS rows."""
        try:
            return self._session.run(["logits"], {"words": np.array(words, np.int64)})[0]
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise EngineError(f"{self._file} failed on {len(words)} words: {error}; {_hint(self._file)}") from error

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
    """In lower case, without punctuation."""
    return re.findall(r"\w+", text.casefold())


def word_rows(vocabulary: Sequence[str]) -> dict[str, int]:
    """The row of each word that a graph knows."""
    return {word: row for row, word in enumerate(vocabulary, start=PADDING + 1)}


def encode_words(text: str, rows: Mapping[str, int]) -> list[int]:
    """The row of each word, PADDING for those that are not known."""
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
    """Cameras and vocabulary."""
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
