"""The built package, as `make setup` installs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from package_files import ROOT, executables

pytestmark = pytest.mark.ros


def prefix() -> Path:
    from ament_index_python.packages import get_package_prefix

    return Path(get_package_prefix("litevlm_ros"))


TOOLS = [name for name, target in executables().items() if target.startswith("litevlm_ros.tools.")]


def test_executables_are_those_of_setup_cfg() -> None:
    installed = {path.name for path in (prefix() / "lib" / "litevlm_ros").glob("*")}
    assert installed == set(executables())


@pytest.mark.parametrize("tool", TOOLS)
def test_help_needs_neither_torch_nor_ros(tool: str, tmp_path: Path) -> None:
    for name in ("torch", "rclpy", "tensorrt"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not for --help')")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [str(prefix() / "lib" / "litevlm_ros" / tool), "--help"]
    result = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage:")


@pytest.mark.parametrize("directory", ["launch", "config", "models/demo"])
def test_shared_files_are_installed(directory: str) -> None:
    sources = {path.relative_to(ROOT) for path in (ROOT / directory).glob("**/*") if path.is_file()}
    sources = {path for path in sources if "__pycache__" not in path.parts}
    share = prefix() / "share" / "litevlm_ros"
    assert {path for path in sources if not (share / path).exists()} == set()


def test_messages_and_modules_share_one_package() -> None:
    code = "import litevlm_ros.types, litevlm_ros.msg, litevlm_ros.srv; print(litevlm_ros.__version__)"
    result = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "0.1.0"


def test_an_empty_query_asks_for_the_defaults() -> None:
    from litevlm_ros.srv import Query

    request = Query.Request(question="What is ahead?")
    assert list(request.cameras) == []
    assert list(request.images) == []
    numbers = (request.max_new_tokens, request.temperature, request.top_k, request.top_p, request.seed)
    assert numbers == (0, 0.0, 0, 0.0, 0)


def test_finish_reasons_are_those_of_the_pipeline() -> None:
    from litevlm_ros.msg import Answer, Caption
    from litevlm_ros.types import FinishReason

    for message in (Answer, Caption):
        assert {message.STOP, message.LENGTH, message.CANCELLED} == {reason.value for reason in FinishReason}


def test_a_query_survives_serialisation() -> None:
    from rclpy.serialization import deserialize_message, serialize_message

    from litevlm_ros.msg import Answer, Timings

    answer = Answer(text="ein Fußgänger", cameras=["front", "left"], timings=Timings(total=41.5), visual_tokens=512)
    answer.header.stamp.sec = 7
    assert deserialize_message(serialize_message(answer), Answer) == answer
