from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "onnxruntime", "openvino", "vllm", "scipy", "pandas")


@pytest.mark.parametrize(
    "module",
    ["actors.gateway", "actors.controller", "actors.autoscaling.autoscaler", "actors.replica_host"],
)
def test_no_process_loads_an_engine_before_it_has_a_model_for_it(module: str) -> None:
    """A door, a controller and every new replica start with these imports: with torch each of them
    takes twice as long and twice the memory."""
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert done.stdout.strip() == "[]"
