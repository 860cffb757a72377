from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from robot import Robot


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[Robot]:
    robot = Robot(tmp_path)
    yield robot
    robot.client.close()
