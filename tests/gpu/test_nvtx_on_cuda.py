from __future__ import annotations

import pytest

from actors.tracing.nvtx import nvtx_ranges


def test_ranges_begin_and_end_in_the_drivers_own_library() -> None:
    ranges, reason = nvtx_ranges()
    if ranges is None:
        pytest.skip(f"no NVTX: {reason}")

    ranges.waits()
    with ranges.range("squadron batch"), ranges.range("squadron engine"):
        ranges.taken()

    assert ranges._waiting is None
