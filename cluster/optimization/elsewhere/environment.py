"""Converters that live in an environment of their own: their packages and ours do not mix.

LiteRT's brings jax and a transformers of its choice, ExecuTorch's pins what sympy may use, and
TensorFlow's half a gigabyte nobody else needs. So a small script is run by whichever interpreter
has them, and files are all that passes between.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from cluster.errors import ConfigError

Library = Literal["litert", "executorch", "tensorflow"]
TIMEOUT_S = 1800.0
PROBE_S = 120.0
MAX_TOLD = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a library may be: `modules` must be importable there. `setup` makes it."""

    modules: tuple[str, ...]
    environment: str
    variable: str
    setup: str


PLACES: dict[Library, Place] = {
    "litert": Place(
        modules=("litert_torch", "ai_edge_litert"),
        environment="edge",
        variable="SQUADRON_EDGE_PYTHON",
        setup="make setup-edge",
    ),
    "executorch": Place(
        modules=("executorch",),
        environment="edge",
        variable="SQUADRON_EDGE_PYTHON",
        setup="make setup-edge",
    ),
    "tensorflow": Place(
        modules=("tensorflow", "tf2onnx"),
        environment="tensorflow",
        variable="SQUADRON_TENSORFLOW_PYTHON",
        setup="make setup-tensorflow",
    ),
}


def interpreter(library: Library) -> Path:
    """The Python that has it: the one named by the variable, ours, or the one `make` set up.

    Raises: ConfigError saying what is missing and how to get it.
    """
    place = PLACES[library]
    named = os.environ.get(place.variable)
    inside = Path(sys.prefix) / place.environment / "bin" / "python"
    tried = [Path(named)] if named else [Path(sys.executable), inside]
    for python in tried:
        if python.is_file() and _has(python, place.modules):
            return python
    what = " and ".join(place.modules)
    where = f"{place.variable}={named} has not" if named else "no Python here has"
    raise ConfigError(
        f"{where} {what}: `{place.setup}` makes an environment with it, or name one in "
        f"{place.variable}",
        key="target",
        value=library,
    )


def why_not(library: Library) -> str:
    """Empty when it can be used, else the reason."""
    try:
        interpreter(library)
    except ConfigError as error:
        return error.message
    return ""


def run_worker(library: Library, worker: Path, *arguments: str) -> dict[str, Any]:
    """The last line that the script prints, a JSON object.

    Raises: ConfigError with the last line of what it said when it failed.
    """
    command = [str(interpreter(library)), "-I", str(worker), *arguments]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{library}: the conversion took longer than {TIMEOUT_S:g} s", key="target"
        ) from None
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not lines:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise ConfigError(
            f"{library} cannot convert it: {(said or ['no reason given'])[-1][:MAX_TOLD]}",
            key="target",
            value=library,
        )
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


@lru_cache
def _has(python: Path, modules: tuple[str, ...]) -> bool:
    """Looked for, not imported: importing takes half a minute."""
    code = (
        "import importlib.util as u, sys; "
        f"sys.exit(0 if all(u.find_spec(m) for m in {list(modules)!r}) else 1)"
    )
    try:
        done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, timeout=PROBE_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
