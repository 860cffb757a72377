"""Does what a plan lists: installs a model and makes its graphs or engines. What is finished is kept."""

from __future__ import annotations

import logging
from functools import partial

from litevlm_ros.config import PipelineConfig
from litevlm_ros.download.install import install_model
from litevlm_ros.download.staging import gigabytes
from litevlm_ros.errors import EngineError
from litevlm_ros.lab.demo.model_plan import ModelPlan
from litevlm_ros.lab.demo.progress import reporting
from litevlm_ros.model_directory import PARTS
from litevlm_ros.types import Notify


def prepare(plan: ModelPlan, notify: Notify) -> None:
    """Does the steps of `plan`, and tells how they go on.

    Whenever it is interrupted, a new plan has only the steps and parts that are left. Raises LiteVLMError, OSError, and
    ImportError for a package that conversion needs.
    """
    wanted = plan.wanted
    seconds = {step.name: step.seconds for step in plan.steps}
    if wanted.has_changed:
        notify(f"{wanted.source} has changed since {wanted.directory} was made of it")
        # They are of the old weights, and an interrupted run must not find them beside the new ones.
        for file in wanted.made_files():
            file.unlink()
    if "split" in seconds:
        install_model(wanted.request, notify)
    if "build" in seconds:
        _build(plan, notify)
    if "export" in seconds:
        with reporting("exporting", seconds["export"], notify):
            _export(plan, notify)


def _build(plan: ModelPlan, notify: Notify) -> None:
    from litevlm_ros.engines.build import BuildRequest, build_engines
    from litevlm_ros.engines.shapes import DEFAULT_TILES, Sizes
    from litevlm_ros.lab.world.calibration import calibration_data

    # TensorRT warns about every graph with int64 inputs, and its errors are part of ours.
    logging.getLogger("litevlm_ros.tensorrt").setLevel(logging.CRITICAL)
    directory = plan.wanted.directory
    build_engines(
        BuildRequest(
            model=directory,
            output=directory,
            precisions=dict.fromkeys(PARTS, plan.precision),
            sizes=Sizes(DEFAULT_TILES, 0),
            calibration=partial(calibration_data, directory, None),
        ),
        notify,
    )


def _export(plan: ModelPlan, notify: Notify) -> None:
    from litevlm_ros.convert.export import export_graphs
    from litevlm_ros.runtime.onnx.graph_choice import find_graph

    directory = plan.wanted.directory
    missing = {}
    for part in PARTS:
        try:
            notify(f"{find_graph(PipelineConfig(directory), part).name}: reused")
        except EngineError:
            missing[part] = plan.precision
    for graph in export_graphs(directory, directory, missing):
        notify(f"{graph.file.name}: {gigabytes(graph.bytes)} in {graph.seconds:.0f} s")
