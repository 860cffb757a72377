"""The lifecycle node `litevlm`: what is loaded, subscribed and published in which state.

unconfigured: only the query service and the ask action, which say why there are no answers. The node is also in this
state while the model is being loaded.
inactive: the model is loaded; no camera is subscribed to.
active: cameras, captions and answers; see activity.py.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import String

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.msg import Answer, Caption
from litevlm_ros.node.activity import Activity
from litevlm_ros.node.cameras import Camera
from litevlm_ros.node.diagnostics import Diagnostics, ModelFacts, Snapshot
from litevlm_ros.node.inference import Inference, JobKind
from litevlm_ros.node.parameter_changes import NodeParameters
from litevlm_ros.node.process_tuning import release_memory
from litevlm_ros.node.questions import QuestionServers
from litevlm_ros.node.settings import NodeSettings
from litevlm_ros.node.statistics import JobStatistics
from litevlm_ros.processes import StopRequest
from litevlm_ros.types import AnyImage

INFERENCE_STOP_SECONDS = 1.0
"""Seconds that running inference has to notice that it is cancelled when the node ends."""

UNLOAD_SECONDS = 30.0
"""Seconds that cleanup waits for a model to be unloaded, so that the next one does not need memory beside it."""

_QUEUE_DEPTH = 10


def load_pipeline(config: PipelineConfig) -> Any:
    """Loads the pipeline. Raises LiteVLMError."""
    # Imported here, on the inference thread: the backends take seconds to import.
    from litevlm_ros.pipeline import Pipeline

    return Pipeline.from_config(config)


class LiteVLMNode(LifecycleNode):
    """Captions cameras and answers questions about them."""

    def __init__(
        self,
        stopping: StopRequest | None = None,
        pipeline_factory: Callable[[PipelineConfig], Any] = load_pipeline,
        **node_options: Any,
    ) -> None:
        """`stopping` ends long waits when it is made. `pipeline_factory` loads the pipeline, or an object with the same
        methods, on the inference thread."""
        super().__init__("litevlm", **node_options)
        self._stopping = stopping or StopRequest()
        self._pipeline_factory = pipeline_factory
        self._inference: Inference | None = None  # from the beginning of loading on
        self._settings: NodeSettings | None = None  # from the end of loading on
        self._model: ModelFacts | None = None
        self._activity: Activity | None = None
        self._failure = ""
        self._closed = False
        self._node_parameters = NodeParameters(self, lambda: self.holds_model, self._apply_parameters)
        self.questions = QuestionServers(self, self._why_not_active)
        self._diagnostics = Diagnostics(self, self._snapshot)

    @property
    def cameras(self) -> Mapping[str, Camera]:
        """The cameras by name; empty unless the node is active."""
        return {} if self._activity is None else self._activity.cameras

    @property
    def statistics(self) -> Mapping[JobKind, JobStatistics]:
        """Figures of questions and captions since the model was loaded; empty while none is."""
        inference = self._inference if self._settings is not None else None
        return {} if inference is None else inference.statistics

    @property
    def holds_model(self) -> bool:
        """True while a model is loaded or is being loaded."""
        return self._inference is not None

    def start(self) -> None:
        """Configures and activates the node, unless the parameter autostart is false.

        Loading takes its time, so this is called outside the executor. Services answer meanwhile.
        """
        try:
            if self._node_parameters.autostart() and self.trigger_configure() is TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()
        except LiteVLMError as error:
            self._fail(str(error))
        except Exception as error:  # rclpy's own, when somebody else asked for a transition meanwhile
            self.get_logger().warning(f"Autostart ended: {error}")

    def close(self) -> None:
        """Cancels everything and waits a moment for it to end. The node cannot be used afterwards."""
        self._closed = True
        self._diagnostics.close()
        self._end_activity()
        self._unload()

    def destroy_node(self) -> None:
        """Destroys everything that rclpy holds for the node."""
        self._diagnostics.close()
        self.questions.destroy()
        super().destroy_node()

    # --- transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Reads the parameters and loads the model."""
        self._failure = ""
        began = time.monotonic()
        try:
            settings, config = self._node_parameters.read()
            facts: Future[ModelFacts] = Future()
            self._inference = Inference(
                config, partial(self._load_model, facts), max_queued_questions=settings.max_queued_questions
            )
            self._wait_until_loaded(self._inference)
        except LiteVLMError as error:
            return self._fail(str(error))
        except Exception as error:
            self.get_logger().error(traceback.format_exc())
            return self._fail(f"internal error: {error!r}")
        self._captions = self.create_lifecycle_publisher(Caption, "~/caption", _QUEUE_DEPTH)
        self._caption_texts = self.create_lifecycle_publisher(String, "~/caption_text", _QUEUE_DEPTH)
        self._answers = self.create_lifecycle_publisher(Answer, "~/answer", _QUEUE_DEPTH)
        self._settings, self._model = settings, facts.result()
        self.get_logger().info(f"Loaded the model in {config.model_dir} in {time.monotonic() - began:.1f} s")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes to the cameras."""
        result = super().on_activate(state)
        try:
            self._apply_parameters()
            self._begin_activity()
        except Exception as error:
            what = str(error) if isinstance(error, LiteVLMError) else f"{error!r}\n{traceback.format_exc()}"
            self.get_logger().error(f"Not activated: {what}")
            self._end_activity()
            super().on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribes from the cameras. The model stays loaded."""
        self._end_activity()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unloads the model."""
        self._unload(UNLOAD_SECONDS)
        for publisher in (self._captions, self._caption_texts, self._answers):
            self.destroy_lifecycle_publisher(publisher)
        release_memory()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends everything, from any state."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Returns to the state unconfigured after an error in a transition."""
        self._end_activity()
        self._unload()
        return TransitionCallbackReturn.SUCCESS

    def _begin_activity(self) -> None:
        settings, inference, model = self._settings, self._inference, self._model
        assert settings is not None
        assert inference is not None
        assert model is not None
        self._activity = Activity(
            self, settings, inference, self._publish_caption, self._answers.publish, model.raw_encodings
        )
        self.questions.answerer = self._activity.answerer
        self._activity.open()
        topics = ", ".join(camera.topic for camera in self.cameras.values())
        self.get_logger().info(
            f"Ready: captions on {self._captions.topic_name}, questions on "
            f"{self.resolve_service_name('~/query')}; cameras: {topics}"
        )

    def _end_activity(self) -> None:
        activity, self._activity = self._activity, None
        self.questions.answerer = None
        if activity is not None:
            activity.close()

    def _load_model(self, facts: Future[ModelFacts], config: PipelineConfig) -> Any:
        pipeline = self._pipeline_factory(config)
        facts.set_result(ModelFacts.of_pipeline(pipeline))
        return pipeline

    def _wait_until_loaded(self, inference: Inference) -> None:
        while not wait([inference.loaded], timeout=0.1).done:
            if self._stopping.is_set():
                raise LiteVLMError("stopped while the model was loading")
        inference.loaded.result()

    def _fail(self, reason: str) -> TransitionCallbackReturn:
        self._unload()
        self._failure = reason
        self.get_logger().error(f"Not ready: {reason}")
        if not self._stopping.is_set():
            name = self.get_fully_qualified_name()
            self.get_logger().info(f"After correcting it: ros2 lifecycle set {name} configure, then activate")
        return TransitionCallbackReturn.FAILURE

    def _unload(self, seconds: float = INFERENCE_STOP_SECONDS) -> None:
        self._settings = self._model = None
        inference, self._inference = self._inference, None
        if inference is not None:
            if not inference.stop(seconds) and not self._closed:
                self.get_logger().warning("The model is still at work and keeps its memory until that ends")
            for kind, statistics in inference.statistics.items():
                self.get_logger().info(f"{kind.name.capitalize()}s: {statistics.summary()}")

    # --- callbacks

    def _publish_caption(self, message: Any, image: AnyImage) -> None:
        self._captions.publish(message)
        self._caption_texts.publish(String(data=f"{message.camera}: {message.text}"))
        if (activity := self._activity) is not None:
            activity.overlays.show(message, image)

    def _why_not_active(self) -> str:
        name = self.get_fully_qualified_name()
        if self._closed:
            return f"{name} is shutting down"
        if self._failure:
            return f"{name} could not be configured: {self._failure}"
        if self._settings is None and self._inference is not None:
            return f"{name} is loading the model; ask again in a moment"
        if self._settings is None:
            return f"{name} is not configured (yet); where autostart is false: ros2 lifecycle set {name} configure"
        return f"{name} is inactive; to activate it: ros2 lifecycle set {name} activate"

    def _snapshot(self) -> Snapshot:
        """Returns the state for the diagnostics. They call it in their own thread."""
        activity, settings, inference = self._activity, self._settings, self._inference
        return Snapshot(
            problem="" if activity is not None else self._why_not_active(),
            failed=bool(self._failure),
            cameras={} if activity is None else activity.watches.states,
            statistics=self.statistics,
            settings=settings,
            config=None if inference is None or settings is None else inference.config,
            model=self._model,
        )

    def _apply_parameters(self) -> None:
        """Uses the current values of live parameters from now on."""
        if self._inference is None or self._settings is None:
            return
        self._settings, self._inference.config = self._node_parameters.read()
        self._inference.max_queued_questions = self._settings.max_queued_questions
        if self._activity is not None:
            self._activity.apply(self._settings)
