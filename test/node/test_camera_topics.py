"""Real publishers of another participant, as another process would be, and subscriptions that fit them or do not."""

# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_domains import next_domain
from ros_process import Client, image, wait_for
from sensor_msgs.msg import CompressedImage, Image

from litevlm_ros.errors import ConfigError
from litevlm_ros.node.camera_topics import Silence, image_qos, subscribe, why_silent

pytestmark = pytest.mark.ros
TOPIC = "/front/image_raw"


class Bench:
    """A node that subscribes and a driver that publishes."""

    def __init__(self) -> None:
        self.domain = next_domain()
        self.driver = Client(self.domain)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.received: list[Any] = []
        self.mismatches: list[bool] = []
        self.lost: list[int] = []

    def subscribe(self, requested: str, **overrides: Any) -> QoSProfile:
        parameters = [
            Parameter(f"qos_overrides.{TOPIC}.subscription.{name}", value=value) for name, value in overrides.items()
        ]
        self.node = rclpy.create_node("node", context=self.context, parameter_overrides=parameters)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.qos = image_qos(requested, depth=1)
        subscribe(
            self.node, Image, TOPIC, self.received.append, self.qos,
            on_mismatch=lambda: self.mismatches.append(True), on_lost=self.lost.append,
        )  # fmt: skip
        return self.qos

    def publish(self, reliability: ReliabilityPolicy, kind: Any = Image) -> Any:
        return self.driver.node.create_publisher(kind, TOPIC, QoSProfile(depth=5, reliability=reliability))

    def diagnose(self) -> Any:
        return why_silent(self.node, TOPIC, False, self.qos)

    def until(self, condition: Any, step: Any = lambda: None) -> None:
        def spin() -> None:
            step()
            self.executor.spin_once(timeout_sec=0.02)

        wait_for(condition, step=spin)

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)
        self.driver.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def test_incompatible_quality_of_service_is_told_with_both_sides_and_the_fix(bench: Bench) -> None:
    bench.subscribe("reliable")
    assert bench.diagnose().silence is Silence.NO_PUBLISHER
    publisher = bench.publish(ReliabilityPolicy.BEST_EFFORT)
    bench.until(lambda: bench.mismatches)
    bench.until(lambda: "/client" in bench.diagnose().text)
    diagnosis = bench.diagnose()
    assert diagnosis.silence is Silence.INCOMPATIBLE_QOS
    assert diagnosis.text == (
        "/front/image_raw has incompatible QoS: /client offers best effort, volatile, this node requests reliable, "
        "volatile; set image_reliability to best_effort"
    )
    publisher.publish(image())
    bench.driver.spin(0.1)
    assert not bench.received


@pytest.mark.parametrize("offered", [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
def test_best_effort_receives_from_both(bench: Bench, offered: ReliabilityPolicy) -> None:
    bench.subscribe("best_effort")
    publisher = bench.publish(offered)
    bench.until(lambda: bench.received, lambda: publisher.publish(image()))
    assert bench.diagnose().silence is Silence.NO_MESSAGE
    assert not bench.mismatches


def test_another_type(bench: Bench) -> None:
    bench.subscribe("best_effort")
    bench.publish(ReliabilityPolicy.RELIABLE, CompressedImage)
    bench.until(lambda: bench.diagnose().silence is Silence.WRONG_TYPE)
    assert "carries sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image; change" in bench.diagnose().text


def test_overrides_have_the_last_word(bench: Bench) -> None:
    qos = bench.subscribe("best_effort", reliability="reliable", depth=7)
    assert (qos.reliability, qos.depth) == (ReliabilityPolicy.RELIABLE, 7)


@pytest.mark.filterwarnings("ignore:A zero depth")
@pytest.mark.parametrize(
    "override", [{"reliability": "relyable"}, {"depth": 0}, {"depth": "many"}, {"reliability": 3}, {"history": "all"}]
)
def test_a_wrong_override_is_refused_with_its_name(bench: Bench, override: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"below qos_overrides\.{TOPIC}\.subscription is wrong \(.*depth from 1"):
        bench.subscribe("best_effort", **override)
