"""What the pipeline says through Python's logging, in the node's own log."""

from __future__ import annotations

import logging
from typing import Any

_PACKAGE = "litevlm_ros"


class RosLogHandler(logging.Handler):
    """Hands records to a ROS logger, whose level decides."""

    def __init__(self, ros_logger: Any) -> None:
        super().__init__()
        self._ros = ros_logger

    def emit(self, record: logging.LogRecord) -> None:
        """One call for each severity: rclpy refuses another one from the same line."""
        try:
            text = record.getMessage()
            if record.levelno >= logging.ERROR:
                self._ros.error(text)
            elif record.levelno >= logging.WARNING:
                self._ros.warning(text)
            elif record.levelno >= logging.INFO:
                self._ros.info(text)
            else:
                self._ros.debug(text)
        except Exception:
            self.handleError(record)


def log_to_ros(ros_logger: Any) -> None:
    """From now on what the package logs goes to `ros_logger`; of TensorRT's own remarks only warnings and errors.

    For a process that has one node: another call replaces the logger of the one before.
    """
    package = logging.getLogger(_PACKAGE)
    package.handlers = [RosLogHandler(ros_logger)]
    package.setLevel(logging.DEBUG)
    logging.getLogger(f"{_PACKAGE}.tensorrt").setLevel(logging.WARNING)
