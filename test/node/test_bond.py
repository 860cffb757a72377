"""The bond with a lifecycle manager, on a stand-in for bondpy."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from fake_bondpy import FakeBond, install
from lifecycle_bench import Bench
from ros_process import wait_for

from litevlm_ros.node.bond import HEARTBEAT_SECONDS

pytestmark = pytest.mark.ros


@pytest.fixture
def bonds(monkeypatch: pytest.MonkeyPatch) -> list[FakeBond]:
    return install(monkeypatch)


def test_there_is_no_bond_unless_a_parameter_asks_for_one(bench: Bench, bonds: list[FakeBond]) -> None:
    bench.start()
    assert bench.client.state() == "active"
    assert bonds == []


def test_a_bond_lasts_from_each_activation_to_its_end(bench: Bench, bonds: list[FakeBond]) -> None:
    bench.start(bond_heartbeat_period=0.1)
    client = bench.client
    [bond] = bonds
    assert (bond.topic, bond.id) == ("bond", "litevlm")
    assert (bond.heartbeat_period, bond.heartbeat_timeout, bond.done) == (0.1, HEARTBEAT_SECONDS, ["start"])
    assert bench.node.count_publishers("/bond") == 1
    assert client.change_state("deactivate")
    assert bond.done == ["start", "break", "shutdown"]
    assert bench.node.resolve_topic_name("bond") not in {each.topic_name for each in bench.node.publishers}
    assert bench.node.resolve_topic_name("bond") not in {each.topic_name for each in bench.node.subscriptions}
    assert client.change_state("activate")
    assert [len(each.done) for each in bonds] == [3, 1]
    assert client.change_state("shutdown")
    assert [len(each.done) for each in bonds] == [3, 3]


def test_the_end_of_the_node_breaks_the_bond(bench: Bench, bonds: list[FakeBond]) -> None:
    bench.start(bond_heartbeat_period=0.1)
    bench.executor.create_task(bench.node.close)
    wait_for(lambda: bonds[0].done == ["start", "break", "shutdown"])


def test_an_error_in_a_transition_breaks_the_bond(
    bench: Bench, bonds: list[FakeBond], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.start(bond_heartbeat_period=0.1)

    def fail() -> None:
        monkeypatch.undo()
        raise RuntimeError("in the middle of it")

    monkeypatch.setattr(bench.node, "_end_activity", fail)
    assert not bench.client.change_state("deactivate")
    assert bench.client.state() == "unconfigured"
    assert bonds[0].done == ["start", "break", "shutdown"]
    assert not bench.node.holds_model


def test_no_bond_is_left_of_an_activation_that_fails(bench: Bench, bonds: list[FakeBond]) -> None:
    bench.start(bond_heartbeat_period=0.1, **{"qos_overrides./front/image_raw.subscription.reliability": "relyable"})
    assert bench.client.state() != "active"
    assert [bond for bond in bonds if bond.done != ["start", "break", "shutdown"]] == []


def test_a_bond_that_the_manager_lets_break_is_told_once(
    bench: Bench, bonds: list[FakeBond], capfd: pytest.CaptureFixture[str]
) -> None:
    bench.start(bond_heartbeat_period=0.1)
    bonds[0].on_broken()
    wait_for(lambda: "The bond with the lifecycle manager is broken" in capfd.readouterr().err)
    assert bench.client.state() == "active"
    assert bench.client.change_state("deactivate")
    assert "is broken" not in capfd.readouterr().err


def test_without_bondpy_a_bond_is_refused_with_the_fix(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bondpy", None)
    monkeypatch.setitem(sys.modules, "bondpy.bondpy", None)
    bench.start(bond_heartbeat_period=0.1)
    assert bench.client.state() == "unconfigured"
    assert "sudo apt install ros-$ROS_DISTRO-bondpy" in bench.client.ask("?").error
