"""Triton's scheduling blocks as our `batching:` section.

Source: model_config.proto, ModelDynamicBatching and ModelQueuePolicy; the names are the same.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from cluster.config.variant import BatchingConfig
from cluster.protocols.triton.findings import Findings
from cluster.protocols.triton.model_config import enum_name
from cluster.protocols.triton.signature import ragged_inputs

MAX_QUEUE_DELAY_US = 60_000_000


def batching_section(config: Any, findings: Findings) -> dict[str, object]:
    """What stands under `batching:`; only keys whose value is not the default.

    A model with a batch dimension and no batcher runs each request by itself, as Triton's default
    scheduler does. What Triton refuses to load (a preferred size above the maximum) is refused.
    """
    section: dict[str, object] = {}
    is_batched = config.max_batch_size > 0
    if is_batched:
        section["max_batch_size"] = config.max_batch_size
    if config.HasField("dynamic_batching"):
        if is_batched:
            section |= _dynamic(config.dynamic_batching, findings)
        else:
            findings.dropped("dynamic_batching", "has no effect with max_batch_size 0")
            section["mode"] = "off"
    elif not config.HasField("sequence_batching"):
        section["mode"] = "off"
    ragged = ragged_inputs(config)
    if ragged:
        section["ragged"] = _ragged(config, ragged)
    elif any(tensor.allow_ragged_batch for tensor in config.input):
        section["separate_shapes"] = True
        findings.changed(
            "input.allow_ragged_batch",
            "requests of one shape batch together (separate_shapes); ragged batches are built of "
            "inputs with dims: [ -1 ]",
        )
    try:
        BatchingConfig.model_validate(section)
    except ValidationError as error:
        for detail in error.errors():
            key = ".".join(["batching", *(str(part) for part in detail["loc"])])
            findings.refused("dynamic_batching", f"{key}: {detail['msg']}")
    return section


def _ragged(config: Any, inputs: tuple[str, ...]) -> dict[str, object]:
    batch_inputs = {
        name: {
            "kind": enum_name(entry, "kind").removeprefix("BATCH_").lower(),
            "source": entry.source_input[0],
        }
        for entry in config.batch_input
        for name in entry.target_name
        if entry.source_input
    }
    return {"inputs": list(inputs), **({"batch_inputs": batch_inputs} if batch_inputs else {})}


def _dynamic(batching: Any, findings: Findings) -> dict[str, object]:
    section: dict[str, object] = {}
    if batching.preferred_batch_size:
        section["preferred_batch_sizes"] = list(batching.preferred_batch_size)
    delay_us = batching.max_queue_delay_microseconds
    if delay_us > MAX_QUEUE_DELAY_US:
        findings.changed(
            "dynamic_batching.max_queue_delay_microseconds",
            f"{delay_us} becomes {MAX_QUEUE_DELAY_US}, the longest wait for company",
        )
    if delay_us:
        section["max_queue_delay_us"] = min(delay_us, MAX_QUEUE_DELAY_US)
    if batching.preserve_ordering:
        section["preserve_ordering"] = True
    if batching.priority_levels:
        section["priority_levels"] = batching.priority_levels
        section["default_priority_level"] = batching.default_priority_level
    default = _queue_policy(batching.default_queue_policy)
    if default:
        section["queue_policy"] = default
    levels = {
        int(level): _queue_policy(policy)
        for level, policy in sorted(batching.priority_queue_policy.items())
    }
    if levels:
        section["priority_queue_policy"] = levels
    return section


def _queue_policy(policy: Any) -> dict[str, object]:
    section: dict[str, object] = {}
    if policy.max_queue_size:
        section["max_queue_size"] = policy.max_queue_size
    if policy.default_timeout_microseconds:
        section["default_timeout_us"] = policy.default_timeout_microseconds
    if policy.allow_timeout_override:
        section["allow_timeout_override"] = True
    if enum_name(policy, "timeout_action") == "DELAY":
        section["timeout_action"] = "delay"
    return section
