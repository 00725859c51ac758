"""schemathesis makes requests from our own `/openapi.json` and holds the answers against it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.conformance.environments import NoEnvironment, environment
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e]
CONFIG = Path(__file__).with_name("schemathesis.toml")
NUM_EXAMPLES = int(os.environ.get("SQUADRON_SCHEMATHESIS_EXAMPLES", "30"))


def test_the_openapi_document_is_true(triton_models: Running) -> None:
    try:
        folder = environment("schemathesis", "schemathesis==4.32.0")
    except NoEnvironment as error:
        pytest.skip(f"schemathesis cannot be had here: {error}")
    done = subprocess.run(
        [
            folder / "schemathesis",
            f"--config-file={CONFIG}",
            "run",
            f"{triton_models.http}/openapi.json",
            f"--max-examples={NUM_EXAMPLES}",
            "--workers=1",
            "--no-color",
            "--generation-deterministic",
        ],
        capture_output=True,
        text=True,
        timeout=400,
    )

    cases = re.search(r"(\d+) generated", done.stdout)
    print(f"schemathesis: {cases[1] if cases else '?'} requests")
    assert done.returncode == 0, done.stdout[-8000:]
    assert httpx.get(f"{triton_models.http}/v2/health/ready").status_code == 200
