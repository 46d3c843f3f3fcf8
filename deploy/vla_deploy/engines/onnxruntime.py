"""ONNX Runtime on the CPU: the default engine, and the one every robot has."""

from __future__ import annotations

import os
from collections.abc import Mapping

import onnxruntime as ort

from vla.errors import BadBundle
from vla_deploy.engines import Array, contiguous


class Engine:
    """An inference session of one thread.

    A second one helps only while a whole core is idle. A robot shares its cores with cameras, drivers and safety,
    and two threads that spin on busy cores wait for each other longer than either computes.
    """

    def __init__(self, graph: bytes, name: str) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised
        # Weights outside the graph would be read from the folder we happen to run in, and no digest covers them.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise BadBundle(f"ONNX Runtime cannot load {name}: {error}") from error
        self.inputs = tuple(i.name for i in self._session.get_inputs())
        self.outputs = tuple(o.name for o in self._session.get_outputs())

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute every output."""
        found = self._session.run(self.outputs, contiguous(inputs, self.inputs))
        return dict(zip(self.outputs, found, strict=True))
