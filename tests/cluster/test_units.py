from __future__ import annotations

from cluster.units import human_bytes, human_seconds


def test_bytes_read_in_binary_units() -> None:
    assert [human_bytes(n) for n in (0, 999, 1536, 18_623_456)] == [
        "0 B",
        "999 B",
        "1.5 KiB",
        "17.8 MiB",
    ]


def test_seconds_read_in_the_unit_that_fits() -> None:
    assert [human_seconds(s) for s in (0.0004, 3.21, 75)] == ["0.4 ms", "3.2 s", "1 min 15 s"]
