from __future__ import annotations

from actors.sharding.topology.link_speed import LinkEnd


def test_a_link_is_measured_in_seconds_and_bytes_a_second() -> None:
    port = LinkEnd().listen("127.0.0.1")

    latency_s, bytes_per_s = LinkEnd().measure("127.0.0.1", port)

    assert 0 < latency_s < 1
    assert bytes_per_s > 1e6
