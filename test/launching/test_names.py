from __future__ import annotations

import pytest

pytest.importorskip("launch_ros", reason="needs ROS's launch, which comes from apt")

from launch.actions import GroupAction, OpaqueFunction
from launch_ros.actions import PushRosNamespace

from launch import LaunchContext
from litevlm_ros.errors import ConfigError
from litevlm_ros.launching.names import full_name, logger_name, namespace

pytestmark = pytest.mark.ros


def pushed(*namespaces: str) -> LaunchContext:
    context = LaunchContext()
    for one in namespaces:
        PushRosNamespace(one).execute(context)
    return context


@pytest.mark.parametrize(
    ("before", "given", "expected"),
    [
        ((), "", "/"),
        ((), "/", "/"),
        ((), "robot1", "/robot1"),
        ((), "/robot1", "/robot1"),
        ((), "robot1/", "/robot1"),
        ((), "fleet/robot1", "/fleet/robot1"),
        (("robot1",), "", "/robot1"),
        (("fleet", "robot1"), "", "/fleet/robot1"),
        (("robot1",), "eyes", "/robot1/eyes"),
        (("robot1",), "/eyes", "/eyes"),
        # The including launch file has an argument `namespace`, pushes it, and passes it on without meaning to.
        (("robot1",), "robot1", "/robot1"),
        (("fleet/robot1",), "robot1", "/fleet/robot1"),
        (("bigrobot1",), "robot1", "/bigrobot1/robot1"),
    ],
)
def test_namespaces_are_joined(before: tuple[str, ...], given: str, expected: str) -> None:
    context = pushed(*before)
    assert namespace(context, {"namespace": given}) == expected
    name = full_name(context, {"namespace": given, "name": "eyes"})
    assert name == f"{expected.rstrip('/')}/eyes"
    assert logger_name(name) == name[1:].replace("/", ".")


@pytest.mark.parametrize("wrong", ["9x", "a//b", "robot-1", "a b", "a__b/c d"])
def test_what_is_no_namespace(wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"^namespace:={wrong} gives no namespace of ROS: Invalid namespace: .*[^:]$"):
        namespace(LaunchContext(), {"namespace": wrong})


@pytest.mark.parametrize("wrong", ["", "/litevlm", "lite-vlm", "9"])
def test_what_is_no_name(wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"^name:={wrong} is no name of a node: "):
        full_name(LaunchContext(), {"namespace": "", "name": wrong})


def test_a_group_ends_what_it_pushed() -> None:
    context, found = LaunchContext(), []

    def look(context: LaunchContext) -> None:
        found.append(namespace(context, {"namespace": ""}))

    group = GroupAction([PushRosNamespace("robot1"), OpaqueFunction(function=look)])
    for entity in [*(group.execute(context) or []), OpaqueFunction(function=look)]:
        entity.visit(context)
    assert found == ["/robot1", "/"]
