"""What the one server of this folder serves: small models that need no download."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from loadtests.measured_models import LONG, experiment, variants_of

SHM_PREFIX = f"/squadron_e2e_{os.getpid()}_"
NUM_FLOATS = 2**18
NUMBERS = {"mib": "INT64", "held": "INT64", "seconds": "FP32", "taken": "FP32"}

EXPERIMENTS: dict[str, Any] = {
    "plain": experiment("equal", 10, match=[{"header": "x-tier", "value": "beta", "arm": "equal"}]),
    "lasting": experiment("equal", 50),
    "mirrored": {"split": {"control": 1}, "mirror": {"variants": ["equal"]}},
    "guarded": {"split": {"long": 50, "longer": 50}, "guardrails": {"latency": 0.0}},
    "rated": experiment("worse", 50, guardrails={"latency": None}),
    "fair": experiment("equal", 50, guardrails={"latency": 0.1}),
    "kept": experiment("equal"),
    "changed": experiment("equal"),
}


def _fake(name: str, datatype: str, *shape: int, **more: Any) -> dict[str, Any]:
    """y = 2 * x + 1; of texts y = x."""
    signature = {
        "inputs": [{"name": "x", "datatype": datatype, "shape": list(shape)}],
        "outputs": [{"name": "y", "datatype": datatype, "shape": list(shape)}],
    }
    card = {"name": name, "format": "fake", "signature": signature}
    return {"engine": "fake", "card": card, **more}


def _python(name: str, python_class: str, input: str, output: str, **more: Any) -> dict[str, Any]:
    """A class of `tests.greedy_model`: a number in, a number out."""
    signature = {
        kind: [{"name": tensor, "datatype": NUMBERS[tensor], "shape": [-1, 1]}]
        for kind, tensor in (("inputs", input), ("outputs", output))
    }
    card = {
        "name": name,
        "format": "python",
        "python_class": f"tests.greedy_model:{python_class}",
        "signature": signature,
    }
    return {"card": card, **more}


def _autoscaled(name: str, **autoscaling: Any) -> dict[str, Any]:
    return _fake(
        name,
        "FP32",
        *(-1, 1),
        options={"delay_ms": 100},
        batching={"mode": "off", "max_batch_size": 1},
        autoscaling={"slo_ms": 500, "downscale_delay_s": 5, "startup_s": 3, **autoscaling},
    )


def variants() -> dict[str, Any]:
    """Each file's own; `echo` is everybody's."""
    return {
        "echo": _fake("echo", "FP32", -1, 4, batching={"max_batch_size": 16}),
        # test_autoscaling
        "crowded": _autoscaled("crowded", max_replicas=3, look_back_period_s=5),
        "rare": _autoscaled("rare", min_replicas=0, max_replicas=1, downscale_to_zero_delay_s=5),
        # test_process_limits
        "greedy": _python(
            "greedy", "Greedy", "mib", "held", limits={"memory_limit_mb": 1024, "nice": 5}
        ),
        # Low, so that a busy machine gives as much; a replica at rest takes a tenth of it.
        "busy": _python("busy", "Busy", "seconds", "taken", limits={"cpu_limit": 0.2}),
        # test_shared_memory
        "megabyte": _fake("megabyte", "FP32", -1, NUM_FLOATS),
        "texts": _fake("texts", "BYTES", -1, -1),
        # test_traffic
        **variants_of(batch=1, names=("control", "equal", "worse", *LONG)),
    }


def write_config(file: Path, store: Path) -> None:
    """`store` has the measured models."""
    args = {
        "server": {
            "doors_per_node": 2,
            "shared_memory": {"enabled": True, "prefixes": [SHM_PREFIX]},
        },
        "store": {"path": str(store)},
        "variants": variants(),
        "experiments": EXPERIMENTS,
    }
    application = {
        "name": "squadron",
        "route_prefix": "/",
        "import_path": "actors.app:build",
        "args": args,
    }
    file.write_text(
        yaml.safe_dump({"http_options": {"host": "127.0.0.1"}, "applications": [application]})
    )
