"""The graph of the learned view selector: a small text transformer that runs on ONNX Runtime on the CPU.

It reads words only, so it runs there whatever runs the model. Its input `words` int64 [S] holds rows of its own table
of words, from 1 on, its output `logits` fp32 [C] has one number for each camera that it was trained for, and its
metadata `cameras` and `vocabulary` are JSON lists of texts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from litevlm_ros.checksums import unchanged_graph
from litevlm_ros.errors import EngineError, NotFiniteError
from litevlm_ros.packages import pip_command

_TRAIN = "ros2 run litevlm_ros train_view_selector"


class ViewSelectorGraph:
    """A loaded graph."""

    def __init__(self, file: Path) -> None:
        """Raises EngineError if ONNX Runtime or the graph is missing, or if `file` holds another kind of graph."""
        self.file = file
        self._session = _open(file)
        self.cameras, self.vocabulary = _metadata(file, self._session)
        """The cameras that the graph was trained for, and the words that it knows, whose first has the row 1."""

    def logits(self, words: Sequence[int]) -> tuple[float, ...]:
        """Returns the evidence for each of `cameras`; a negative number speaks against the camera.

        `words` holds at least one row. Raises EngineError, and NotFiniteError if the graph is damaged.
        """
        try:
            logits = self._session.run(["logits"], {"words": np.array(words, np.int64)})[0].tolist()
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise EngineError(f"{self.file} failed on {len(words)} words: {error}; {_hint(self.file)}") from error
        if not all(map(math.isfinite, logits)):
            raise NotFiniteError(f"{self.file} gives infinite or NaN logits, so it is damaged; {_hint(self.file)}")
        return tuple(logits)


def _open(file: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise EngineError(
            "view_selection is learned, which needs ONNX Runtime whatever runs the model: "
            f"`{pip_command('onnxruntime')}`, "
            "or set view_selection to lexical"
        ) from None
    if not file.is_file():
        raise EngineError(
            f"view_selection is learned, but there is no {file}: {_hint(file)}, or set view_selection to lexical"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    with unchanged_graph(file):
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
