"""transformers' stages on the tiny model, against the pipeline on ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_internvl import model_directory

from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.lab.benchmarking.stages import Workload, camera_views
from litevlm_ros.pipeline import Pipeline

torch = pytest.importorskip("torch", reason="compares with transformers: pip install 'litevlm_ros[convert]'")

from litevlm_ros.lab.benchmarking.transformers_stages import TransformersStages, time_stages  # noqa: E402

COUNT = 12


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    pipeline = Pipeline.from_config(PipelineConfig(model_directory(), backend="onnxruntime", threads=1))
    pipeline.stop_ids = frozenset()
    return pipeline


@pytest.fixture(scope="module")
def stages() -> TransformersStages:
    return TransformersStages(model_directory(), "eager", dtype=torch.float32, device="cpu", max_context=300)


def work(count: int) -> Workload:
    return Workload.of(model_directory(), camera_views(count, (64, 48)), "What is there?")


@pytest.mark.parametrize("views", [1, 3])
def test_they_give_the_pipelines_answer(pipeline: Pipeline, stages: TransformersStages, views: int) -> None:
    load, ids = work(views), work(views).prompt
    assert (ids >= 320).sum() == 4 * views
    visual = stages.encode(load.tiles())
    token, cache = stages.prefill(ids, visual)
    tokens = [token, *stages.decode(token, len(ids), cache, COUNT - 1)]
    answer = pipeline.generate(camera_views(views, (64, 48)), "What is there?", SamplingConfig(COUNT))
    assert pipeline.tokenizer.decode([int(token) for token in tokens]) == answer.text
    logits = stages.logits(ids, visual)
    assert logits.shape == (len(ids), 320)
    assert int(logits[-1].argmax()) == int(tokens[0])


def test_every_stage_is_timed(stages: TransformersStages) -> None:
    times = time_stages(stages, work(1), tokens=4, runs=3)
    assert {len(values) for values in times.values()} == {3}
    for run in range(3):
        parts = sum(times[name][run] * (3 if name == "decode_token" else 1) for name in times if name != "total")
        np.testing.assert_allclose(times["total"][run], parts, rtol=1e-6)
