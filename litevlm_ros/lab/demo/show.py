"""The demo: starts cameras and node as processes, and follows them as a client until the time is over."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.lab.demo.model_plan import ONNXRUNTIME, ModelPlan
from litevlm_ros.lab.demo.pictures import Pictures
from litevlm_ros.lab.demo.progress import reporting
from litevlm_ros.lab.demo.record import recording, stages
from litevlm_ros.lab.demo.run import Run
from litevlm_ros.machine import describe
from litevlm_ros.processes import Child
from litevlm_ros.types import Notify

_ONE_CAMERA = "front"
_FIXED_QUESTIONS = ("What do you see?", "Is there a car?", "Is it day or night?")
"""The questions about pictures whose true answers nobody knows."""

_NODE_PARAMETERS: Mapping[str, str] = {"transport": "compressed", "caption_period": "2.0"}
"""Raw images of six cameras at once do not fit into Fast DDS's shared memory. The period, in seconds, leaves half of a
small machine to the cameras."""

_CPU_PARAMETERS: Mapping[str, str] = {"max_new_tokens": "32"}
"""On a CPU a model of real size takes about a tenth of a second a token, and a short caption is better than none."""

_LOADING_SECONDS = 900.0
"""The most seconds until the first caption of a model of real size, which is read from a disk."""
_EXPECTED_LOADING = {True: 30.0, False: 40.0}
"""Seconds that it takes as a rule: on a CPU, and on a GPU, whose kernels may have to be compiled."""
_LAST_ANSWERS_SECONDS = 180.0
"""Seconds for the answers that are not there when the time is over: a CPU may take ten for each."""


def run_demo(seconds: float, pictures: Pictures, output: Path) -> bool:
    """Runs cameras and node with the demo model for `seconds`, and writes picture and logs to the directory `output`.

    Returns True if captions and all answers arrived; otherwise it prints the end of the logs. Raises LiteVLMError for a
    process that ends early, so `pictures` are better checked before.
    """
    cameras = DEMO_CAMERAS if pictures.rendered else (_ONE_CAMERA,)
    deadline = time.monotonic() + seconds
    with _cameras_and_node(cameras, pictures, _NODE_PARAMETERS, output) as children:
        run = Run(cameras, None if pictures.rendered else _FIXED_QUESTIONS)
        with _reported(run, children, output):
            while time.monotonic() < deadline:
                _step(run, children, deadline)
    return run.complete


def run_model(
    plan: ModelPlan, seconds: float, pictures: Pictures, questions: Sequence[str], output: Path, notify: Notify
) -> bool:
    """Shows `pictures` to the model of `plan`, which is ready, for `seconds` from its first caption on.

    Asks `questions`, or some if there are none, and waits for their answers beyond that time. Writes picture, logs and
    captions.jsonl (`Record`) to the directory `output`. Returns True if captions and all answers arrived; otherwise it
    prints the end of the logs. Raises LiteVLMError as `run_demo`, and if the node cannot load the model.
    """
    on_cpu = plan.backend == ONNXRUNTIME
    cameras = DEMO_CAMERAS if pictures.rendered and not on_cpu else (_ONE_CAMERA,)
    parameters = {
        **_NODE_PARAMETERS,
        **(_CPU_PARAMETERS if on_cpu else {}),
        **({"stitch_views": "true", "max_tiles": "12"} if plan.wanted.stitched and len(cameras) > 1 else {}),
        "model_dir": str(plan.wanted.directory.absolute()),
        "backend": plan.backend,
    }
    output.mkdir(parents=True, exist_ok=True)
    with (
        recording(output / "captions.jsonl") as record,
        _cameras_and_node(cameras, pictures, parameters, output) as children,
    ):
        run = Run(cameras, questions or _FIXED_QUESTIONS, record)
        with _reported(run, children, output):
            notify("The node loads the model.")
            with reporting("loading the model, until the first caption", _EXPECTED_LOADING[on_cpu], notify):
                _wait_for_caption(run, children)
            deadline = time.monotonic() + seconds
            while (now := time.monotonic()) < deadline or (not run.complete and now < deadline + _LAST_ANSWERS_SECONDS):
                _step(run, children, deadline)
        arrived, lost = run.node.frames()
        notify(f"mean caption: {stages(record.mean())}" if run.has_begun else "mean caption: there was none")
        notify(f"frames: {arrived} arrived, {lost} dropped")
        notify(f"recorded: {record.file}, on {_machine()} with {run.node.backend or 'no model loaded'}")
    return run.complete


@contextmanager
def _cameras_and_node(
    cameras: Sequence[str], pictures: Pictures, parameters: Mapping[str, str], output: Path
) -> Iterator[list[Child]]:
    """Runs both processes, with their logs in `output`, until the block ends."""
    output.mkdir(parents=True, exist_ok=True)
    values = {"cameras": f"[{', '.join(cameras)}]", **parameters}
    settings = [part for name, value in values.items() for part in ("-p", f"{name}:={value}")]
    show = ["--cameras", ",".join(cameras), *pictures.options]
    with (
        Child("litevlm_ros.tools.demo_cameras", show, output / "cameras.log", os.environ) as shown,
        Child("litevlm_ros.node.process", ["--ros-args", *settings], output / "node.log", os.environ) as node,
    ):
        yield [shown, node]


@contextmanager
def _reported(run: Run, children: Sequence[Child], output: Path) -> Iterator[None]:
    """Lets the block follow `run`, and then reports it: the picture in `output`, and what was missing."""
    try:
        yield
        run.report(output / "demo.png")
    finally:
        run.close()
    if not run.complete:
        _show_logs(children)


def _step(run: Run, children: Sequence[Child], deadline: float) -> None:
    run.step(deadline)
    for child in children:
        child.require_running()


def _wait_for_caption(run: Run, children: Sequence[Child]) -> None:
    """Raises LiteVLMError if no caption comes."""
    latest = time.monotonic() + _LOADING_SECONDS
    while not run.has_begun:
        _step(run, children, latest)
        if run.node.failure:
            raise LiteVLMError(f"the node cannot work: {run.node.failure}")
        if time.monotonic() > latest:
            _show_logs(children)
            raise LiteVLMError(f"no caption has come in {_LOADING_SECONDS:.0f} s")


def _show_logs(children: Sequence[Child]) -> None:
    for child in children:
        print(f"--- last lines of {child.log}\n{child.tail()}", file=sys.stderr)


def _machine() -> str:
    """Names the processor that computes, as far as it is known: 'Intel(R) Xeon(R) Processor, 2 cores'."""
    facts = describe()
    gpu = f", {facts['gpu']}" if facts["gpu"] else ""
    return f"{facts['cpu']}, {facts['cores']} cores{gpu}"
