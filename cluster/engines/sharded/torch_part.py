"""Some layers of a Hugging Face model on one device, filled with their own weights only.

The whole model's shape is never on a device: it is built on torch's meta device with as many
layers as the part has, what the part lacks is taken out, and what is left is read from the files.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from cluster.engines.device import use_torch_threads
from cluster.engines.memory import is_out_of_memory, return_large_blocks
from cluster.engines.sharded.caches import Caches
from cluster.engines.sharded.families import (
    family_of,
    keep_layers,
    read_config,
    refuse_by_place,
    weight_source,
)
from cluster.engines.sharded.offload import stream_layers
from cluster.engines.sharded.part import PartFacts, PartSetup, Step, Values
from cluster.engines.sharded.tensor_split import slices_of, split
from cluster.engines.sharded.weights import CheckpointFiles
from cluster.errors import ConfigError, EngineFailed, InvalidRequest, OutOfMemory, SquadronError

HIDDEN = "hidden_states"
"""The name under which activations go from part to part."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchPart:
    """Format `huggingface`: the families of `cluster.engines.sharded.families`."""

    def __init__(self, setup: PartSetup) -> None:
        self._setup = setup
        self._shard = setup.shard
        self._device = torch.device("cpu" if setup.shard.device == "auto" else setup.shard.device)
        self._dtype = DTYPES[setup.dtype]
        self._folder = setup.folder / setup.card.artefact
        self._files = CheckpointFiles(self._folder, is_mapped=setup.max_memory_bytes is None)
        self._config = read_config(self._folder)
        self._family = family_of(self._config.model_type, self._folder / "config.json")
        self._caches: Caches | None = None
        self._model: Any = None

    def load(self) -> PartFacts:
        use_torch_threads(self._setup.threads)
        model, layers = self._empty()
        if self._setup.group is not None:
            split(model, self._family, layers, self._setup.group, self._device.type)
        num_bytes = self._fill(model, layers)
        model.eval()
        model.requires_grad_(False)
        self._model = model
        if self._family.has_cache:
            self._caches = Caches(self._config, self._setup.kv_cache, self._setup.kv_cache_tokens)
        opened = tuple(sorted(self._files.opened))
        return PartFacts(device=str(self._device), weight_bytes=num_bytes, opened=opened)

    def run(self, values: Values, step: Step) -> Values:
        if self._model is None:
            raise EngineFailed("the part is closed")
        # Before anything can fail: what ended is told once.
        self.drop(step.ends)
        use_torch_threads(self._setup.threads)
        try:
            with torch.inference_mode():
                return self._run({k: self._tensor(v) for k, v in values.items()}, step)
        except IndexError as error:
            # An index beyond a table: a token id that the vocabulary has not.
            raise InvalidRequest(f"the model refuses the inputs: {error}") from None
        except SquadronError:
            raise
        except Exception as error:
            said = (
                f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"
            )
            if is_out_of_memory(error):
                raise OutOfMemory(f"PyTorch had too little memory: {said}") from None
            raise EngineFailed(f"PyTorch failed: {said}") from None

    def drop(self, sequences: Iterable[str]) -> None:
        if self._caches is not None:
            self._caches.drop(sequences)

    def close(self) -> None:
        self._model = None
        self._caches = None
        self._files.close()

    def layer_parts(self) -> Iterator[tuple[str, nn.Module]]:
        """What a layer is made of, layers counted from the model's first one (`layers.3/mlp`), and
        the modules with weights that are in no layer (`embed_tokens`, `lm_head`)."""
        inside = f"{self._family.layers}."
        for name, module in () if self._model is None else self._model.named_modules():
            if name.startswith(inside):
                index, _, rest = name.removeprefix(inside).partition(".")
                if rest and "." not in rest:
                    yield f"layers.{int(index) + self._shard.layers.start}/{rest}", module
            elif module._parameters and name:
                yield name.rpartition(".")[2], module

    def _run(self, values: dict[str, torch.Tensor], step: Step) -> Values:
        family, shard = self._family, self._shard
        takes: dict[str, Any] = {k: values[k] for k in family.beside if k in values}
        if shard.has_embedding:
            takes |= values
        else:
            takes[family.hidden_name] = values[HIDDEN]
        if self._caches is not None:
            takes["use_cache"] = bool(step.sequence)
            if step.sequence:
                takes["past_key_values"] = self._caches.of(step.sequence)
        body = self._model.get_submodule(family.body)
        hidden = body(**takes).last_hidden_state
        if not shard.has_head:
            return {HIDDEN: hidden, **{k: values[k] for k in family.beside if k in values}}
        if step.is_last_only:
            hidden = hidden[:, -1:]
        if not family.head:
            return {family.output: hidden.float()}
        if family.first_input == "pixel_values":
            hidden = hidden[:, 0, :]
        return {family.output: self._model.get_submodule(family.head)(hidden).float()}

    def _tensor(self, value: Any) -> torch.Tensor:
        if isinstance(value, np.ndarray):
            is_bfloat16 = value.dtype.name == "bfloat16"
            value = torch.from_numpy(value.view(np.uint16) if is_bfloat16 else value)
            value = value.view(torch.bfloat16) if is_bfloat16 else value
        found: torch.Tensor = value.to(self._device)
        return found.to(self._dtype) if found.is_floating_point() else found

    def _empty(self) -> tuple[Any, nn.ModuleList]:
        config = copy.deepcopy(self._config)
        # A family that transformers has not written it for does its attention step by step.
        config._attn_implementation = "sdpa" if self._family.model_class._supports_sdpa else "eager"
        refuse_by_place(config)
        keep_layers(config, self._shard.layers)
        self._config = config
        with torch.device("meta"):
            model: Any = self._family.model_class(config)
        for parameter in model.parameters():
            # Buffers keep theirs: positions' angles in half precision would not tell tokens apart.
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(self._dtype)
        if getattr(model, "pooler", None) is not None:
            # The card's outputs are those before it.
            model.pooler = None
        if not self._shard.has_embedding:
            self._take_out(model, self._family.before)
        if not self._shard.has_head:
            self._take_out(model, self._family.after)
        layers = model.get_submodule(self._family.layers)
        assert isinstance(layers, nn.ModuleList)
        return model, layers

    def _take_out(self, model: nn.Module, modules: Any) -> None:
        for name, standin in modules.items():
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, standin(self._dtype))

    def _fill(self, model: nn.Module, layers: nn.ModuleList) -> int:
        total = 0
        shared: dict[tuple[str, Any], nn.Parameter] = {}
        cap = self._setup.max_memory_bytes
        self._fill_buffers(model)
        for module_name, module in model.named_modules():
            is_in_layer = module_name.startswith(f"{self._family.layers}.")
            for name, empty in list(module._parameters.items()):
                if empty is None:
                    continue
                if cap is not None and is_in_layer:
                    total += empty.numel() * self._dtype.itemsize
                    continue
                source = self._source(f"{module_name}.{name}" if module_name else name)
                key = source, slices_of(module, name)
                if key not in shared:
                    shared[key] = self._read(source, module, name)
                    total += shared[key].numel() * self._dtype.itemsize
                module._parameters[name] = shared[key]
        if cap is not None:
            return_large_blocks()
            staying = sum(p.numel() for p in shared.values()) * self._dtype.itemsize
            stream_layers(layers, self._layer_reader(layers), cap - staying)
        return total

    def _fill_buffers(self, model: Any) -> None:
        """Those that were made on the meta device are made anew: read where the checkpoint has
        them, else computed by the family's own initialisation, which transformers runs for them
        when it loads a model. Before the parameters, which it would draw at random.

        Raises: ConfigError for one that neither gives: it would be any numbers.
        """
        for module_name, module in model.named_modules():
            lost = {name for name, b in module._buffers.items() if b is not None and b.is_meta}
            for name, buffer in module._buffers.items():
                if name in lost:
                    module._buffers[name] = torch.empty_like(buffer, device=self._device)
                elif buffer is not None:
                    module._buffers[name] = buffer.to(self._device)
            if lost:
                with torch.no_grad():
                    model._init_weights(module)
            for name in lost:
                made = module._buffers[name]
                source = self._source(f"{module_name}.{name}" if module_name else name)
                if name not in module._non_persistent_buffers_set and source in self._files:
                    module._buffers[name] = self._files.read(source, made.dtype, self._device)
                elif made._version == 0:
                    raise ConfigError(
                        f"{self._folder}: nothing says what the buffer {source} of the family "
                        f"{self._config.model_type} holds",
                        file=str(self._folder),
                        key=source,
                    )

    def _read(self, source: str, module: nn.Module, name: str) -> nn.Parameter:
        value = self._files.read(source, self._dtype, self._device, slices_of(module, name))
        expected = module._parameters[name]
        if expected is not None and value.shape != expected.shape:
            raise ConfigError(
                f"{self._folder}: {source} is {list(value.shape)}, config.json makes it "
                f"{list(expected.shape)}",
                file=str(self._folder),
                key=source,
            )
        return nn.Parameter(value, requires_grad=False)

    def _layer_reader(self, layers: nn.ModuleList) -> Any:
        """Reads one layer's weights: (module, parameter name) -> tensor."""

        def read(index: int) -> list[tuple[nn.Module, str, nn.Parameter]]:
            prefix = f"{self._family.layers}.{index}"
            return [
                (module, name, self._read(self._source(f"{prefix}.{path}.{name}"), module, name))
                for path, module in layers[index].named_modules()
                for name in module._parameters
                if module._parameters[name] is not None
            ]

        return read

    def _source(self, name: str) -> str:
        """The checkpoint's name of a parameter: layers there count from the model's first one."""
        layers = f"{self._family.layers}."
        if name.startswith(layers):
            index, dot, rest = name.removeprefix(layers).partition(".")
            name = f"{layers}{int(index) + self._shard.layers.start}{dot}{rest}"
        return weight_source(self._family, self._config, name, self._files.__contains__)
