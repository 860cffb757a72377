"""The node in this process, on a scripted pipeline, and a client that reaches it over DDS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from ros_domains import next_domain
from ros_process import Client, wait_for
from scripted_pipeline import ScriptedPipeline

from litevlm_ros.node.lifecycle import LiteVLMNode
from litevlm_ros.processes import StopRequest


class Bench:
    """A running node and a client."""

    def __init__(self) -> None:
        self.pipeline = ScriptedPipeline()
        self.load: Callable[[Any], Any] = lambda config: self.pipeline
        self.domain = next_domain()
        self.client = Client(self.domain)
        self.stopping = StopRequest()
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)

    def start(self, **parameters: Any) -> LiteVLMNode:
        chosen = {"cameras": ["front", "back"], "caption_period": 0.0, **parameters}
        self.node = LiteVLMNode(
            self.stopping,
            lambda config: self.load(config),
            context=self.context,
            parameter_overrides=[Parameter(name, value=value) for name, value in chosen.items()],
        )
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._spinning = threading.Thread(target=self.executor.spin, daemon=True)
        self._spinning.start()
        self.node.start()
        return self.node

    def publish(self, camera: str, message: Any) -> Any:
        """Publishes to a camera of the node until it has arrived; returns the publisher.

        A publisher may know its subscription before that knows it, and best effort loses what it sends between.
        """
        target = self.node.cameras[camera]
        publisher = self.client.publisher(type(message), target.topic)
        before = target.counters.received

        def again() -> None:
            publisher.publish(message)
            self.client.spin(0.05)

        wait_for(lambda: target.counters.received > before, step=again)
        return publisher

    def close(self) -> None:
        self.stopping.set()
        if hasattr(self, "node"):
            self.executor.create_task(self.node.close)
            wait_for(lambda: not self.node.holds_model)
            self.executor.shutdown()
            self._spinning.join(5)
            self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)
        self.client.close()
