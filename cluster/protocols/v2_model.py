"""What a server says of itself and its models; the same facts for HTTP and gRPC.

Source: protocol section 5.3 and Triton's model configuration (field names and TYPE_* names).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cluster.config.sequences import ControlConfig, SequencesConfig, StateConfig
from cluster.tensors import Datatype, Signature, TensorSpec

InstanceKind = Literal["KIND_AUTO", "KIND_CPU", "KIND_GPU", "KIND_MODEL"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """One model as clients see it.

    `max_batch_size` 0: the model is not batched. With >= 1 every shape of the signature begins with
    the batch dimension. `num_instances` counts the model processes of all its variants.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    backend: str
    signature: Signature
    max_batch_size: int = 0
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    is_decoupled: bool = False
    sequences: SequencesConfig | None = None
    num_instances: int = 1
    kind: InstanceKind = "KIND_AUTO"
    parameters: Mapping[str, str] = field(default_factory=dict)


def type_name(datatype: Datatype) -> str:
    """The name in a model configuration: TYPE_STRING for BYTES, else TYPE_ and the datatype."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def server_metadata(name: str, version: str, extensions: Sequence[str]) -> dict[str, object]:
    return {"name": name, "version": version, "extensions": list(extensions)}


def model_metadata(model: ModelDescription) -> dict[str, object]:
    """Shapes are whole; with a batched model they begin with -1 (any batch size)."""
    is_batched = model.max_batch_size >= 1
    return {
        "name": model.name,
        "versions": list(model.versions),
        "platform": model.platform,
        "inputs": [_tensor_metadata(spec, is_batched) for spec in model.signature.inputs],
        "outputs": [_tensor_metadata(spec, is_batched) for spec in model.signature.outputs],
    }


def _tensor_metadata(spec: TensorSpec, is_batched: bool) -> dict[str, object]:
    shape = [-1, *spec.shape[1:]] if is_batched else list(spec.shape)
    return {"name": spec.name, "datatype": spec.datatype, "shape": shape}


def model_config(model: ModelDescription) -> dict[str, object]:
    """The configuration in the JSON form of the message `inference.ModelConfig`."""
    is_batched = model.max_batch_size >= 1
    config: dict[str, object] = {
        "name": model.name,
        "platform": model.platform,
        "backend": model.backend,
        "version_policy": _version_policy(model.versions),
        "max_batch_size": model.max_batch_size,
        "input": [_tensor_config(spec, is_batched) for spec in model.signature.inputs],
        "output": [_tensor_config(spec, is_batched) for spec in model.signature.outputs],
        "instance_group": [
            {"name": model.name, "kind": model.kind, "count": max(0, model.num_instances)}
        ],
        "parameters": {
            key: {"string_value": value} for key, value in sorted(model.parameters.items())
        },
    }
    if model.is_decoupled:
        config["model_transaction_policy"] = {"decoupled": True}
    if model.sequences is not None:
        config["sequence_batching"] = _sequence_batching(model.sequences)
    elif is_batched:
        config["dynamic_batching"] = {
            "preferred_batch_size": list(model.preferred_batch_sizes),
            "max_queue_delay_microseconds": model.max_queue_delay_us,
        }
    return config


def _version_policy(versions: Sequence[str]) -> dict[str, object]:
    if len(versions) < 2:
        return {"latest": {"num_versions": 1}}
    return {"specific": {"versions": [int(version) for version in versions]}}


def _tensor_config(spec: TensorSpec, is_batched: bool) -> dict[str, object]:
    """Dimensions are those of one row: the batch dimension is left out."""
    dims = list(spec.shape[1:] if is_batched else spec.shape)
    return {"name": spec.name, "data_type": type_name(spec.datatype), "dims": dims}


def _sequence_batching(sequences: SequencesConfig) -> dict[str, object]:
    found: dict[str, object] = {
        "max_sequence_idle_microseconds": sequences.max_sequence_idle_us,
        "control_input": [
            {"name": name, "control": [_control(control)]}
            for name, control in sequences.controls.items()
        ],
        "state": [_state(item) for item in sequences.state],
    }
    if sequences.strategy == "direct":
        found["direct"] = {
            "max_queue_delay_microseconds": sequences.max_queue_delay_us,
            "minimum_slot_utilization": sequences.minimum_slot_utilization,
        }
    else:
        found["oldest"] = {
            "max_candidate_sequences": sequences.max_candidate_sequences,
            "preferred_batch_size": list(sequences.preferred_batch_sizes),
            "max_queue_delay_microseconds": sequences.max_queue_delay_us,
        }
    return found


def _control(control: ControlConfig) -> dict[str, object]:
    described: dict[str, object] = {"kind": f"CONTROL_SEQUENCE_{control.kind.upper()}"}
    if control.kind == "corrid":
        return {**described, "data_type": type_name(control.datatype)}
    kind: Callable[[object], object] = _KINDS[control.datatype]
    values = [kind(control.false_value), kind(control.true_value)]
    return {**described, f"{control.datatype.lower()}_false_true": values}


_KINDS: dict[Datatype, Callable[[Any], object]] = {"INT32": int, "FP32": float, "BOOL": bool}


def _state(item: StateConfig) -> dict[str, object]:
    return {
        "input_name": item.input,
        "output_name": item.output,
        "data_type": type_name(item.datatype),
        "dims": list(item.shape),
    }
