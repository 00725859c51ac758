"""How loaded a server is, in the header of its answer, for balancers that asked for it.

Source: ORCA (the xDS message OrcaLoadReport) in the header form that Triton has: the request names
the format in `endpoint-load-metrics-format`, the answer carries `endpoint-load-metrics`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

REQUEST_HEADER = "endpoint-load-metrics-format"
ANSWER_HEADER = "endpoint-load-metrics"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """`utilization` of the asked model at this door: its rows as a part of those that may be under
    way to its replicas; above 1 they wait."""

    utilization: float
    requests_in_flight: int
    rows_waiting: int


def encode_load(report: LoadReport, form: str) -> str | None:
    """The header's value; None for a format that there is not."""
    named = {
        "requests_in_flight": report.requests_in_flight,
        "rows_waiting": report.rows_waiting,
    }
    utilization = round(report.utilization, 4)
    match form.strip().lower():
        case "json":
            content = {"application_utilization": utilization, "named_metrics": named}
            return "JSON " + json.dumps(content)
        case "text":
            parts = [f"application_utilization={utilization}"]
            parts += [f"named_metrics.{name}={value}" for name, value in named.items()]
            return "TEXT " + ", ".join(parts)
    return None
