"""Traces of requests, for a collector that speaks OTLP."""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from cluster.config.section import Section


class TracingConfig(Section):
    """Where spans go and which requests have some.

    `endpoint`: the collector, `http://host:4317` for `protocol: grpc` (`https://` for TLS),
    `http://host:4318` for `http`; empty: no spans. Headers with secrets stand in the environment
    (`OTEL_EXPORTER_OTLP_HEADERS`), not here. `sample_ratio`: of the requests whose caller did not
    decide. `honours_parent`: a caller's `traceparent` decides for its request; where callers are
    not trusted to choose what costs us, false. `nvtx`: mark queue, batch, engine and stages for
    NVIDIA's profilers, on machines with CUDA; needs no endpoint.
    """

    endpoint: str = ""
    protocol: Literal["grpc", "http"] = "grpc"
    sample_ratio: float = Field(default=0.01, ge=0, le=1)
    honours_parent: bool = True
    service_name: str = Field(default="squadron", min_length=1)
    max_queued_spans: int = Field(default=8192, ge=512, le=1_000_000)
    export_every_s: float = Field(default=1.0, gt=0, le=60)
    nvtx: bool = False

    @model_validator(mode="after")
    def _endpoint_is_an_address(self) -> Self:
        if not self.endpoint:
            if not self.nvtx:
                raise ValueError("endpoint is empty: name the collector, as http://127.0.0.1:4317")
            return self
        address = urlsplit(self.endpoint)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(
                "endpoint must be http://host:port or https://host:port, got "
                f"{address.scheme or 'no'}:// as its beginning"
            )
        if address.username or address.password:
            raise ValueError(
                "endpoint holds a password; give it in the environment variable "
                "OTEL_EXPORTER_OTLP_HEADERS"
            )
        return self
