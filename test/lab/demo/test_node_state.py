from __future__ import annotations

import pytest

pytest.importorskip("diagnostic_msgs", reason="needs ROS 2")

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from litevlm_ros.lab.demo.node_state import NodeState


def status(name: str, level: bytes = DiagnosticStatus.OK, message: str = "", **values: str) -> DiagnosticStatus:
    pairs = [KeyValue(key=key.replace("_", " "), value=value) for key, value in values.items()]
    return DiagnosticStatus(name=f"litevlm: {name}", level=level, message=message, values=pairs)


def test_frames_are_counted_over_all_cameras_from_the_last_messages() -> None:
    state = NodeState()
    assert state.frames() == (0, 0)
    state.take(status("camera front", received="5", lost_by_the_middleware="0"))
    state.take(status("camera front", received="9", lost_by_the_middleware="1", replaced_by_newer_ones="4"))
    dropped = status("camera back", received="20", lost_by_the_middleware="2")
    dropped.values.append(KeyValue(key="dropped: bad size", value="3"))
    state.take(dropped)
    assert state.frames() == (29, 6)


def test_a_node_that_cannot_work_is_told_and_one_that_loads_is_not() -> None:
    state = NodeState()
    state.take(status("node", DiagnosticStatus.WARN, "loading"))
    assert state.failure == ""
    state.take(status("node", DiagnosticStatus.ERROR, "no graph; export it"))
    assert state.failure == "no graph; export it"
    state.take(status("model", backend="ONNX Runtime, int8"))
    assert state.backend == "ONNX Runtime, int8"
