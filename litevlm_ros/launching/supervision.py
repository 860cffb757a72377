"""Decides what a launch does when a process that it runs has ended."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launch.actions import EmitEvent, LogInfo, Shutdown
from launch.events import matches_action
from launch.events.process import ProcessExited, ShutdownProcess
from launch.launch_context import LaunchContext
from launch.launch_description_entity import LaunchDescriptionEntity

from litevlm_ros.launching.arguments import is_true, respawn_delay

_ASKED = (0, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP)
"""Statuses of a process that ended as it was asked to; the negative ones if it was asked before it could listen."""

_SETTINGS = 2
"""The status of a process whose settings cannot work, so that it would fail in the same way again."""


@dataclass(frozen=True)
class Supervision:
    """The arguments `respawn`, `respawn_delay` (in seconds) and `required`."""

    respawn: bool
    delay: float
    required: bool

    @classmethod
    def of_arguments(cls, arguments: Mapping[str, str]) -> Supervision:
        """Reads the arguments. Raises ConfigError if one is wrong."""
        required = is_true(arguments["required"])
        return cls(is_true(arguments["respawn"]), respawn_delay(arguments["respawn_delay"]), required)

    def options(self) -> dict[str, Any]:
        """Returns the options of the action that runs the process."""
        return {
            "respawn": self.respawn and not self.required,
            "respawn_delay": self.delay,
            "on_exit": self._on_exit,
        }

    def _on_exit(self, event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        name, status = event.process_name, event.returncode
        if context.is_shutdown:
            return []
        if self.required:
            return [Shutdown(reason=f"{name} has ended, and is required")]
        if not self.respawn:
            return []
        if status in _ASKED or status == _SETTINGS:
            why = "its settings cannot work" if status == _SETTINGS else "it was asked to end"
            # launch starts a process again whatever its status is, unless the process is shut down meanwhile.
            stop = EmitEvent(event=ShutdownProcess(process_matcher=matches_action(event.action)))
            return [LogInfo(msg=f"{name} is not started again: {why}"), stop]
        return [LogInfo(msg=f"{name} is started again in {self.delay:g} s")]
