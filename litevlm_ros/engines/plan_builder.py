"""Builds the plan of a block for one number of rows.

Plans are strongly typed: they compute in the types of the graph, with every TensorRT from 10.3 on. Their shapes are
static, for which TensorRT has faster kernels than for a range. TensorRT builds for the GPU at hand; TensorRT-RTX also
builds without one, for the compute capability it is told.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litevlm_ros.engines.plan_archive import PlanKey
from litevlm_ros.engines.target import Target
from litevlm_ros.engines.tensorrt_module import load_tensorrt, tensorrt_logger
from litevlm_ros.errors import EngineError
from litevlm_ros.files import write_bytes
from litevlm_ros.trust import distrust

_LOGGER = logging.getLogger(__name__)


def build_plan(
    graph: bytes, key: PlanKey, target: Target, *, workspace_mib: int = 0, timing_cache: Path | None = None
) -> bytes:
    """Builds the plan `key` of a block's serialized ONNX model `graph`.

    The sizes 'R' and 'C' of the graph become `key.rows` and `key.columns`. `workspace_mib` bounds the memory that
    TensorRT may use for a layer, in MiB (0: no bound). `timing_cache` keeps what TensorRT measured for the next build,
    where TensorRT measures at all. Raises EngineError with TensorRT's own reason.
    """
    trt = load_tensorrt().module
    logger, messages = tensorrt_logger()
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        reasons = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise EngineError(f"TensorRT does not read the block {key.block}: {reasons or messages.take()}")
    config = builder.create_builder_config()
    if workspace_mib:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    if target.name:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, target.name), 0)
    _fix_sizes(builder, network, config, key)
    with _timing_cache(config, timing_cache):
        contents = builder.build_serialized_network(network, config)
    if contents is None:
        raise EngineError(f"TensorRT does not build {key}: {messages.take()}")
    return bytes(contents)


def _strongly_typed(trt: Any) -> int:
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    # Where the flag is gone, networks are never anything else.
    return 1 << int(flag) if flag is not None else 0


def _fix_sizes(builder: Any, network: Any, config: Any, key: PlanKey) -> None:
    """Gives the sizes that the graph leaves open their one value."""
    sizes = {"R": key.rows, "C": key.columns}
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape:
            fixed = tuple(
                sizes[tensor.get_dimension_name(axis)] if size == -1 else size for axis, size in enumerate(shape)
            )
            profile.set_shape(tensor.name, fixed, fixed, fixed)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"TensorRT refuses the sizes of {key}")


@contextlib.contextmanager
def _timing_cache(config: Any, file: Path | None) -> Iterator[None]:
    """Gives a build with `config` what TensorRT measured before, from `file`, and writes back what it measures now.

    A file that cannot be written, or that somebody else could have written, costs time at the next build, no more.
    TensorRT-RTX measures nothing when it builds.
    """
    if file is None or load_tensorrt().is_rtx:
        yield
        return
    before = b""
    with contextlib.suppress(OSError):
        if reason := distrust(file):
            _LOGGER.warning("%s is not read, so everything is measured again: %s", file, reason)
        else:
            before = file.read_bytes()
    cache = config.create_timing_cache(before) or config.create_timing_cache(b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    yield
    after = bytes(config.get_timing_cache().serialize())
    if after == before:
        return
    try:
        write_bytes(file, after)
    except OSError as error:
        _LOGGER.warning("%s cannot be written (%s), so the next build measures again", file, error)
