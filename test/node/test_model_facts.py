from __future__ import annotations

from types import SimpleNamespace

import pytest

from litevlm_ros.machine import Device
from litevlm_ros.node import model_facts as module
from litevlm_ros.node.model_facts import model_facts


def test_of_a_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_device", lambda: Device("Orin", (8, 7), 1, True))
    backend = SimpleNamespace(description="TensorRT 10", fingerprints={"a.engine": "12ab"}, memory=lambda: {"cache": 5})
    facts = model_facts(SimpleNamespace(backend=backend))
    assert (facts.backend, facts.gpu, facts.fingerprints) == ("TensorRT 10", "Orin", {"a.engine": "12ab"})
    assert facts.device_memory() == {"cache": 5}


def test_of_what_has_no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_device", lambda: None)
    facts = model_facts(object())
    assert (facts.backend, facts.gpu, facts.fingerprints, facts.device_memory()) == ("", "", {}, {})
