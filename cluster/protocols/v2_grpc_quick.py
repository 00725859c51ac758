"""The usual `ModelInfer` and its answer, without what only the unusual ones need.

Whatever is unusual or wrong makes both of these answer None, and the whole codec in `v2_grpc` has
its turn: it knows every extension and words every error. What comes out here is what would have
come out there (tests compare the two on generated messages).
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from cluster.protocols.grpc_schema import message_class
from cluster.protocols.v2_binary import bytes_from_tensor
from cluster.protocols.v2_fields import LARGEST_UINT64
from cluster.protocols.v2_quick import MAX_REMEMBERED, fits
from cluster.requests import InferenceRequest, InferenceResponse, Parameter, RequestedOutput
from cluster.tensors import NUMPY_DTYPES, Signature, Tensor, TensorSpec

_Response = message_class("inference.ModelInferResponse")
_PARAMETERS = frozenset({"timeout", "priority"})
_CHOICES = frozenset({"int64_param", "uint64_param"})
_RAW = _Response.DESCRIPTOR.fields_by_name["raw_output_contents"].number << 3 | 2
"""The tag before each buffer: field number and wire type (length-delimited)."""


class QuickRpcDecoder:
    """Of one model. Not for models without inputs."""

    def __init__(
        self, model: str, signature: Signature, *, is_batched: bool, max_batch_size: int
    ) -> None:
        self._model = model
        self._inputs: dict[str, tuple[TensorSpec, list[int]]] = {
            spec.name: (spec, list(spec.shape[1:] if is_batched else spec.shape))
            for spec in signature.inputs
            if spec.datatype not in ("BYTES", "BOOL")
        }
        self._num_inputs = len(signature.inputs)
        self._outputs = {spec.name for spec in (*signature.outputs, *signature.extra_outputs)}
        self._is_batched = is_batched
        self._max_batch_size = max_batch_size

    def decode(self, message: Any, version: str) -> tuple[InferenceRequest, int] | None:
        """The request in a `ModelInferRequest` and its rows; None for what is not the usual case:
        tensors in typed fields or in shared memory, strings, classes, and all that is wrong."""
        inputs = self._tensors(message)
        if inputs is None:
            return None
        outputs: tuple[RequestedOutput, ...] = ()
        if message.outputs:
            outputs = self._wanted(message.outputs)
            if not outputs:
                return None
        parameters: dict[str, Parameter] = {}
        if message.parameters:
            for name, entry in message.parameters.items():
                choice = entry.WhichOneof("parameter_choice")
                if name not in _PARAMETERS or choice not in _CHOICES:
                    return None
                value = parameters[name] = getattr(entry, choice)
                if not 0 <= value <= LARGEST_UINT64:
                    return None
        request = InferenceRequest(
            model=self._model,
            version=version,
            request_id=message.id,
            inputs=inputs,
            outputs=outputs,
            parameters=parameters,
            priority=int(parameters.get("priority", 0)),
        )
        return request, inputs[0].array.shape[0] if self._is_batched else 1

    def _tensors(self, message: Any) -> tuple[Tensor, ...] | None:
        entries, buffers = message.inputs, message.raw_input_contents
        if len(entries) != self._num_inputs or len(buffers) != self._num_inputs:
            return None
        tensors: list[Tensor] = []
        rows = -1
        for entry, data in zip(entries, buffers, strict=True):
            known = self._inputs.get(entry.name)
            if known is None:
                return None
            spec, dims = known
            if entry.datatype != spec.datatype or entry.parameters or entry.HasField("contents"):
                return None
            shape = list(entry.shape)
            if self._is_batched:
                if not shape or not 0 < shape[0] <= self._max_batch_size:
                    return None
                if rows not in (-1, shape[0]):
                    return None
                rows = shape[0]
            if not fits(shape[1:] if self._is_batched else shape, dims):
                return None
            dtype = NUMPY_DTYPES[spec.datatype]
            if not data or len(data) != prod(shape) * dtype.itemsize:
                return None
            array = np.frombuffer(data, dtype).reshape(shape)
            tensors.append(Tensor(name=spec.name, datatype=spec.datatype, array=array))
        if len(tensors) > 1 and len({item.name for item in tensors}) != len(tensors):
            return None
        return tuple(tensors)

    def _wanted(self, entries: Any) -> tuple[RequestedOutput, ...]:
        if any(entry.parameters for entry in entries):
            return ()
        names = [entry.name for entry in entries]
        if len(set(names)) != len(names) or not self._outputs.issuperset(names):
            return ()
        return tuple([RequestedOutput(name=name) for name in names])


class QuickRpcEncoder:
    """Of one door: a `ModelInferResponse` of which all but id and numbers is kept from answer to
    answer. Messages can be written one behind the other, fields in any order (protobuf encoding
    guide, "Last One Wins")."""

    def __init__(self) -> None:
        self._heads: dict[tuple[str, str, str], bytes] = {}
        self._tensors: dict[tuple[str, str, tuple[int, ...]], tuple[bytes, bytes]] = {}

    def encode(self, response: InferenceResponse, request: InferenceRequest) -> bytes | None:
        """None for strings, classes, what goes into shared memory, and answers that say more of
        themselves than their variant."""
        if response.parameters != {"squadron_variant": response.variant}:
            return None
        for wanted in request.outputs:
            if wanted.num_classes or wanted.place is not None:
                return None
        parts: list[bytes | memoryview] = [self._head(response)]
        if request.request_id:
            parts.append(_Response(id=request.request_id).SerializeToString())
        for tensor in response.outputs:
            if tensor.datatype == "BYTES":
                return None
            described, tag = self._tensor(tensor)
            parts += (described, tag, bytes_from_tensor(tensor))
        return b"".join(parts)

    def _head(self, response: InferenceResponse) -> bytes:
        key = (response.model, response.version, response.variant)
        found = self._heads.get(key)
        if found is None:
            message = _Response(model_name=response.model, model_version=response.version)
            message.parameters["squadron_variant"].string_param = response.variant
            # Models, versions and variants are the configuration's, not the callers'.
            found = self._heads[key] = message.SerializeToString()
        return found

    def _tensor(self, tensor: Tensor) -> tuple[bytes, bytes]:
        """What is said of it, and what stands before its bytes."""
        shape = tensor.array.shape
        key = (tensor.name, tensor.datatype, shape)
        found = self._tensors.get(key)
        if found is None:
            message = _Response()
            message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
            size = prod(shape) * NUMPY_DTYPES[tensor.datatype].itemsize
            found = message.SerializeToString(), bytes([_RAW]) + _varint(size)
            if len(self._tensors) < MAX_REMEMBERED:
                self._tensors[key] = found
        return found


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
