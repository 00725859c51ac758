"""Triton's `sequence_batching` as a `sequences:` section.

Written into the file only where a variant knows such a section; the report says so either way.
"""

from __future__ import annotations

from typing import Any

from cluster.config.variant import VariantConfig
from cluster.protocols.triton.findings import Findings
from cluster.protocols.triton.model_config import datatype_named, enum_name

IS_SERVED = "sequences" in VariantConfig.model_fields


def sequences_section(config: Any) -> dict[str, object]:
    """Strategy, idle time, control inputs and state, under Triton's names."""
    sequences = config.sequence_batching
    section: dict[str, object] = {
        "strategy": sequences.WhichOneof("strategy_choice") or "direct",
        "max_idle_us": sequences.max_sequence_idle_microseconds or 1_000_000,
    }
    if sequences.HasField("oldest"):
        oldest = sequences.oldest
        section["max_candidate_sequences"] = oldest.max_candidate_sequences
        section["max_queue_delay_us"] = oldest.max_queue_delay_microseconds
    controls = [
        {
            "input": entry.name,
            "kind": enum_name(control, "kind").removeprefix("CONTROL_SEQUENCE_").lower(),
            **_values(control),
        }
        for entry in sequences.control_input
        for control in entry.control
    ]
    if controls:
        section["controls"] = controls
    states = [
        {
            "input": state.input_name,
            "output": state.output_name,
            "datatype": datatype_named(state.data_type),
            "shape": list(state.dims),
        }
        for state in sequences.state
    ]
    if states:
        section["states"] = states
    return section


def report_sequences(config: Any, findings: Findings) -> None:
    """Without the section a model whose requests belong together must not be served as if not."""
    if not config.HasField("sequence_batching"):
        return
    if IS_SERVED:
        findings.refused(
            "sequence_batching",
            "write the model's `sequences:` by hand; the importer does not fill it in yet: "
            f"{sequences_section(config)}",
        )
        return
    findings.refused(
        "sequence_batching", "sequences are not served: each request would stand by itself"
    )


def _values(control: Any) -> dict[str, object]:
    for field in ("int32_false_true", "fp32_false_true", "bool_false_true"):
        pair = list(getattr(control, field))
        if pair:
            return {"false_true": pair}
    return {"datatype": datatype_named(control.data_type)}
