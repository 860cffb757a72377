from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from litevlm_ros.node.ros_logging import log_to_ros


class Recorder:
    """Stands for a ROS logger."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __getattr__(self, severity: str) -> Any:
        return lambda text: self.lines.append((severity, text))


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    loggers = [logging.getLogger(name) for name in ("litevlm_ros", "litevlm_ros.tensorrt")]
    before = [(logger.handlers, logger.level) for logger in loggers]
    recorder = Recorder()
    log_to_ros(recorder)
    yield recorder
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers = handlers
        logger.setLevel(level)


def test_severities_are_ros_severities(recorder: Recorder) -> None:
    log = logging.getLogger("litevlm_ros.somewhere")
    log.debug("a %d", 1)
    log.info("b")
    log.warning("c")
    log.critical("d")
    assert recorder.lines == [("debug", "a 1"), ("info", "b"), ("warning", "c"), ("error", "d")]


def test_tensorrt_does_not_chat(recorder: Recorder) -> None:
    log = logging.getLogger("litevlm_ros.tensorrt")
    log.info("Loaded engine size: 5 MiB")
    log.warning("no such profile")
    assert recorder.lines == [("warning", "no such profile")]


def test_a_wrong_record_does_not_reach_the_caller(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = logging.getLogger("litevlm_ros")
    monkeypatch.setattr(package, "propagate", False)  # pytest's own handler raises
    package.info("%d", "no number")
    assert recorder.lines == []
    assert "no number" in capsys.readouterr().err
