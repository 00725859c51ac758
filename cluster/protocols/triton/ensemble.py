"""Triton's `ensemble_scheduling` as an entry of our `ensembles:`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cluster.protocols.triton.findings import Findings

NameOf = Callable[[str, str], str | None]
"""Model and version ("": any) -> the name it is served under here; None when it is not."""


def ensemble_section(config: Any, name_of: NameOf, findings: Findings) -> dict[str, object]:
    """`input_map` goes from a member's input to a value of the graph, as ours does."""
    steps: list[dict[str, object]] = []
    for index, step in enumerate(config.ensemble_scheduling.step):
        version = str(step.model_version) if step.model_version > 0 else ""
        name = name_of(step.model_name, version)
        where = f"ensemble_scheduling.step[{index}]"
        if name is None:
            asked = f"{step.model_name} version {version}" if version else step.model_name
            findings.refused(f"{where}.model_name", f"{asked} is not served here")
            continue
        if step.model_namespace:
            findings.dropped(f"{where}.model_namespace", "there is one space of names")
        inputs = {key: value for key, value in sorted(step.input_map.items()) if key != value}
        outputs: Mapping[str, str] = dict(sorted(step.output_map.items()))
        steps.append(
            {"model": name, **({"inputs": inputs} if inputs else {}), "outputs": dict(outputs)}
        )
    if config.ensemble_scheduling.max_inflight_requests:
        findings.dropped(
            "ensemble_scheduling.max_inflight_requests",
            "server.limits.max_in_flight bounds all requests together",
        )
    if any(tensor.label_filename for tensor in config.output):
        findings.dropped("output.label_filename", "class names belong to the member that scores")
    if config.max_batch_size:
        findings.changed("max_batch_size", "an ensemble's is that of its members")
    return {
        "inputs": [tensor.name for tensor in config.input],
        "outputs": [tensor.name for tensor in config.output],
        "steps": steps,
    }
