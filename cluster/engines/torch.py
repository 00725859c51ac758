"""TorchScript and torch.export programs on PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.config.device import Device, parse_device
from cluster.engines.artefact import artefact_file
from cluster.engines.device import refuse_device, use_torch_threads
from cluster.engines.engine import EngineFacts, EngineSetup
from cluster.engines.graph_signature import GraphTensor, check_graph_inputs
from cluster.engines.memory import is_out_of_memory
from cluster.engines.options import check_option_names
from cluster.engines.pt2_archive import refuse_pickles
from cluster.engines.sharded.whole import Generator, load_whole
from cluster.engines.warm_up import run_zeros
from cluster.errors import ConfigError, EngineFailed, InvalidRequest, OutOfMemory, SquadronError
from cluster.processing.signature_check import check_inputs, check_outputs
from cluster.requests import Parameter
from cluster.tensors import NUMPY_DTYPES, Array, Datatype, Signature, TensorSpec

_DTYPES: dict[Datatype, torch.dtype] = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "BF16": torch.bfloat16,
    "FP32": torch.float32,
    "FP64": torch.float64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

TORCHSCRIPT_RUNS = 3
"""TorchScript compiles during its first runs at a shape: warm-up repeats each batch size."""


class TorchEngine:
    """Formats `torchscript` (`torch.jit.save`), `torch_export` (`torch.export.save`) and
    `huggingface` (a directory of one of the families of `cluster.engines.sharded`; options `dtype`
    and `task`).

    Format `aot_inductor` is native code that `torch._inductor.aoti_compile_and_package` made on a
    machine of this kind.

    Inputs go in by position, in the card's order (and, with torch.export, by the names of the
    program's own inputs); outputs come as a tensor or a sequence, in the card's order, or as a
    dict by name.

    `threads` sets PyTorch's intra-op threads, of which there is one setting for the whole process:
    each call sets it where it differs, and nothing sets it back. Who hosts an engine beside code of
    others does that (`torch_as_before`).

    Trust: an artefact of either format is a program, as trusted as code. `torch.export.load`
    unpickles whatever the archive asks for (seen in torch 2.13), so archives that hold pickled
    objects other than plain tensors are refused here; its shape expressions still pass through a
    parser that evaluates. Serve files whose sha256 is in their card.
    """

    def __init__(self, setup: EngineSetup) -> None:
        known = ("dtype", "task") if setup.card.format == "huggingface" else ()
        check_option_names("torch", setup.options, known)
        self._setup = setup
        self._device = _choose_device(parse_device(setup.device))
        self._signature = setup.card.raw_signature()
        self._call: Callable[..., Any] | None = None
        self._facts: EngineFacts | None = None
        self._generator: Generator | None = None

    @property
    def signature(self) -> Signature:
        return self._signature

    @property
    def facts(self) -> EngineFacts:
        assert self._facts is not None, "facts are known after load"
        return self._facts

    def load(self) -> None:
        use_torch_threads(self._setup.threads)
        self._refuse_text()
        match self._setup.card.format:
            case "torchscript":
                file = artefact_file(self._setup)
                call, weights = _load_torchscript(file, self._device, self._signature)
                provider = "TorchScript"
            case "torch_export":
                file = artefact_file(self._setup)
                call, weights = _load_export(file, self._device, self._signature)
                provider = "torch.export"
            case "huggingface":
                call, weights, self._generator = load_whole(self._setup, self._device)
                provider = "transformers"
            case "aot_inductor":
                file = artefact_file(self._setup)
                call, weights = _load_compiled(file), file.stat().st_size
                provider = "torch AOTInductor"
            case other:
                raise ConfigError(
                    f"engine torch does not run format {other}",
                    key="format",
                    value=other,
                    allowed="torchscript, torch_export, aot_inductor, huggingface",
                )
        self._call = call
        self._facts = EngineFacts(
            engine="torch",
            provider=provider,
            device=str(self._device),
            precision=self._setup.card.precision,
            threads=torch.get_num_threads(),
            weight_bytes=weights,
        )

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        if self._setup.card.decoupled:
            return
        times = TORCHSCRIPT_RUNS if self._setup.card.format == "torchscript" else 1
        is_batched = self._setup.card.batched
        run_zeros(self.infer, self._signature, batch_sizes, is_batched=is_batched, times=times)

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        if self._call is None:
            raise EngineFailed("the engine is closed")
        is_batched = self._setup.card.batched
        rows = check_inputs(inputs, self._signature, is_batched=is_batched)
        given = [_to_torch(inputs[s.name], s, self._device) for s in self._signature.inputs]
        use_torch_threads(self._setup.threads)
        try:
            with torch.inference_mode():
                answer = self._call(*given)
                outputs = _by_name(answer, self._signature.outputs)
        except IndexError as error:
            # An index beyond a table (a token id that the vocabulary has not) is the caller's.
            raise InvalidRequest(f"the model refuses the inputs: {error}") from None
        except SquadronError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {_message(error)}"
            if is_out_of_memory(error):
                raise OutOfMemory(f"PyTorch had too little memory: {said}") from None
            raise EngineFailed(f"PyTorch failed: {said}") from None
        check_outputs(outputs, self._signature.outputs, rows=rows, is_batched=is_batched)
        return outputs

    def stream(
        self, inputs: dict[str, Array], parameters: dict[str, Parameter]
    ) -> Iterator[dict[str, Array]]:
        """A language model's tokens, one a response (`sharded.generate`)."""
        if self._generator is None:
            raise EngineFailed("the engine generates nothing")
        return self._generator.stream(inputs, parameters)

    def close(self) -> None:
        self._call = None
        self._generator = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _refuse_text(self) -> None:
        for spec in (*self._signature.inputs, *self._signature.outputs):
            if spec.datatype == "BYTES":
                raise ConfigError(
                    f"{spec.name!r} is BYTES in the card; PyTorch has no tensors of text",
                    key=f"signature.{spec.name}",
                )


def _choose_device(device: Device) -> torch.device:
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    offered = ["cpu"]
    if has_mps:
        offered.append("mps")
    if has_cuda:
        offered += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if device.kind == "auto":
        return torch.device("cuda:0" if has_cuda else "mps" if has_mps else "cpu")
    wanted = f"cuda:{device.index or 0}" if device.kind == "cuda" else str(device)
    if wanted not in offered:
        raise refuse_device(device, "torch", ", ".join(offered))
    return torch.device(wanted)


def _load_torchscript(
    file: Path, device: torch.device, card: Signature
) -> tuple[Callable[..., Any], int]:
    try:
        with warnings.catch_warnings():
            # Deprecated in favour of torch.export, and what many existing artefacts are.
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(str(file), map_location=device)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise _unloadable(file, "a TorchScript program", error) from None
    module.eval()
    takes = [a.name for a in module.forward.schema.arguments[1:] if not a.has_default_value()]
    most = len(module.forward.schema.arguments) - 1
    if not len(takes) <= len(card.inputs) <= most:
        said = ", ".join(takes)
        raise ConfigError(
            f"{file}: the program takes {len(takes)} inputs ({said}), the card has "
            f"{len(card.inputs)}",
            file=str(file),
            key="signature.inputs",
        )
    tensors = [*module.parameters(), *module.buffers()]
    return module, sum(item.numel() * item.element_size() for item in tensors)


def _load_compiled(file: Path) -> Callable[..., Any]:
    """Native code for the processor that it was compiled on: as trusted as a program."""
    try:
        compiled: Callable[..., Any] = torch._inductor.aoti_load_package(str(file))
    except Exception as error:
        raise _unloadable(file, "a package of AOTInductor", error) from None
    return compiled


def _load_export(
    file: Path, device: torch.device, card: Signature
) -> tuple[Callable[..., Any], int]:
    refuse_pickles(file)
    try:
        program = torch.export.load(str(file))
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        module = program.module()
    except Exception as error:
        raise _unloadable(file, "a torch.export program", error) from None
    check_graph_inputs(card.inputs, _graph_inputs(program), file)
    _refuse_keywords(program, file)
    order = [str(name) for name in program.graph_signature.user_inputs]
    names = [spec.name for spec in card.inputs]

    def call(*given: torch.Tensor) -> Any:
        by_name = dict(zip(names, given, strict=True))
        return module(*(by_name[name] for name in order))

    tensors = program.state_dict.values()
    return call, sum(item.numel() * item.element_size() for item in tensors)


def _refuse_keywords(program: torch.export.ExportedProgram, file: Path) -> None:
    spec = program.call_spec.in_spec
    count = spec.child(1).num_leaves if spec is not None else 0
    if count:
        raise ConfigError(
            f"{file}: {count} inputs were exported as keyword arguments; export them as "
            "positional ones",
            file=str(file),
            key="artefact",
        )


def _graph_inputs(program: torch.export.ExportedProgram) -> list[GraphTensor]:
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    found: list[GraphTensor] = []
    for name in program.graph_signature.user_inputs:
        value = nodes[str(name)].meta["val"]
        found.append(
            GraphTensor(
                name=str(name),
                datatype=_NAMES.get(value.dtype, str(value.dtype)),
                shape=tuple(size if isinstance(size, int) else -1 for size in value.shape),
            )
        )
    return found


def _unloadable(file: Path, what: str, error: Exception) -> ConfigError:
    said = f"{type(error).__name__}: {_message(error)}"
    return ConfigError(f"{file}: not {what}: {said}", file=str(file), key="artefact")


def _to_torch(array: Array, spec: TensorSpec, device: torch.device) -> torch.Tensor:
    if device.type == "cuda":
        # The memory is PyTorch's until the copy has been made, whenever that is.
        return staged(array, spec).to(device, non_blocking=True)
    # A copy: the array may be read-only or at any address, and a program may work in place.
    owned = np.array(array, dtype=NUMPY_DTYPES[spec.datatype], order="C")
    if spec.datatype == "BF16":
        return torch.from_numpy(owned.view(np.uint16)).view(torch.bfloat16).to(device)
    return torch.from_numpy(owned).to(device)


def staged(array: Array, spec: TensorSpec) -> torch.Tensor:
    """A copy in page-locked memory, from which a GPU copies by itself and several times as fast as
    from other memory. PyTorch keeps the memory for the next batch's."""
    made = torch.empty(array.shape, dtype=_DTYPES[spec.datatype], pin_memory=True)
    if spec.datatype == "BF16":
        made.view(torch.uint16).numpy()[...] = np.asarray(array).view(np.uint16)
    else:
        made.numpy()[...] = array
    return made


def _by_name(answer: object, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    if isinstance(answer, Mapping):
        found = {str(name): value for name, value in answer.items()}
    else:
        values = list(answer) if isinstance(answer, list | tuple) else [answer]
        if len(values) < len(specs):
            raise EngineFailed(f"the program gave {len(values)} outputs, the card has {len(specs)}")
        found = {spec.name: value for spec, value in zip(specs, values, strict=False)}
    return {spec.name: _to_numpy(found[spec.name], spec) for spec in specs if spec.name in found}


def _to_numpy(value: object, spec: TensorSpec) -> Array:
    if not isinstance(value, torch.Tensor):
        raise EngineFailed(f"output {spec.name!r} is a {type(value).__name__}, expected a tensor")
    # A copy, as the tensor may be one of the program's own weights.
    owned = value.detach().to("cpu", copy=True).contiguous()
    if owned.dtype is torch.bfloat16:
        return owned.view(torch.uint16).numpy().view(NUMPY_DTYPES["BF16"])
    array: Array = owned.numpy()
    return array


def _message(error: Exception) -> str:
    """One line of it, without the traces that TorchScript and torch.export put in the text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return ""
    return (lines[-1] if any("Traceback" in line for line in lines) else lines[0])[:500]
