"""The state of the node, as its messages on /diagnostics tell it."""

from __future__ import annotations

from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

_NODE, _MODEL, _CAMERA = "litevlm: node", "litevlm: model", "litevlm: camera "


class NodeState:
    """The last status of each part of the node."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, str]] = {}
        self.failure = ""
        """Reason why the node cannot work, with the fix; '' if it can, or is still starting."""

    def take(self, status: Any) -> None:
        """Takes a diagnostic_msgs/DiagnosticStatus."""
        self._values[status.name] = {each.key: each.value for each in status.values}
        if status.name == _NODE:
            self.failure = status.message if status.level == DiagnosticStatus.ERROR else ""

    @property
    def backend(self) -> str:
        """The backend of the loaded model in words; '' before a model is loaded."""
        return self._values.get(_MODEL, {}).get("backend", "")

    def frames(self) -> tuple[int, int]:
        """Returns how many images have arrived from all cameras, and how many were lost or dropped as malformed."""
        cameras = [values for name, values in self._values.items() if name.startswith(_CAMERA)]
        arrived = sum(int(values.get("received", 0)) for values in cameras)
        lost = [
            int(count)
            for values in cameras
            for name, count in values.items()
            if name == "lost by the middleware" or name.startswith("dropped: ")
        ]
        return arrived, sum(lost)
