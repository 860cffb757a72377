"""The model that the node holds: it is loaded, used and given up, and two are never in memory longer than needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.node.diagnostics import ModelFacts
from litevlm_ros.node.inference import Inference
from litevlm_ros.node.settings import NodeSettings

INFERENCE_STOP_SECONDS = 1.0
"""Seconds that running inference has to notice that it is cancelled, when the node is to end."""

_LOOK_SECONDS = 0.1
"""Seconds between two looks whether a wait has to end early."""


@dataclass
class LoadedModel:
    """A model that can be asked."""

    inference: Inference
    facts: ModelFacts
    settings: NodeSettings
    """May be replaced by settings with other values of live parameters."""


class ModelHolder:
    """Holds at most one model, and knows of one that was given up while it was at work."""

    def __init__(self, load: Callable[[PipelineConfig], Any], in_a_hurry: Callable[[], bool], log: Any) -> None:
        """`load` loads a pipeline, on the inference thread. `in_a_hurry` returns True while long waits have to end."""
        self.loaded: LoadedModel | None = None
        """The model; None while there is none that can be asked."""
        self._load = load
        self._in_a_hurry = in_a_hurry
        self._log = log
        self._loading: Inference | None = None
        self._leaving: Inference | None = None

    @property
    def is_held(self) -> bool:
        """True while a model is loaded or is being loaded."""
        return self.loaded is not None or self._loading is not None

    @property
    def is_leaving(self) -> bool:
        """True while a model that was given up is still at work, or still being loaded, and keeps its memory."""
        leaving = self._leaving
        return leaving is not None and not leaving.stop(0)

    def make_room(self, seconds: float) -> None:
        """Waits until the memory of the model before is free. Raises LiteVLMError if it is not after `seconds`."""
        leaving = self._leaving
        if leaving is not None and not self._has_ended(leaving, seconds):
            raise LiteVLMError(
                "the model before is still at work and keeps its memory, so another one is not loaded beside it; "
                "configure again when it has ended"
            )
        self._leaving = None

    def load(self, settings: NodeSettings, config: PipelineConfig) -> None:
        """Loads a model, in a thread of its own. Raises LiteVLMError if somebody wants the node to end meanwhile, and
        what loading raises. The model is then to be unloaded."""
        facts: Future[ModelFacts] = Future()
        load = partial(_load_and_describe, self._load, facts)
        inference = Inference(config, load, max_queued_questions=settings.max_queued_questions)
        self._loading = inference
        while not wait([inference.loaded], timeout=_LOOK_SECONDS).done:
            if self._in_a_hurry():
                raise LiteVLMError("stopped while the model was loading")
        inference.loaded.result()
        self.loaded = LoadedModel(inference, facts.result(), settings)
        self._loading = None

    def unload(self, seconds: float) -> bool:
        """Cancels the jobs and gives the model up. Returns False if it is still at work after `seconds`.

        Then it frees its memory when its work has ended. A model that is being loaded is not waited for.
        """
        loaded, self.loaded = self.loaded, None
        inference, self._loading = self._loading if loaded is None else loaded.inference, None
        if inference is None:
            return True
        self._leaving = inference
        if self._has_ended(inference, seconds if inference.loaded.done() else 0.0):
            self._leaving = None
        if loaded is not None:
            for kind, statistics in inference.statistics.items():
                self._log.info(f"{kind.name.capitalize()}s: {statistics.summary()}")
        return self._leaving is None

    def _has_ended(self, inference: Inference, seconds: float) -> bool:
        """Stops inference. Returns True if it ends within `seconds`, or within INFERENCE_STOP_SECONDS in a hurry."""
        began = time.monotonic()
        while not inference.stop(min(_LOOK_SECONDS, seconds)):
            most = min(seconds, INFERENCE_STOP_SECONDS) if self._in_a_hurry() else seconds
            if time.monotonic() - began >= most:
                return False
        return True


def _load_and_describe(load: Callable[[PipelineConfig], Any], facts: Future[ModelFacts], config: PipelineConfig) -> Any:
    pipeline = load(config)
    try:
        facts.set_result(ModelFacts.of_pipeline(pipeline))
    except BaseException:
        pipeline.close()
        raise
    return pipeline
