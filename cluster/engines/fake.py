"""An engine that computes nothing worth waiting for, exactly: for tests and load tests."""

from __future__ import annotations

import os
import time

import numpy as np

from cluster.config.device import parse_device
from cluster.engines.device import refuse_device
from cluster.engines.engine import EngineFacts, EngineSetup
from cluster.engines.options import check_option_names, number_option
from cluster.engines.warm_up import run_zeros
from cluster.errors import ConfigError, EngineFailed
from cluster.processing.signature_check import check_inputs
from cluster.tensors import NUMPY_DTYPES, Array, Signature, TensorSpec

EXIT_STATUS = 1


class FakeEngine:
    """The n-th output is made of the n-th input (of the last one when there are fewer inputs):

    - numbers: `y = 2 * x + 1`, computed in the output's datatype (integers wrap around);
    - BYTES and BOOL: the input, unchanged.

    Options: `delay_ms` sleeps that long a batch; `crash_on` is a value which, anywhere in the
    inputs, makes the batch fail (EngineFailed); `exit_on` one that ends the process with status 1.
    Warm-up sleeps no delay, and neither crashes nor exits.
    """

    def __init__(self, setup: EngineSetup) -> None:
        check_option_names("fake", setup.options, ("delay_ms", "crash_on", "exit_on"))
        device = parse_device(setup.device)
        if device.kind not in ("auto", "cpu"):
            raise refuse_device(device, "fake", "cpu")
        self._setup = setup
        self._signature = setup.card.raw_signature()
        self._delay_s = (number_option("fake", setup.options, "delay_ms") or 0.0) / 1e3
        self._is_loaded = False

    @property
    def signature(self) -> Signature:
        return self._signature

    @property
    def facts(self) -> EngineFacts:
        return EngineFacts(
            engine="fake",
            provider="fake",
            device="cpu",
            precision=self._setup.card.precision,
            threads=1,
            weight_bytes=0,
        )

    def load(self) -> None:
        """Raises: ConfigError for an output that cannot be made of its input."""
        free = 1 if self._setup.card.batched else 0
        for source, output in self._pairs():
            is_same_kind = (source.datatype == "BYTES") == (output.datatype == "BYTES")
            if not is_same_kind or source.shape[free:] != output.shape[free:]:
                raise ConfigError(
                    f"the fake engine makes output {output.name!r} ({output.datatype} "
                    f"{list(output.shape)}) of input {source.name!r} ({source.datatype} "
                    f"{list(source.shape)}): their kind and shape must be the same",
                    key=f"signature.{output.name}",
                )
        self._is_loaded = True

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        run_zeros(self._compute, self._signature, batch_sizes, is_batched=self._setup.card.batched)

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        if not self._is_loaded:
            raise EngineFailed("the engine is closed")
        check_inputs(inputs, self._signature, is_batched=self._setup.card.batched)
        if self._delay_s:
            time.sleep(self._delay_s)
        options = self._setup.options
        if "exit_on" in options and _holds(inputs, options["exit_on"]):
            os._exit(EXIT_STATUS)
        if "crash_on" in options and _holds(inputs, options["crash_on"]):
            raise EngineFailed(f"crash_on: the inputs hold {options['crash_on']!r}")
        return self._compute(inputs)

    def close(self) -> None:
        self._is_loaded = False

    def _compute(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return {
            output.name: _made_of(inputs[source.name], output) for source, output in self._pairs()
        }

    def _pairs(self) -> list[tuple[TensorSpec, TensorSpec]]:
        inputs = self._signature.inputs
        last = len(inputs) - 1
        return [(inputs[min(n, last)], out) for n, out in enumerate(self._signature.outputs)]


def _made_of(values: Array, output: TensorSpec) -> Array:
    dtype = NUMPY_DTYPES[output.datatype]
    if output.datatype in ("BYTES", "BOOL"):
        return values.astype(dtype)
    # Overflow is part of the arithmetic here, not news.
    with np.errstate(all="ignore"):
        doubled: Array = values.astype(dtype) * np.asarray(2, dtype)
        made: Array = np.asarray(doubled + np.asarray(1, dtype), dtype)
        return made


def _holds(inputs: dict[str, Array], value: str | int | float | bool) -> bool:
    wanted = str(value).encode()
    for array in inputs.values():
        if array.dtype == np.object_:
            if any(item == wanted for item in array.flat):
                return True
        elif not isinstance(value, str) and bool((array == value).any()):
            return True
    return False
