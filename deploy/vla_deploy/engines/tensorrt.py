"""TensorRT, for NVIDIA GPUs: the graph is compiled for this very GPU when it is opened, which takes about a minute.

float32 throughout, TF32 off: what the golden outputs allow. Needs `tensorrt` and `cuda-python` from NVIDIA.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vla.errors import BadBundle, Missing
from vla_deploy.engines import Array, contiguous

_RANGES = {"B": (1, 1, 16), "N": (1, 16, 256), "S": (1, 1, 1024)}
"""Smallest, usual and largest size of each free axis, by the names that the export gives them."""


class Engine:
    """A compiled graph and its execution context."""

    def __init__(self, graph: bytes, name: str) -> None:
        self._trt, self._cuda = _library("tensorrt"), _library("cuda.bindings.runtime")
        logger = self._trt.Logger(self._trt.Logger.WARNING)
        plan = _compile(self._trt, logger, graph, name)
        runtime = self._trt.Runtime(logger)
        self._engine = runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BadBundle(f"TensorRT cannot load what it compiled of {name}; is the GPU's memory full?")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        reads = {n for n in names if self._engine.get_tensor_mode(n) == self._trt.TensorIOMode.INPUT}
        self.inputs = tuple(n for n in names if n in reads)
        self.outputs = tuple(n for n in names if n not in reads)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Copy in, compute, copy out."""
        arrays = contiguous(inputs, self.inputs)
        for name, array in arrays.items():
            if not self._context.set_input_shape(name, array.shape):
                raise BadBundle(f"TensorRT was compiled for other sizes of {name} than {array.shape}: {_RANGES}")
        results = {name: self._empty(name) for name in self.outputs}
        pointers = {name: self._call("cudaMalloc", max(1, a.nbytes)) for name, a in (arrays | results).items()}
        try:
            to_device = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
            to_host = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
            for name, pointer in pointers.items():
                self._context.set_tensor_address(name, int(pointer))
            for name, array in arrays.items():
                self._call("cudaMemcpy", pointers[name], array.ctypes.data, array.nbytes, to_device)
            if not self._context.execute_async_v3(0):
                raise RuntimeError("TensorRT could not run the graph; its log above says why")
            self._call("cudaStreamSynchronize", 0)
            for name, array in results.items():
                self._call("cudaMemcpy", array.ctypes.data, pointers[name], array.nbytes, to_host)
        finally:
            for pointer in pointers.values():
                self._call("cudaFree", pointer)
        return results

    def _empty(self, name: str) -> Array:
        """Where an output goes; its shape follows from the inputs' shapes."""
        shape = tuple(self._context.get_tensor_shape(name))
        return np.empty(shape, self._trt.nptype(self._engine.get_tensor_dtype(name)))

    def _call(self, function: str, *args: Any) -> Any:
        """A CUDA call; its result, if it has one."""
        status, *result = getattr(self._cuda, function)(*args)
        if int(status) != 0:
            raise RuntimeError(f"{function} failed with {status}")
        return result[0] if result else None


def _compile(trt: Any, logger: Any, graph: bytes, name: str) -> Any:
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BadBundle(f"TensorRT cannot parse {name}: {reasons}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for tensor in (network.get_input(i) for i in range(network.num_inputs)):
        sizes = [
            _RANGES[tensor.get_dimension_name(axis)] if size == -1 else (size,) * 3
            for axis, size in enumerate(tensor.shape)
        ]
        profile.set_shape(tensor.name, *zip(*sizes, strict=True))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BadBundle(f"TensorRT cannot compile {name}; its log above says why")
    return plan


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(
            f"engine tensorrt needs the Python package {name.partition('.')[0]!r} and an NVIDIA GPU ({error}). Install "
            "TensorRT 10 and cuda-python from NVIDIA, or use ONNX Runtime: name the bundle without `tensorrt:`."
        ) from error
