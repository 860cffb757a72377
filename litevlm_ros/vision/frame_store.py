"""Visual tokens of the frames that were looked at last, so that a further question about one need not encode it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from litevlm_ros.backend import VisualTokens
from litevlm_ros.types import View


class FrameStore:
    """At most so many frames; the one that was used longest ago is dropped first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._frames: OrderedDict[Hashable, VisualTokens] = OrderedDict()

    @staticmethod
    def name(view: View) -> Hashable:
        """Equal for views of the same picture; of a view that does not say what it shows, equal to nothing else."""
        return object() if view.frame is None else (view.camera, view.frame)

    def find(self, view: View) -> VisualTokens | None:
        """The visual tokens of the view's frame; None if they are not there or nobody said which frame it is."""
        key = view.camera, view.frame
        if key not in self._frames:
            return None
        self._frames.move_to_end(key)
        return self._frames[key]

    def keep(self, view: View, visual: VisualTokens) -> None:
        """Keeps the visual tokens of a view whose frame has a name."""
        if view.frame is None:
            return
        key = view.camera, view.frame
        self._frames[key] = visual
        self._frames.move_to_end(key)
        while len(self._frames) > self._most:
            self._frames.popitem(last=False)
