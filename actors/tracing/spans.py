"""A process's spans: made where something happens, sent to the collector in the background."""

from __future__ import annotations

import os
import socket
import threading
import time
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from cluster.config.observability.tracing import TracingConfig
from cluster.errors import ConfigError

GOODBYE_S = 2.0

_EXPORTERS = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "http": "opentelemetry.exporter.otlp.proto.http",
}


def check_tracing(config: TracingConfig | None) -> None:
    """Raises: ConfigError when what sends spans is not installed."""
    if config is None or not config.endpoint:
        return
    if not _is_installed(_EXPORTERS[config.protocol]):
        raise ConfigError(
            f"tracing over {config.protocol} needs OpenTelemetry's exporter: "
            "pip install 'squadron-serve[trace]'",
            key="server.tracing.protocol",
            value=config.protocol,
        )


def open_tracer(config: TracingConfig, *, role: str, **facts: str | int) -> ProcessTracer:
    """`role`: door, replica or shard; `facts` tell one process from another."""
    return ProcessTracer(config, role, facts)


class ProcessTracer:
    """`tracer` makes spans. Every one of them is kept: who is sampled was decided before."""

    def __init__(
        self, config: TracingConfig, role: str, facts: dict[str, str | int], exporter: Any = None
    ) -> None:
        # Half a second and 20 MB: loaded where there is tracing only.
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        resource = Resource.create(
            {
                "service.name": config.service_name,
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
                "host.name": socket.gethostname(),
                "process.pid": os.getpid(),
                "squadron.role": role,
                **{f"squadron.{name}": value for name, value in facts.items()},
            }
        )
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter or _exporter(config),
                max_queue_size=config.max_queued_spans,
                schedule_delay_millis=config.export_every_s * 1000,
            )
        )
        self.tracer = self._provider.get_tracer("squadron")

    def close(self) -> None:
        """The last spans, and no more after that. Nobody's end waits long for a collector."""
        # The SDK's own patience is that of its exporter, for every span that is left.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(GOODBYE_S)


def wall_ns(monotonic_s: float) -> int:
    """A time on the monotonic clock as nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - monotonic_s) * 1e9)


def _exporter(config: TracingConfig) -> Any:
    if config.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter(
            endpoint=config.endpoint, insecure=urlsplit(config.endpoint).scheme == "http"
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
        OTLPSpanExporter as HttpExporter,
    )

    path = urlsplit(config.endpoint).path
    whole = config.endpoint if path.strip("/") else f"{config.endpoint.rstrip('/')}/v1/traces"
    return HttpExporter(endpoint=whole)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
