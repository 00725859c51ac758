"""kserve's REST and gRPC clients (V2) against Triton's example models."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conformance.environments import NoEnvironment, environment
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e]
PROGRAM = Path(__file__).with_name("kserve_client.py")


@pytest.mark.slice
def test_every_check_of_kserves_clients_passes(triton_models: Running) -> None:
    try:
        folder = environment("kserve", "kserve==0.21.0")
    except NoEnvironment as error:
        pytest.skip(f"kserve cannot be had here: {error}")
    done = subprocess.run(
        [folder / "python", PROGRAM, triton_models.http, triton_models.grpc],
        capture_output=True,
        text=True,
        timeout=120,
    )

    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    assert done.stdout.count("passed: ") == 11
