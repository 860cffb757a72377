"""The lifecycle node `litevlm`: what is loaded, subscribed and published in which state.

unconfigured: nothing but the query service and the ask action, which say why there are no answers. Also while the model
loads.
inactive: the model is loaded; no camera is subscribed to.
active: cameras, captions and answers.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import String

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.msg import Answer, Caption
from litevlm_ros.node.camera_views import CameraViews
from litevlm_ros.node.camera_watch import CameraWatches
from litevlm_ros.node.cameras import Camera
from litevlm_ros.node.captioner import Captioner
from litevlm_ros.node.diagnostics import Diagnostics, Snapshot
from litevlm_ros.node.frame_clock import FrameClock
from litevlm_ros.node.inference import InferenceThread, JobKind
from litevlm_ros.node.inference_jobs import Inference
from litevlm_ros.node.model_facts import ModelFacts, model_facts
from litevlm_ros.node.overlay import Overlays
from litevlm_ros.node.parameter_changes import NodeParameters
from litevlm_ros.node.parameters import NodeSettings
from litevlm_ros.node.process_tuning import release_memory
from litevlm_ros.node.question_servers import QuestionServers
from litevlm_ros.node.questions import QueryHandler
from litevlm_ros.node.statistics import JobStatistics
from litevlm_ros.types import RgbImage

INFERENCE_STOP_SECONDS = 1.0
"""How long running inference gets to notice that it is cancelled when the node ends."""

UNLOAD_SECONDS = 30.0
"""How long cleanup waits for a model to be given up, so that the next one does not come on top of it."""

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
        stopping: threading.Event | None = None,
        pipeline_factory: Callable[[PipelineConfig], Any] = load_pipeline,
        **node_options: Any,
    ) -> None:
        """`stopping` ends long waits when it is set. `pipeline_factory` loads what has Pipeline's generate(), on the
        inference thread; tests put another one here."""
        super().__init__("litevlm", **node_options)
        self._stopping = stopping or threading.Event()
        self._pipeline_factory = pipeline_factory
        self._inference_thread: InferenceThread[Any] | None = None
        self._inference: Inference | None = None
        self._settings: NodeSettings | None = None
        self._queries: QueryHandler | None = None
        self._captioner: Captioner | None = None
        self._failure = ""
        self._closed = False
        self.cameras: dict[str, Camera] = {}
        self._watches: CameraWatches | None = None
        self._overlays: Overlays | None = None
        self._node_parameters = NodeParameters(self, lambda: self._inference_thread is not None, self._apply_parameters)
        self._model: ModelFacts | None = None
        self._diagnostics = Diagnostics(self, self._snapshot)
        self.questions = QuestionServers(self, lambda: self._queries, self._why_not_active)

    @property
    def statistics(self) -> Mapping[JobKind, JobStatistics]:
        """Of the questions and captions since the model was loaded; nothing while none is."""
        return {} if self._inference is None else self._inference.thread.statistics

    def start(self) -> None:
        """Configures and activates the node, unless the parameter autostart is false.

        Loading takes its time: called outside the executor, so that services answer meanwhile.
        """
        try:
            if self._node_parameters.autostart() and self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()
        except LiteVLMError as error:
            self._fail(str(error))
        except Exception as error:  # rclpy's own, when somebody else asked for a transition meanwhile
            self.get_logger().warning(f"Autostart ended: {error}")

    def close(self) -> None:
        """Cancels everything and waits a moment for it to end. The node is of no use afterwards."""
        self._closed = True
        self._diagnostics.close()
        self._disconnect()
        self._unload()

    def destroy_node(self) -> None:
        """Ends all that rclpy has of the node."""
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
            self._inference_thread = InferenceThread(
                partial(self._load_model, config, facts),
                lambda pipeline: pipeline.close(),
                max_queued_questions=settings.max_queued_questions,
            )
            self._wait_for_pipeline(self._inference_thread.loaded)
        except LiteVLMError as error:
            return self._fail(str(error))
        except Exception as error:
            self.get_logger().error(traceback.format_exc())
            return self._fail(f"internal error: {error!r}")
        self._captions = self.create_lifecycle_publisher(Caption, "~/caption", _QUEUE_DEPTH)
        self._caption_texts = self.create_lifecycle_publisher(String, "~/caption_text", _QUEUE_DEPTH)
        self._answers = self.create_lifecycle_publisher(Answer, "~/answer", _QUEUE_DEPTH)
        self._settings, self._inference = settings, Inference(self._inference_thread, config)
        self._model = facts.result()
        self.get_logger().info(f"Loaded the model in {config.model_dir} in {time.monotonic() - began:.1f} s")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes to the cameras."""
        result = super().on_activate(state)
        try:
            self._apply_parameters()
            self._connect()
        except Exception as error:
            what = str(error) if isinstance(error, LiteVLMError) else f"{error!r}\n{traceback.format_exc()}"
            self.get_logger().error(f"Not activated: {what}")
            self._disconnect()
            super().on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribes from the cameras; the model stays loaded."""
        self._disconnect()
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
        """Returns to unconfigured after an error in a transition."""
        self._disconnect()
        self._unload()
        return TransitionCallbackReturn.SUCCESS

    def _connect(self) -> None:
        settings, inference = self._settings, self._inference
        assert settings is not None
        assert inference is not None
        self.cameras = {}
        log, submit = self.get_logger(), inference.submit
        self._views = CameraViews(self.cameras, settings.max_frame_age)
        sampling = inference.config.sampling
        self._queries = QueryHandler(settings, sampling, self._views, submit, self._answers.publish, log)
        self._captioner = Captioner(settings, self._views, submit, self._publish_caption, log)
        group = MutuallyExclusiveCallbackGroup()
        self._frame_clock = FrameClock(self.get_clock(), settings.frame_clock)
        for source in settings.sources:
            self.cameras[source.name] = Camera(
                self, source, self._captioner.on_frame, clock=self._frame_clock,
                max_pixels=settings.max_image_pixels, callback_group=group,
            )  # fmt: skip
        self._watches = CameraWatches(self, self.cameras.values(), lambda: self._views.max_age)
        self._overlays = Overlays(self, tuple(self.cameras), settings.overlay_width)
        # All of them are known before the first frame comes.
        for camera in self.cameras.values():
            camera.open(self._watches.look_at)
        topics = ", ".join(camera.topic for camera in self.cameras.values())
        self.get_logger().info(f"Ready: captions on {self._captions.topic_name}, questions on "
                               f"{self.resolve_service_name('~/query')}; cameras: {topics}")  # fmt: skip

    def _fail(self, reason: str) -> TransitionCallbackReturn:
        self._unload()
        self._failure = reason
        self.get_logger().error(f"Not ready: {reason}")
        if not self._stopping.is_set():
            name = self.get_fully_qualified_name()
            self.get_logger().info(f"After correcting it: ros2 lifecycle set {name} configure, then activate")
        return TransitionCallbackReturn.FAILURE

    def _load_model(self, config: PipelineConfig, facts: Future[ModelFacts]) -> Any:
        pipeline = self._pipeline_factory(config)
        facts.set_result(model_facts(pipeline))
        return pipeline

    def _wait_for_pipeline(self, loaded: Future[None]) -> None:
        while not wait([loaded], timeout=0.1).done:
            if self._stopping.is_set():
                raise LiteVLMError("stopped while the model was loading")
        loaded.result()

    def _disconnect(self) -> None:
        self._queries = self._captioner = None
        if self._watches is not None:
            self._watches.close()
            self._watches = None
        if self._overlays is not None:
            self._overlays.close()
            self._overlays = None
        cameras, self.cameras = self.cameras, {}
        for camera in cameras.values():
            camera.close()
            self.get_logger().info(f"Camera {camera.name}: {camera.counters.summary()}")

    def _unload(self, seconds: float = INFERENCE_STOP_SECONDS) -> None:
        self._settings = self._inference = self._model = None
        thread, self._inference_thread = self._inference_thread, None
        if thread is not None:
            if not thread.stop(seconds) and not self._closed:
                self.get_logger().warning("The model is still at work and keeps its memory until that ends")
            for kind, statistics in thread.statistics.items():
                self.get_logger().info(f"{kind.name.capitalize()}s: {statistics.summary()}")

    # --- callbacks

    def _publish_caption(self, message: Any, image: RgbImage) -> None:
        self._captions.publish(message)
        self._caption_texts.publish(String(data=f"{message.camera}: {message.text}"))
        if (overlays := self._overlays) is not None:
            overlays.show(message, image)

    def _why_not_active(self) -> str:
        name = self.get_fully_qualified_name()
        if self._closed:
            return f"{name} is shutting down"
        if self._failure:
            return f"{name} could not be configured: {self._failure}"
        if self._settings is None and self._inference_thread is not None:
            return f"{name} is loading the model; ask again in a moment"
        if self._settings is None:
            return f"{name} is not configured (yet); where autostart is false: ros2 lifecycle set {name} configure"
        return f"{name} is inactive; to activate it: ros2 lifecycle set {name} activate"

    def _snapshot(self) -> Snapshot:
        """For diagnostics, in whichever thread."""
        inference, watches = self._inference, self._watches
        return Snapshot(
            problem="" if self._queries is not None else self._why_not_active(),
            failed=bool(self._failure),
            cameras={} if watches is None else watches.states,
            statistics={} if inference is None else inference.thread.statistics,
            settings=self._settings,
            config=None if inference is None else inference.config,
            model=self._model,
        )

    def _apply_parameters(self) -> None:
        """Takes over live parameters, as they are now."""
        if self._inference is None:
            return
        self._settings, self._inference.config = self._node_parameters.read()
        self._inference.thread.max_queued_questions = self._settings.max_queued_questions
        if self._queries is not None and self._captioner is not None:
            self._queries.settings = self._captioner.settings = self._settings
            self._queries.sampling = self._inference.config.sampling
            self._views.max_age = self._settings.max_frame_age
            self._frame_clock.counts_from = self._settings.frame_clock
        if self._overlays is not None:
            self._overlays.width = self._settings.overlay_width
