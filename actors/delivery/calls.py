"""A request as the call that travels to a replica."""

from __future__ import annotations

from cluster.protocols.envelope import Call
from cluster.requests import InferenceRequest


def call_of(request: InferenceRequest, rows: int) -> Call:
    """Its number and the time that it has left are set where it is sent."""
    return Call(
        call_id=0,
        rows=rows,
        left_s=0.0,
        inputs=request.inputs,
        wanted=tuple([output.name for output in request.outputs]),
        request_id=request.request_id,
        priority=request.priority,
        tenant=request.tenant,
        trace=request.trace,
    )
