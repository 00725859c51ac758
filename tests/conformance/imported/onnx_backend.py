"""An `onnxruntime` backend for the Triton of the PyTriton wheel, which comes with Python's only.

Triton reads the repository, queues, batches, routes versions and runs ensembles as ever; only the
tensors of a batch are computed here. It runs in Triton's own environment, not in ours.
"""

import json
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as backend


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        file = config["default_model_filename"] or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / file
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        feeds = {
            name: backend.get_input_tensor_by_name(request, name).as_numpy()
            for name in self._inputs
        }
        wanted = list(request.requested_output_names())
        outputs = self._session.run(wanted, feeds)
        tensors = [backend.Tensor(name, array) for name, array in zip(wanted, outputs, strict=True)]
        return backend.InferenceResponse(tensors)
