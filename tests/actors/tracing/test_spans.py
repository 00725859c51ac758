from __future__ import annotations

import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from actors.tracing.context import MAX_STATE, callers_place, place_of, text_of
from actors.tracing.nvtx import NvtxRanges, nvtx_ranges, open_ranges
from actors.tracing.replica import ReplicaSpans
from actors.tracing.spans import check_tracing
from cluster.config.observability.tracing import TracingConfig
from cluster.errors import ConfigError
from cluster.protocols.envelope import Call

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_exporter_that_is_not_installed_is_told_with_how_to_have_it(
    protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, f"opentelemetry.exporter.otlp.proto.{protocol}", None)
    config = TracingConfig(endpoint="http://127.0.0.1:4317", protocol=protocol)

    with pytest.raises(ConfigError) as caught:
        check_tracing(config)

    assert "squadron-serve[trace]" in caught.value.message
    assert caught.value.details["key"] == "server.tracing.protocol"


def test_no_exporter_is_needed_without_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc", None)

    check_tracing(None)
    check_tracing(TracingConfig(nvtx=True))


def test_a_place_survives_its_way_with_the_callers_state() -> None:
    caller = callers_place(PARENT, "vendor=1,other=2")
    assert caller is not None
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    span = tracer.start_span("s", context=set_span_in_context(NonRecordingSpan(caller)))

    arrived = place_of(text_of(span))

    assert arrived.trace_id == caller.trace_id
    assert arrived.span_id == span.get_span_context().span_id
    assert arrived.trace_flags.sampled
    assert arrived.trace_state.to_header() == "vendor=1,other=2"


def test_a_state_longer_than_one_has_to_pass_on_does_not_travel() -> None:
    caller = callers_place(PARENT, ",".join(f"v{i}={'x' * 100}" for i in range(8)))
    assert caller is not None
    from opentelemetry.trace import NonRecordingSpan

    assert len(caller.trace_state.to_header()) > MAX_STATE
    assert text_of(NonRecordingSpan(caller)) == PARENT


class Recorder:
    """What torch.cuda.nvtx offers, in the order of the calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def range_push(self, name: str) -> None:
        self.calls.append(f"push {name}")

    def range_pop(self) -> None:
        self.calls.append("pop")

    def range_start(self, name: str) -> int:
        self.calls.append(f"start {name}")
        return len(self.calls)

    def range_end(self, number: int) -> None:
        self.calls.append(f"end {number}")


def test_ranges_are_the_queue_the_batch_and_the_engine_and_need_no_sampled_request() -> None:
    recorder = Recorder()
    spans = ReplicaSpans(None, NvtxRanges(recorder), "v")
    calls = [Call(call_id=number, rows=1, left_s=1, inputs=()) for number in range(2)]

    spans.waits()
    spans.waits()
    spans.taken([(call, 0.0) for call in calls])
    with spans.batch(calls), spans.engine(2):
        pass

    assert recorder.calls == [
        "start squadron queue",
        "end 1",
        "push squadron batch of 2",
        "push squadron engine",
        "pop",
        "pop",
    ]


def test_a_machine_without_cuda_says_so_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    ranges, reason = nvtx_ranges()
    if ranges is not None:
        pytest.skip("there is CUDA here")

    assert open_ranges(True) is None
    assert reason in caplog.text
    assert open_ranges(False) is None
