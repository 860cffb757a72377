"""The memory that the node's process keeps of a model that it has given up."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from asking_client import AskingClient
from ros_domains import next_domain
from ros_process import Client, image, process

pytestmark = pytest.mark.ros


def resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def test_memory_is_freed_on_cleanup_and_cycles_do_not_add_up(tmp_path: Path) -> None:
    """The demo model on ONNX Runtime; it prints what it measures (pytest -s)."""
    domain = next_domain()
    client = Client(domain)
    arguments = ["-m", "litevlm_ros.node.process", "--ros-args", "-p", "autostart:=false", "-p", "caption_period:=0.0"]
    loaded, freed = [], []
    with process(arguments, tmp_path / "log", domain) as node:
        for _ in range(8):
            assert client.change_state("configure")
            assert client.change_state("activate")
            assert client.ask("What is there?", images=[image(1)]).success
            loaded.append(resident(node.pid))
            assert client.change_state("deactivate")
            assert client.change_state("cleanup")
            freed.append(resident(node.pid))
    client.close()
    print("\nresident MB loaded:", *(f"{size:.0f}" for size in loaded))
    print("resident MB after cleanup:", *(f"{size:.0f}" for size in freed))
    # The first cycle imports the libraries, which stay.
    assert loaded[-1] - freed[-1] > 30
    assert loaded[-1] - loaded[2] < 8
    assert freed[-1] - freed[2] < 4


def test_memory_is_freed_on_cleanup_while_questions_run_and_wait(tmp_path: Path) -> None:
    """As above, but cleanup comes in the middle: some questions run, wait, are cancelled, or fail in the pipeline."""
    domain = next_domain()
    client = AskingClient(domain)
    arguments = ["-m", "litevlm_ros.node.process", "--ros-args", "-p", "autostart:=false", "-p", "caption_period:=0.0"]
    arguments += ["-p", "max_context:=256"]
    too_long = "Where? " * 280
    freed = []
    with process(arguments, tmp_path / "log", domain) as node:
        for _ in range(6):
            assert client.change_state("configure")
            assert client.change_state("activate")
            failed = client.ask(too_long, images=[image(1)])
            assert "max_context" in failed.error
            goals = [client.send("Describe the scene.", images=[image(i)], max_new_tokens=200) for i in range(3)]
            queries = [client.start_query(too_long, images=[image(i)]) for i in range(3)]
            client.cancel(goals[1])
            assert client.change_state("deactivate")
            assert client.change_state("cleanup")
            for goal in goals:
                client.outcome(goal)
            for query in queries:
                assert client.result(query).error
            freed.append(resident(node.pid))
    client.close()
    print("\nresident MB after cleanup:", *(f"{size:.0f}" for size in freed))
    assert freed[-1] - freed[2] < 10
