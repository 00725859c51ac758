"""A torch module as it is, run eagerly in this process."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any

import torch
from torch import nn

from cluster.client.inputs import as_array
from cluster.config.device import parse_device
from cluster.engines.device import refuse_device
from cluster.errors import EngineFailed, InvalidRequest
from cluster.optimization.export.module import named_outputs
from cluster.optimization.intake.model import example_of
from cluster.optimization.measure.as_before import torch_as_before
from cluster.processing.signature_check import check_inputs
from cluster.tensors import Array, Signature, TensorSpec, datatype_of


class ModuleBackend:
    """See `Backend`. Inputs are named as `example` (else the module's own `example_inputs()`) names
    them, in the order of `forward`; what leads with one row there and in the answer is batched.

    The module stays the caller's: it computes in evaluation mode here, and has its own mode again
    afterwards.
    Raises: ConfigError when the example is missing or the module fails on it.
    """

    is_remote = False

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str = "",
        example: Mapping[str, Array] | None = None,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        self.module = module
        self.example = dict(example) if example is not None else example_of(module, ())
        self.name = name or type(module).__name__.lower()
        self.threads = threads
        self._turn = Lock()
        self._is_closed = False
        self._device = torch.device("cpu")
        self.to_device(device)
        answer = self._run(self.example)
        every = (*self.example.values(), *answer.values())
        self.is_batched = all(array.ndim > 0 and array.shape[0] == 1 for array in every)
        self.signature = Signature(
            inputs=tuple(self._spec(n, array) for n, array in self.example.items()),
            outputs=tuple(self._spec(n, array) for n, array in answer.items()),
        )

    def infer(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        check_inputs(dict(inputs), self.signature, is_batched=self.is_batched)
        for name in outputs:
            if self.signature.output(name) is None:
                gives = ", ".join(repr(spec.name) for spec in self.signature.outputs)
                raise InvalidRequest(f"unexpected output {name!r}; the model gives {gives}")
        with self._turn:
            if self._is_closed:
                raise EngineFailed(f"model {self.name!r} was unloaded")
            answer = self._run(inputs)
        wanted = outputs or tuple(answer)
        return {name: answer[name] for name in wanted}

    def to_device(self, device: str) -> None:
        """Raises: ConfigError for a device that this machine has not."""
        parsed = parse_device(device)
        has_cuda = torch.cuda.is_available()
        kind = parsed.kind
        if kind == "auto":
            kind = "cuda" if has_cuda else "cpu"
        if kind == "cuda" and not has_cuda:
            raise refuse_device(parsed, "torch", "cpu")
        index = f":{parsed.index or 0}" if kind == "cuda" else ""
        with self._turn:
            self._device = torch.device(f"{kind}{index}")
            self.module.to(self._device)

    def close(self) -> None:
        with self._turn:
            self._is_closed = True

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        given = [torch.from_numpy(inputs[n].copy()).to(self._device) for n in self.example]
        try:
            with torch_as_before(self.module), torch.inference_mode():
                torch.set_num_threads(self.threads)
                self.module.eval()
                answer: Any = self.module(*given)
                outputs = named_outputs(answer)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise EngineFailed(f"{self.name}: {type(error).__name__}: {said}") from None
        return {n: as_array(value, None) for n, value in outputs.items()}

    def _spec(self, name: str, array: Array) -> TensorSpec:
        shape = (-1, *array.shape[1:]) if self.is_batched else array.shape
        return TensorSpec(name=name, datatype=datatype_of(array), shape=shape)
