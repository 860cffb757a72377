"""A model that the node has given up is gone, however its last answers ended."""

# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from asking_client import AskingClient
from lifecycle_bench import Bench
from ros_process import image, wait_for
from scripted_pipeline import ScriptedPipeline

from litevlm_ros.errors import ContextOverflowError, EngineError
from litevlm_ros.node import lifecycle

pytestmark = pytest.mark.ros


class Ends:
    """The ways in which an answer of this model ends. Each raises in a frame that refers to the model."""

    def overflow(self, model: Model, cancel: threading.Event) -> None:
        raise ContextOverflowError("the prompt needs 9 tokens")

    def wrapped(self, model: Model, cancel: threading.Event) -> None:
        try:
            raise KeyError(model)
        except KeyError as error:
            raise EngineError("the decoder failed") from error

    def unforeseen(self, model: Model, cancel: threading.Event) -> None:
        raise RuntimeError("nobody foresaw it")

    def stopped(self, model: Model, cancel: threading.Event) -> None:
        model.go.clear()  # until cleanup cancels it

    def blocked(self, model: Model, cancel: threading.Event) -> None:
        model.began.set()
        model.hold.wait(30)
        raise EngineError("at last")

    def deaf(self, model: Model, cancel: threading.Event) -> None:
        cancel.wait()
        raise EngineError("at last")


class Model(ScriptedPipeline):
    def __init__(self, end: str) -> None:
        super().__init__()
        self.end = end
        self.began, self.hold = threading.Event(), threading.Event()

    def generate(self, *arguments: Any, **settings: Any) -> Any:
        getattr(Ends(), self.end)(self, arguments[4])
        return super().generate(*arguments, **settings)


class Models:
    """Loads models and tells which of them are still there."""

    def __init__(self, end: str) -> None:
        self._end = end
        self._made: list[weakref.ref[Model]] = []
        self.most_at_once = 0

    def load(self, config: Any) -> Model:
        model = Model(self._end)
        self._made.append(weakref.ref(model))
        self.most_at_once = max(self.most_at_once, len(self.alive()))
        return model

    def alive(self) -> list[Model]:
        return [model for made in self._made if (model := made()) is not None]


@pytest.fixture(autouse=True)
def no_collection(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model must not wait for a collection of cycles either."""
    monkeypatch.setattr("litevlm_ros.node.inference.release_memory", lambda: None)
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def asking(bench: Bench) -> Iterator[AskingClient]:
    client = AskingClient(bench.domain)
    yield client
    client.close()


@pytest.mark.parametrize("end", ["overflow", "wrapped", "unforeseen", "stopped", "deaf"])
def test_cleanup_while_goals_and_queries_wait_and_run(bench: Bench, asking: AskingClient, end: str) -> None:
    models = Models(end)
    bench.load = models.load
    bench.start()
    client = bench.client
    for _ in range(3):
        goals = [asking.send(f"goal {i}", images=[image(i)]) for i in range(3)]
        queries = [client.start_query(f"query {i}", images=[image(i)]) for i in range(3)]
        asking.cancel(goals[1])
        assert client.change_state("deactivate")
        assert client.change_state("cleanup")
        for goal in goals:
            assert asking.outcome(goal)[1].error
        for query in queries:
            assert client.result(query).error
        # The errors of the answers are held: by this list as by any log.
        wait_for(lambda: not models.alive())
        assert client.change_state("configure")
        assert client.change_state("activate")
    assert models.most_at_once == 1


def test_a_client_that_is_gone_holds_no_model(bench: Bench) -> None:
    models = Models("stopped")
    bench.load = models.load
    bench.start()
    asking = AskingClient(bench.domain)
    asking.send("?", images=[image()])
    asking.close()
    assert bench.client.change_state("deactivate")
    assert bench.client.change_state("cleanup")
    wait_for(lambda: not models.alive())


def test_cleanup_while_a_camera_is_captioned(bench: Bench) -> None:
    models = Models("stopped")
    bench.load = models.load
    bench.start(caption_period=0.01)
    bench.publish("front", image(1))
    wait_for(lambda: models.alive()[0].calls)
    assert bench.client.change_state("deactivate")
    assert bench.client.change_state("cleanup")
    wait_for(lambda: not models.alive())


def test_a_model_that_failed_to_load_is_gone(bench: Bench) -> None:
    models = Models("stopped")

    def load(config: Any) -> Any:
        model = models.load(config)
        raise EngineError(f"half of it: {model.closed}")

    bench.load = load
    bench.start()
    assert "half of it" in bench.client.ask("?").error
    assert models.alive() == []


def test_shutdown_frees_the_model(bench: Bench) -> None:
    models = Models("stopped")
    bench.load = models.load
    bench.start()
    asked = bench.client.start_query("?", images=[image()])
    bench.client.wait_for(lambda: models.alive()[0].calls)
    assert bench.client.change_state("shutdown")
    assert bench.client.result(asked).error == "the node stopped before the answer was complete"
    wait_for(lambda: not models.alive())


def test_configure_waits_for_the_model_before_and_not_forever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    models = Models("blocked")
    bench.load = models.load
    bench.start()
    client, [model] = bench.client, models.alive()
    hold = model.hold
    asked = client.start_query("?", images=[image()])
    client.wait_for(model.began.is_set)
    del model
    assert client.change_state("deactivate")
    monkeypatch.setattr(lifecycle, "UNLOAD_SECONDS", 0.2)
    assert client.change_state("cleanup")
    assert "waits for the end of an answer, to free the memory of the model before" in client.ask("?").error
    assert not client.change_state("configure")
    assert "the model before is still at work" in client.ask("?").error
    assert client.state() == "unconfigured"
    monkeypatch.setattr(lifecycle, "UNLOAD_SECONDS", 30.0)
    configured = client.start_change("configure")
    client.wait_for(lambda: client.state() == "configuring")
    hold.set()
    assert client.result(configured).success
    assert client.result(asked).error == "at last"
    assert models.most_at_once == 1
