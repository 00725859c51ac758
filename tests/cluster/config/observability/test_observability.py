from __future__ import annotations

from typing import Any

import pytest

from cluster.config.squadron import SquadronConfig
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError


def read(**server: Any) -> SquadronConfig:
    content = {"variants": {"a": {"source": "m"}}, "server": server}
    return check_section(content, SquadronConfig, source="prod.yaml")


def test_both_are_off_unless_asked_for() -> None:
    server = read().server

    assert server.tracing is None
    assert (server.logging.format, server.logging.access_log) == ("text", False)


def test_a_collector_and_a_share_of_the_requests() -> None:
    tracing = read(tracing={"endpoint": "http://otel:4317", "sample_ratio": 0.1}).server.tracing

    assert tracing is not None
    assert (tracing.protocol, tracing.sample_ratio, tracing.honours_parent) == ("grpc", 0.1, True)


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ({"tracing": {}}, "server.tracing: endpoint is empty"),
        ({"tracing": {"endpoint": "otel:4317"}}, "endpoint must be http://host:port"),
        (
            {"tracing": {"endpoint": "http://a", "sample_ratio": 2}},
            "server.tracing.sample_ratio: Input should be less than or equal to 1",
        ),
        (
            {"tracing": {"endpoint": "http://a", "protocol": "udp"}},
            "server.tracing.protocol: Input should be 'grpc' or 'http', got 'udp'",
        ),
        ({"tracing": {"endpoint": "http://a", "ratio": 1}}, "server.tracing.ratio: unknown key"),
        (
            {"logging": {"format": "xml"}},
            "server.logging.format: Input should be 'text' or 'json', got 'xml'",
        ),
    ],
)
def test_a_mistake_names_its_key_and_what_is_allowed(server: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**server)

    assert told in caught.value.message


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        read(tracing={"endpoint": "https://user:hunter2@otel:4317"})

    assert "OTEL_EXPORTER_OTLP_HEADERS" in caught.value.message
    assert "hunter2" not in caught.value.message


def test_ranges_for_a_profiler_need_no_collector() -> None:
    tracing = read(tracing={"nvtx": True}).server.tracing

    assert tracing is not None
    assert tracing.nvtx
