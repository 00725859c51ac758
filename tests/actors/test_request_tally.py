from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import asyncio, sys
from pathlib import Path
from actors.request_tally import RequestTally
from cluster.observability.metrics import aggregate, make_metrics

async def main():
    folder = Path(sys.argv[1])
    tally = RequestTally(make_metrics(folder), in_flight=lambda: 3)
    tally.add("m", "1", "v", "success", 0.002)
    tally.add("m", "1", "v", "success", 0.004)
    tally.add("m", "1", "", "overloaded", 0.001)
    tally.flush()
    print(aggregate(folder).decode())

asyncio.run(main())
"""


def test_what_was_added_up_is_in_the_metrics_under_both_names(tmp_path: Path) -> None:
    """In a process of its own: prometheus_client chooses its storage once a process."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )

    lines = set(done.stdout.splitlines())
    assert 'squadron_requests_total{model="m",outcome="success",variant="v"} 2.0' in lines
    assert 'nv_inference_request_success{model="m",version="1"} 2.0' in lines
    failure = 'nv_inference_request_failure{model="m",reason="REJECTED",version="1"} 1.0'
    assert failure in lines
    assert 'squadron_request_seconds_bucket{le="0.0025",model="m",variant="v"} 1.0' in lines
    assert 'squadron_request_seconds_count{model="m",variant="v"} 2.0' in lines
    assert "squadron_requests_in_flight 3.0" in lines
