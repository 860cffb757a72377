"""The lifecycle node `litevlm`: what is loaded, subscribed and published in which state.

unconfigured: only the query service and the ask action, which say why there are no answers.
inactive: the model is loaded; no camera is subscribed to.
active: cameras, captions and answers (activity.py), and a bond with the lifecycle manager if it wants one (bond.py).

Transitions run beside the executor (transitions.py), so services answer while the model is being loaded.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from inspect import signature
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from std_msgs.msg import String

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.msg import Answer, Caption
from litevlm_ros.node.activity import Activity
from litevlm_ros.node.bond import Bond, load_bondpy
from litevlm_ros.node.cameras import Camera
from litevlm_ros.node.diagnostics import Diagnostics, Snapshot
from litevlm_ros.node.inference import JobKind
from litevlm_ros.node.model_holder import INFERENCE_STOP_SECONDS, ModelHolder
from litevlm_ros.node.parameter_changes import NodeParameters
from litevlm_ros.node.question_servers import QuestionServers
from litevlm_ros.node.statistics import JobStatistics
from litevlm_ros.node.transitions import Transitions
from litevlm_ros.processes import StopRequest
from litevlm_ros.types import AnyImage

TRANSITION_STOP_SECONDS = 0.5
"""Seconds that a running transition has to end when the node ends."""

UNLOAD_SECONDS = 30.0
"""Seconds that cleanup waits for the end of an answer that cannot be cancelled, and so for the model's memory. If that
is not enough, configure waits as long once more before it gives up."""

_QUEUE_DEPTH = 10

_LOGGER_SERVICES = {"enable_logger_service": True} if "enable_logger_service" in signature(Node).parameters else {}
"""The option for services that set the levels of loggers at run time. Humble has none."""


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
        super().__init__("litevlm", **_LOGGER_SERVICES, **node_options)
        self._stopping = stopping or StopRequest()
        self._transitions = Transitions(self, lambda: str(self._state_machine.current_state[1]))
        self._model = ModelHolder(pipeline_factory, self._in_a_hurry, self.get_logger())
        self._activity: Activity | None = None
        self._bond: Bond | None = None
        self._outputs: list[Any] = []
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
        loaded = self._model.loaded
        return {} if loaded is None else loaded.inference.statistics

    @property
    def holds_model(self) -> bool:
        """True while a model is loaded or is being loaded."""
        return self._model.is_held

    @property
    def open_requests(self) -> int:
        """Requests of all services and actions of this node that wait for their response or result."""
        return self.questions.open_questions + self._transitions.open_requests

    def start(self) -> None:
        """Configures and activates the node, unless the parameter autostart is false.

        This waits for the end, so it is called outside the executor.
        """
        wait([self._transitions.run(self._autostart)])

    def close(self) -> None:
        """Cancels everything and waits a moment for it to end. The node cannot be used afterwards."""
        self._closed = True
        self._transitions.close(TRANSITION_STOP_SECONDS)
        self._end_all()

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
            self._model.make_room(UNLOAD_SECONDS)
            settings, config = self._node_parameters.read()
            if settings.bond_heartbeat_period:
                load_bondpy()
            self._model.load(settings, config)
        except LiteVLMError as error:
            return self._fail(str(error))
        except Exception as error:
            self.get_logger().error(traceback.format_exc())
            return self._fail(f"internal error: {error!r}")
        self._captions = self.create_lifecycle_publisher(Caption, "~/caption", _QUEUE_DEPTH)
        self._caption_texts = self.create_lifecycle_publisher(String, "~/caption_text", _QUEUE_DEPTH)
        self._answers = self.create_lifecycle_publisher(Answer, "~/answer", _QUEUE_DEPTH)
        self._outputs = [self._captions, self._caption_texts, self._answers]
        self.get_logger().info(f"Loaded the model in {config.model_dir} in {time.monotonic() - began:.1f} s")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes to the cameras, and begins the bond if there is to be one."""
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
        if not self._model.unload(UNLOAD_SECONDS):
            self.get_logger().warning("The model is still at work and keeps its memory until that ends")
        self._destroy_publishers()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends everything, from any state."""
        self._closed = True
        self._end_all()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Returns to the state unconfigured after an error in a transition."""
        self._end_activity()
        self._model.unload(INFERENCE_STOP_SECONDS)
        self._destroy_publishers()
        return TransitionCallbackReturn.SUCCESS

    def _autostart(self) -> None:
        try:
            if self._node_parameters.autostart() and self.trigger_configure() is TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()
        except LiteVLMError as error:
            self._fail(str(error))
        except Exception as error:  # rclpy's own, when somebody else asked for a transition before
            self.get_logger().warning(f"Autostart ended: {error}")

    def _in_a_hurry(self) -> bool:
        return self._stopping.is_set() or self._transitions.in_a_hurry

    def _begin_activity(self) -> None:
        loaded = self._model.loaded
        assert loaded is not None
        settings = loaded.settings
        self._activity = Activity(
            self, settings, loaded.inference, self._publish_caption, self._answers.publish, loaded.facts.raw_encodings
        )
        self.questions.answerer = self._activity.answerer
        self._activity.open()
        if settings.bond_heartbeat_period:
            self._bond = Bond(self, settings.bond_heartbeat_period)
        topics = ", ".join(camera.topic for camera in self.cameras.values())
        self.get_logger().info(
            f"Ready: captions on {self._captions.topic_name}, questions on "
            f"{self.resolve_service_name('~/query')}; cameras: {topics}"
        )

    def _end_activity(self) -> None:
        activity, self._activity = self._activity, None
        bond, self._bond = self._bond, None
        self.questions.answerer = None
        if bond is not None:
            bond.close()
        if activity is not None:
            activity.close()

    def _end_all(self) -> None:
        self._diagnostics.close()
        self._end_activity()
        self._model.unload(INFERENCE_STOP_SECONDS)

    def _destroy_publishers(self) -> None:
        while self._outputs:
            self.destroy_lifecycle_publisher(self._outputs.pop())

    def _fail(self, reason: str) -> TransitionCallbackReturn:
        self._model.unload(INFERENCE_STOP_SECONDS)
        self._failure = reason
        self.get_logger().error(f"Not ready: {reason}")
        if not self._in_a_hurry():
            name = self.get_fully_qualified_name()
            self.get_logger().info(f"After correcting it: ros2 lifecycle set {name} configure, then activate")
        return TransitionCallbackReturn.FAILURE

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
        loaded = self._model.loaded
        if loaded is None and self._model.is_held:
            return f"{name} is loading the model; ask again in a moment"
        if loaded is None and self._model.is_leaving:
            return f"{name} waits for the end of an answer, to free the memory of the model before"
        if loaded is None:
            return f"{name} is not configured (yet); where autostart is false: ros2 lifecycle set {name} configure"
        return f"{name} is inactive; to activate it: ros2 lifecycle set {name} activate"

    def _snapshot(self) -> Snapshot:
        """Returns the state for the diagnostics. They call it in their own thread."""
        activity, loaded = self._activity, self._model.loaded
        return Snapshot(
            problem="" if activity is not None else self._why_not_active(),
            failed=bool(self._failure),
            cameras={} if activity is None else activity.watches.states,
            statistics={} if loaded is None else loaded.inference.statistics,
            settings=None if loaded is None else loaded.settings,
            config=None if loaded is None else loaded.inference.config,
            model=None if loaded is None else loaded.facts,
        )

    def _apply_parameters(self) -> None:
        """Uses the current values of live parameters from now on."""
        loaded, activity = self._model.loaded, self._activity
        if loaded is None:
            return
        loaded.settings, loaded.inference.config = self._node_parameters.read()
        loaded.inference.max_queued_questions = loaded.settings.max_queued_questions
        if activity is not None:
            activity.apply(loaded.settings)
