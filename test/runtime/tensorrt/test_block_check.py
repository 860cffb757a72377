"""The check of blocks: sound ones pass, in every size and type, and others are refused with the reason."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from fake_cuda import FakeCuda

from litevlm_ros.engines.block_graph import FLOAT, ROWS, BlockGraph
from litevlm_ros.engines.graphs import block_graphs
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.runtime.tensorrt.block_check import BlockCheck
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory

MODEL = ModelConfig(
    VisionConfig(64, 256, 2, 4, image_size=56, patch_size=14),
    TextConfig(96, 512, 2, 6, 2, 16, 1e-6, 1e6, 320, False, 1024),
    "internvl2_5",
    True,
    12,
)


class OnHost:
    """A block that ONNX Runtime computes in the fake device's memory, and that `spoil` then changes."""

    def __init__(self, graph: BlockGraph, rows: int, device: CudaDevice, spoil: Any = None) -> None:
        self._graph, self._rows, self._device, self._spoil = graph, rows, device, spoil
        self._session = onnxruntime.InferenceSession(graph.serialized(), providers=["CPUExecutionProvider"])

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        self._device.wait()
        feed = {}
        for tensor in (*self._graph.activations, *self._graph.weights):
            feed[tensor.name] = self._array(addresses[tensor.name], tensor).copy()
        results = self._session.run([tensor.name for tensor in self._graph.outputs], feed)
        for tensor, result in zip(self._graph.outputs, results, strict=True):
            self._array(addresses[tensor.name], tensor)[...] = result
            if self._spoil is not None:
                self._spoil(tensor.name, self._array(addresses[tensor.name], tensor))

    def _array(self, address: int, tensor: Any) -> Any:
        dtype = np.dtype(np.float32 if tensor.type == FLOAT else np.float16)
        shape = tuple(self._rows if size == ROWS else int(size) for size in tensor.shape)
        buffer = (ctypes.c_char * (int(np.prod(shape)) * dtype.itemsize)).from_address(address)
        return np.frombuffer(buffer, dtype).reshape(shape)


@pytest.fixture
def device(cuda: FakeCuda) -> CudaDevice:
    return CudaDevice()


def verdict(device: CudaDevice, part: str, name: str, rows: int, spoil: Any = None, model: ModelConfig = MODEL) -> str:
    graphs = block_graphs(part, "fp16", model)
    (graph,) = (each for each in graphs if each.name == name)
    with device:
        memory = DeviceMemory(device)
        check = BlockCheck(part, graphs, model, "fp16", device, memory)
        wrong = check.wrong(name, rows, OnHost(graph, rows, device, spoil))
        assert not memory.by_purpose(), "the sample's memory is given back"
        memory.free()
    return wrong


@pytest.mark.parametrize("rows", [1, 2, 17, 300])
@pytest.mark.parametrize("name", ["qkv", "mlp"])
@pytest.mark.parametrize("part", [VISION, TEXT])
def test_sound_blocks_pass(device: CudaDevice, part: str, name: str, rows: int) -> None:
    assert verdict(device, part, name, rows) == ""


def test_a_vision_encoder_without_biases_passes(device: CudaDevice) -> None:
    model = replace(MODEL, vision=replace(MODEL.vision, qkv_bias=False))
    assert verdict(device, VISION, "qkv", 17, model=model) == ""


@pytest.mark.parametrize("part", [VISION, TEXT])
@pytest.mark.parametrize(("name", "output"), [("qkv", "qkv"), ("qkv", "residual"), ("mlp", "sum"), ("mlp", "change")])
def test_a_wrong_last_row_of_any_output_is_noticed(device: CudaDevice, part: str, name: str, output: str) -> None:
    def spoil(tensor: str, array: Any) -> None:
        if tensor == output:
            array[-1] *= 1.1

    assert verdict(device, part, name, 40, spoil).startswith(
        "it computes nonsense in fp16: the relative error is 1.0e-01"
    )


def test_a_number_that_is_not_finite_is_noticed(device: CudaDevice) -> None:
    def spoil(tensor: str, array: Any) -> None:
        if tensor == "change":
            array[0, 3] = np.nan

    assert verdict(device, TEXT, "mlp", 4, spoil) == "it computes nonsense in fp16: some numbers are not finite"


def test_blocks_that_run_once_are_not_checked(device: CudaDevice) -> None:
    with device:
        check = BlockCheck(TEXT, block_graphs(TEXT, "fp16", MODEL), MODEL, "fp16", device, DeviceMemory(device))
        assert check.wrong("head", 1, None) == ""  # type: ignore[arg-type]
