"""A stand-in for the package bondpy of ROS 2, whose bonds remember what was done to them."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest


class FakeBond:
    """Has the part of bondpy.bondpy.Bond that the node uses, with the same arguments, and publishes nothing."""

    def __init__(self, topic: str, id: str, node: Any, on_broken: Any = None, on_formed: Any = None) -> None:
        self.topic, self.id = topic, id
        self.on_broken, self.on_formed = on_broken, on_formed
        self.heartbeat_period, self.heartbeat_timeout = 1.0, 4.0
        self.done: list[str] = []
        self.pub = node.create_publisher(_status(), topic, 1)
        self._node = node

    def start(self) -> None:
        self.done.append("start")
        self.sub = self._node.create_subscription(_status(), self.topic, lambda message: None, 1)

    def break_bond(self) -> None:
        self.done.append("break")
        if self.on_broken:
            self.on_broken()

    def shutdown(self) -> None:
        self.done.append("shutdown")
        self.sub.destroy()
        self.pub.destroy()


def _status() -> Any:
    from std_msgs.msg import String  # bond/Status is not installed either

    return String


def install(monkeypatch: pytest.MonkeyPatch) -> list[FakeBond]:
    """Puts the package in place for one test. Returns the bonds that are made."""
    bonds: list[FakeBond] = []

    def make(*arguments: Any, **settings: Any) -> FakeBond:
        bonds.append(FakeBond(*arguments, **settings))
        return bonds[-1]

    package, module = types.ModuleType("bondpy"), types.ModuleType("bondpy.bondpy")
    package.bondpy, module.Bond = module, make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bondpy", package)
    monkeypatch.setitem(sys.modules, "bondpy.bondpy", module)
    return bonds
