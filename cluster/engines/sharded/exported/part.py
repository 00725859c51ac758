"""One stage of a cut `torch.export` program."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.engines.device import use_torch_threads
from cluster.engines.memory import is_out_of_memory
from cluster.engines.pt2_archive import refuse_pickles
from cluster.engines.sharded.part import PartFacts, PartSetup, Step, Values
from cluster.errors import ConfigError, EngineFailed, InvalidRequest, OutOfMemory


class ExportedPart:
    """Tensors go by the program's own names, the model's outputs by the card's."""

    def __init__(self, setup: PartSetup) -> None:
        self._setup = setup
        self._device = torch.device("cpu" if setup.shard.device == "auto" else setup.shard.device)
        self._call: Any = None

    def load(self) -> PartFacts:
        use_torch_threads(self._setup.threads)
        file = Path(self._setup.artefact)
        told = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        self._takes: list[str] = told["takes"]
        outputs = [spec.name for spec in self._setup.card.raw_signature().outputs]
        self._gives: list[str] = told["gives"] or outputs
        self._rides: list[str] = told["rides"]
        try:
            refuse_pickles(file)
            program = torch.export.load(str(file))
            if self._device.type != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, self._device)
            self._call = program.module()
        except ConfigError:
            raise
        except Exception as error:
            said = (str(error).splitlines() or [""])[0]
            raise ConfigError(
                f"{file}: PyTorch cannot load it: {said}", file=str(file), key="artefact"
            ) from None
        tensors = program.state_dict
        return PartFacts(
            device=str(self._device),
            weight_bytes=sum(t.numel() * t.element_size() for t in tensors.values()),
            opened=tuple(tensors),
        )

    def run(self, values: Values, step: Step) -> Values:
        if self._call is None:
            raise EngineFailed("the part is closed")
        use_torch_threads(self._setup.threads)
        try:
            given = [self._tensor(values[name]) for name in self._takes]
            with torch.inference_mode():
                answer = self._call(*given)
        except KeyError as error:
            raise InvalidRequest(f"the input {error} is missing") from None
        except IndexError as error:
            raise InvalidRequest(f"the model refuses the inputs: {error}") from None
        except Exception as error:
            said = (str(error).splitlines() or [""])[0][:300]
            if is_out_of_memory(error):
                raise OutOfMemory(f"PyTorch had too little memory: {said}") from None
            raise EngineFailed(f"PyTorch failed: {type(error).__name__}: {said}") from None
        found = dict(zip(self._gives, answer, strict=False))
        return {**found, **{name: values[name] for name in self._rides}}

    def drop(self, sequences: Iterable[str]) -> None:
        """A cut graph has no caches."""

    def close(self) -> None:
        self._call = None

    def _tensor(self, value: Any) -> torch.Tensor:
        if isinstance(value, np.ndarray):
            is_bfloat16 = value.dtype.name == "bfloat16"
            value = torch.from_numpy(np.array(value.view(np.uint16) if is_bfloat16 else value))
            value = value.view(torch.bfloat16) if is_bfloat16 else value
        moved: torch.Tensor = value.to(self._device)
        return moved
