"""Triton's `sequence_batching` as our `sequences:` section.

Source: model_config.proto, ModelSequenceBatching; the names are the same.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from cluster.config.sequences import SequencesConfig
from cluster.protocols.triton.findings import Findings
from cluster.protocols.triton.model_config import datatype_named, enum_name

DEFAULT_IDLE_US = 1_000_000
_PAIRS = {"int32_false_true": "INT32", "fp32_false_true": "FP32", "bool_false_true": "BOOL"}


def sequences_section(config: Any, findings: Findings) -> dict[str, object]:
    """What stands under `sequences:`; empty for a model without `sequence_batching`."""
    if not config.HasField("sequence_batching"):
        return {}
    sequences = config.sequence_batching
    section: dict[str, object] = {
        "strategy": sequences.WhichOneof("strategy_choice") or "direct",
        "max_sequence_idle_us": sequences.max_sequence_idle_microseconds or DEFAULT_IDLE_US,
        **_strategy(sequences, findings),
    }
    controls = {entry.name: _control(entry, findings) for entry in sequences.control_input}
    if controls:
        section["controls"] = controls
    states = [_state(state, findings) for state in sequences.state]
    if states:
        section["state"] = states
    if sequences.iterative_sequence:
        findings.refused(
            "sequence_batching.iterative_sequence",
            "a request is not queued again by its model: write it as a decoupled model",
        )
    _check(section, findings)
    return section


def hidden_tensors(config: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Inputs and outputs of the artefact that the server fills and keeps: no client sees them."""
    sequences = config.sequence_batching
    inputs = {entry.name for entry in sequences.control_input}
    inputs |= {state.input_name for state in sequences.state}
    return frozenset(inputs), frozenset(state.output_name for state in sequences.state)


def _strategy(sequences: Any, findings: Findings) -> dict[str, object]:
    found: dict[str, object] = {}
    if sequences.HasField("oldest"):
        oldest = sequences.oldest
        if oldest.max_candidate_sequences:
            found["max_candidate_sequences"] = oldest.max_candidate_sequences
        if oldest.preferred_batch_size:
            found["preferred_batch_sizes"] = list(oldest.preferred_batch_size)
        if oldest.max_queue_delay_microseconds:
            found["max_queue_delay_us"] = oldest.max_queue_delay_microseconds
        if oldest.preserve_ordering:
            findings.changed(
                "sequence_batching.oldest.preserve_ordering",
                "answers keep the order of their sequence, not that of all sequences",
            )
    elif sequences.HasField("direct"):
        direct = sequences.direct
        if direct.max_queue_delay_microseconds:
            found["max_queue_delay_us"] = direct.max_queue_delay_microseconds
        if direct.minimum_slot_utilization:
            # The field is a 32-bit float: 0.1 is written as 0.1, not as what it becomes in 64.
            found["minimum_slot_utilization"] = float(f"{direct.minimum_slot_utilization:.6g}")
    return found


def _control(entry: Any, findings: Findings) -> dict[str, object]:
    field = f"sequence_batching.control_input.{entry.name}"
    if len(entry.control) != 1:
        findings.refused(field, f"one control a tensor, got {len(entry.control)}")
        return {}
    (control,) = entry.control
    kind = enum_name(control, "kind").removeprefix("CONTROL_SEQUENCE_").lower()
    if kind == "corrid":
        return {"kind": kind, "datatype": datatype_named(control.data_type) or "UINT64"}
    for name, datatype in _PAIRS.items():
        if len(pair := list(getattr(control, name))) == 2:
            section: dict[str, object] = {"kind": kind, "datatype": datatype}
            if pair != [0, 1]:
                section |= {"false_value": pair[0], "true_value": pair[1]}
            return section
    findings.refused(field, "needs two values, for false and true")
    return {}


def _state(state: Any, findings: Findings) -> dict[str, object]:
    field = f"sequence_batching.state.{state.input_name}"
    for initial in state.initial_state:
        if initial.WhichOneof("state_data") == "data_file":
            findings.refused(
                f"{field}.initial_state.data_file",
                "write the values as `initial:` of the state in the Serve file",
            )
    if state.use_same_buffer_for_input_output:
        findings.dropped(f"{field}.use_same_buffer_for_input_output", "buffers are the engine's")
    if state.use_growable_memory:
        findings.dropped(f"{field}.use_growable_memory", "buffers are the engine's")
    return {
        "input": state.input_name,
        "output": state.output_name,
        "datatype": datatype_named(state.data_type) or "FP32",
        "shape": list(state.dims),
    }


def _check(section: dict[str, object], findings: Findings) -> None:
    if findings.has_refused():
        return
    try:
        SequencesConfig.model_validate(section)
    except ValidationError as error:
        for detail in error.errors():
            key = ".".join(["sequences", *(str(part) for part in detail["loc"])])
            findings.refused("sequence_batching", f"{key}: {detail['msg']}")
